"""Speed and memory, each beside its baseline: `make bench`."""
