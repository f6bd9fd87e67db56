"""Tests: the comparison with peers."""
