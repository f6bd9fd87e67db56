"""The service as its users meet it: over real sockets, and as real processes."""
