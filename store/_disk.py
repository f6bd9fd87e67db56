"""Making files and their names durable."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def sync_data(descriptor: int) -> None:
    """The content of an open file, and its length."""
    if sys.platform == "darwin":  # has no fdatasync, and its fsync stops short of the disk
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """The names of the files in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
