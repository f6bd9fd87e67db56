"""A process of its own for what brings much into memory, which a test worker would keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Run(Protocol):
    """Calls a function of a module there, and gives what it returns or raises what it raises."""

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...


@contextmanager
def apart() -> Iterator[Run]:
    """The process, until the end of the block. torch alone takes some 300 MB, for good."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:

        def run(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
            return pool.submit(function, *args, **kwargs).result()

        yield run
