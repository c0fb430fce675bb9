"""The fitted model: its arrays, and functions of them."""
