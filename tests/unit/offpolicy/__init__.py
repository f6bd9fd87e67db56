"""Off-policy evaluation along a log."""
