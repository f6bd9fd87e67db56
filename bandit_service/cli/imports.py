"""Modules that are imported when they are needed, and stay as long as the process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept(*, unless: bool) -> Iterator[None]:
    """While modules are imported the garbage collector rests, and it never looks at what they made.
    That is a tenth of the time of a start.

    unless: there would be more than modules, as where this was done before.
    """
    collects = gc.isenabled() and not unless
    if collects:
        gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.freeze()
            gc.enable()
