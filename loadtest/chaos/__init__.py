"""kill -9 at random points under load, and what must be there afterwards."""
