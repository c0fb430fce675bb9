"""Argument checks, read-only arrays and other tools for the whole package."""
