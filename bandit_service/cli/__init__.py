"""The command line `bandit-service`: a file of `commands` is a command."""

from bandit_service.cli.main import main
from bandit_service.cli.options import USAGE_ERROR

__all__ = ["USAGE_ERROR", "main"]
