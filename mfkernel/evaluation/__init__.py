"""Split ratings, cross-validate and search for settings."""
