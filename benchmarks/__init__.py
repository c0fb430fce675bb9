"""Benchmarks of mfkernel: one catalogue of cases, run by asv, by pytest-benchmark and by a table maker."""
