"""Experiments as part of the fold: specification, assignment, steering, results. Pure."""
