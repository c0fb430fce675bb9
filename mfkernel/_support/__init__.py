"""Checks of arguments, read-only arrays and other parts that every room uses."""
