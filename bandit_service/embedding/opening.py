"""A model that is loaded beside what else a start does: mostly outside of the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bandit_service.embedding.backends import Backend

MODELS = "models"
"""Where below its data a service keeps the files of models."""


def opening(load: Callable[[], Backend], cache_dir: Path) -> Future[Backend] | None:
    """A model, being loaded on a thread; None where its files may still have to be made: a start
    that is refused waits for no export.
    """
    if not (cache_dir.is_dir() and any(cache_dir.iterdir())):
        return None
    executor = ThreadPoolExecutor(1, "model")
    loaded = executor.submit(load)
    executor.shutdown(wait=False)
    return loaded
