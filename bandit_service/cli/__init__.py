"""The command line: `bandit-service`, one module for each command that is more than a few lines."""

from bandit_service.cli.main import USAGE_ERROR, main

__all__ = ["USAGE_ERROR", "main"]
