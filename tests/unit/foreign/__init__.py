"""Foreign logs of decisions."""
