"""Real recorded traffic in three acts, through a running service and then by its fold alone."""
