"""Tests: policies, by values worked out by hand."""
