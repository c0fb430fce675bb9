"""Ratings and ids: from what the user passes to one checked CSR matrix."""
