"""Replay of recorded traffic, and load, against a running service."""
