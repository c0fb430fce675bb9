"""The fitted model: its arrays and the functions that use them."""
