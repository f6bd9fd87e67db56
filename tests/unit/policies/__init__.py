"""The policies, by values worked out by hand."""
