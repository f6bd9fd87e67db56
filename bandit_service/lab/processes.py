"""Independent tasks on as many processes as asked, each with one thread for linear algebra.

Inside `keeping(directory)` the result of each task is stored in a file, and a task with a file is
not run again. So hours of runs can be interrupted and continued.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import numpy as np

T = TypeVar("T")

_kept: list[Path] = []


@contextmanager
def keeping(directory: Path) -> Iterator[None]:
    """Store the results of tasks in `directory`, and read known results from there.

    A file is named by the task, its arguments and all that it reads, but not by the code: after a
    change of a policy the directory must be deleted. A result must have the declared return type of
    its task: a dataclass of numbers, texts and arrays, or a text.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _kept.append(directory)
    try:
        yield
    finally:
        _kept.pop()


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
    if not _kept:
        yield from (done for _, done in _run(begin, shared, task, tasks, jobs))
        return
    kind = get_type_hints(task)["return"]
    about = _digest(task.__qualname__, shared)
    files = {at: _kept[-1] / f"{_digest(about, each)}.msgpack" for at, each in enumerate(tasks)}
    rest = []
    for at, file in files.items():
        if file.exists():
            yield msgspec.msgpack.decode(file.read_bytes(), type=kind, dec_hook=_array)
        else:
            rest.append(at)
    for at, done in _run(begin, shared, task, [tasks[place] for place in rest], jobs):
        file = files[rest[at]]
        partial = file.with_suffix(".partial")
        partial.write_bytes(msgspec.msgpack.encode(done, enc_hook=_plain))
        partial.replace(file)
        yield done


def _run(
    begin: Callable[..., None],
    shared: tuple[Any, ...],
    task: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    jobs: int,
) -> Iterator[tuple[int, T]]:
    """The place of each task in `tasks` and its result."""
    if not tasks:
        return
    if jobs == 1:
        _begin(begin, shared)
        for at, each in enumerate(tasks):
            yield at, task(*each)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (begin, shared)) as pool:
        places = {pool.submit(task, *each): at for at, each in enumerate(tasks)}
        for done in as_completed(places):
            yield places[done], done.result()


def _begin(begin: Callable[..., None], shared: tuple[Any, ...]) -> None:
    import threadpoolctl  # of the extra, which importing this does not need

    threadpoolctl.threadpool_limits(1)
    begin(*shared)


def _digest(about: str, values: tuple[Any, ...]) -> str:
    told = about.encode() + msgspec.msgpack.encode(values, enc_hook=_plain)
    return hashlib.sha256(told).hexdigest()


def _plain(value: Any) -> Any:
    """Arrays with their type and shape; numbers of numpy; what has only attributes, as these."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    return (type(value).__qualname__, vars(value))


def _array(_kind: Any, told: Any) -> Any:
    dtype, shape, data = told
    return np.frombuffer(data, dtype).reshape(shape)
