"""Replay of recorded traffic, and load, against a running service."""

import sys
from types import TracebackType


def _told(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Tell of what ended the process, unless it was Ctrl-C: the user knows that."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)


# Here and not in each program: its imports take a second or more, during which Ctrl-C comes, too.
if sys.argv[:1] == ["-m"]:  # as long as `python -m loadtest.NAME` looks for the program
    sys.excepthook = _told
