"""Read ratings from files within bounds of memory."""
