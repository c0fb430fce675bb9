"""Benchmarks of mfkernel: the catalogue of cases, the gate, the tables, and the search for defaults."""
