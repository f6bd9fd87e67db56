"""The running service without its protocols: writer, router, recovery, maintenance, experiments."""
