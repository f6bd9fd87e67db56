"""A model that is loaded beside what else a start does: mostly outside of the interpreter."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bandit_service.embedding.backends import Backend, open_backend

MODELS = "models"
"""Where below its data a service keeps the files of models."""


def opening(backend: str, model: str, cache_dir: Path, threads: int) -> Future[Backend] | None:
    """The model, being loaded on a thread; None where its files may still have to be made: a start
    that is refused waits for no export.
    """
    if not (cache_dir.is_dir() and any(cache_dir.iterdir())):
        return None
    executor = ThreadPoolExecutor(1, "model")
    loaded = executor.submit(open_backend, backend, model, cache_dir, threads)
    executor.shutdown(wait=False)
    return loaded
