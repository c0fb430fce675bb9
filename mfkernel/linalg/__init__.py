"""Linear algebra on rows of factors: arrays in, arrays out, run on an engine."""
