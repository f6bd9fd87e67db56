"""Recorded traffic: read, run through policies, reported, or served as if by a provider."""
