"""What all workers of a run share: the first that needs it makes it, and the others wait."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The directory that `make` filled, in whichever worker that was."""
    own = factory.getbasetemp()
    shared = own.parent if own.name.startswith("popen-") else own  # so xdist names a worker's
    directory = shared / f"once-{name}"
    with (shared / f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            partial = directory.with_suffix(".partial")  # of a worker that failed or was killed
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(directory)
    return directory
