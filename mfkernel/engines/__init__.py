"""Engines, which run the tasks of an epoch, and the cores and memory that they may use."""
