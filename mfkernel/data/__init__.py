"""Convert ratings and ids in any supported form to one checked CSR matrix."""
