"""A service that is one of several on one log: docs/adr/0017."""
