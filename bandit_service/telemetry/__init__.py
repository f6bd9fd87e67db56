"""What the service tells of itself: metrics, learning health, traces."""
