"""Independent tasks on as many processes as asked, each with one thread for linear algebra."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")


def in_processes(
    begin: Callable[..., None],
    shared: tuple[Any, ...],
    task: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    jobs: int,
) -> Iterator[T]:
    """task(*each) of every one of `tasks`, as they end; `begin(*shared)` once per process.

    One job runs here, in order. More are spawned, not forked, so that nothing of this process
    (threads, open models) is in them.
    """
    if jobs == 1:
        _begin(begin, shared)
        for each in tasks:
            yield task(*each)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (begin, shared)) as pool:
        for done in as_completed([pool.submit(task, *each) for each in tasks]):
            yield done.result()


def _begin(begin: Callable[..., None], shared: tuple[Any, ...]) -> None:
    import threadpoolctl  # of the extra, which importing this does not need

    threadpoolctl.threadpool_limits(1)
    begin(*shared)
