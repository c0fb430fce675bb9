"""Who runs the tasks of an epoch, and with which cores and how much memory."""
