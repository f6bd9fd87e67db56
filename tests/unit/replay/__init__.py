"""Tests: recorded traffic."""
