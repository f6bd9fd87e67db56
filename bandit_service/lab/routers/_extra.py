"""Imports scikit-learn, an extra, with a clear error if it is missing."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bandit_service.parsing.extras import install


class MissingExtra(RuntimeError):
    """A router needs a package that is not installed."""


def sklearn(module: str) -> Any:
    """The module `sklearn.<module>`; MissingExtra says how to get it."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"scikit-learn is not installed; {install('evaluate', 'scikit-learn')}"
        ) from error


@contextmanager
def unconverged() -> Iterator[None]:
    """Ignore warnings about fits that stop at their last iteration, as in the papers."""
    warned = sklearn("exceptions").ConvergenceWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", warned)
        yield
