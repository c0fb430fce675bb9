"""Readers of ratings from files, within bounds of memory."""
