"""Models timed against each other on this machine, in the runtimes that may serve them."""
