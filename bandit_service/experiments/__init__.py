"""Experiments while they run: changed, steered, measured, put in words. The fold is in core."""
