"""Engines that run tasks, and the cores and memory available to them."""
