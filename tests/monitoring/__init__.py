"""Tests of metrics, and of what reads them."""
