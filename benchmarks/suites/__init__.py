"""The cases that are measured: builders and suites, by subject, and the catalogue of them all."""
