"""What the tests of packages share: each distribution is built once."""

from tests.built import distributions, elsewhere, wheel

__all__ = ["distributions", "elsewhere", "wheel"]
