"""A child process that applies the log while the service continues to decide.

`python -m bandit_service.runtime.folding` is started by the service, which alone may read the log,
and is fed events through a pipe. It continues from the newest snapshot, or trains another policy on
the past, and writes the next snapshot. The service only has to send it events in small chunks.

Frames on both pipes are four bytes of length, big-endian, and MessagePack:

    service: Task            child: Begin, from where on it wants events
    service: list[bytes]…    bodies in order; an empty list ends them
                             child: Folded

A message of `PIECE` bytes or more is cut into frames of that length and a shorter one, which may be
empty. So the service's loop never takes a whole policy at once; a thread puts it together.

A child that makes no progress within a limit is killed, since its caller holds the lock that
erasures wait for. The failure reports what the child wrote to stderr.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

import policies
from bandit_service.core import codec, snapshot
from bandit_service.core import events as ev
from bandit_service.core.apply import apply, skip, uncollected
from bandit_service.core.learner import Learner
from bandit_service.core.world import World, new_world
from store import EventLog, Offset, StoreError
from store.snapshots import FileSnapshots

_CHUNK = 64
_LENGTH = struct.Struct(">I")
PIECE = 1 << 18
_WORDS = 4096
_ENDS_S = 10.0
_PREFIX = "bandit-service folding: "
_EARLY = "the folding process ended early"
STALLED_S = 60.0
F = TypeVar("F")
Progress = Callable[[int, int], None]


class Task(msgspec.Struct, frozen=True):
    """The task: the policy, where to begin, and where the snapshots are.

    begin: "newest" continues from the newest snapshot under `key`, and so does "taught", which also
    returns the policy's state; "fresh" starts the policy empty,
    at the first event or, if the log begins later, at the oldest snapshot under `base_key`. The
    rest of the world is then taken from the newest one under `base_key`, which must be of the last
    event: if records were deleted or erased, only that snapshot still knows all of it. save:
    whether a snapshot is written; without one only the policy's state is returned. route: with
    "fresh", the label of the route whose outcomes alone are learned, "" for the default one.
    """

    policy: str
    parameters: dict[str, Any]
    key: str
    capacity: int
    per_item: int
    directory: str
    keep: int
    begin: str = "newest"
    base_key: str = ""
    first: int = 1
    save: bool = True
    route: str = ""


class Begin(msgspec.Struct, frozen=True):
    """Events after this offset are wanted."""

    after: int


class Folded(msgspec.Struct, frozen=True):
    """The snapshot is on the disk: its offset, its size, and how long it took after the last event.

    learner: the policy's state, if it is trained to serve later; not copied, since it is large.
    """

    at: int
    size: int
    seconds: float
    learner: memoryview = memoryview(b"")


class FoldFailed(Exception):
    """The child did not complete."""


class Stalled(FoldFailed):
    """The child made no progress for too long, and was killed."""


# --- the service's side -------------------------------------------------------------------


async def fold_elsewhere(
    task: Task,
    log: EventLog,
    upto: Offset,
    progress: Progress | None = None,
    within_s: float = STALLED_S,
) -> Folded:
    """Feed the events up to `upto` to a child; returns its result. Raises FoldFailed if it died."""
    return await elsewhere(
        "bandit_service.runtime.folding", task, log, upto, Folded, progress, within_s
    )


async def elsewhere(
    module: str,
    task: object,
    log: EventLog,
    upto: Offset,
    kind: type[F],
    progress: Progress | None = None,
    within_s: float = STALLED_S,
) -> F:
    """The same for any module that answers Begin, reads events and ends with a `kind`.

    within_s: the time for each step: to begin, to take some hundred events, to end.
    """
    child = await _started(module)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    words = asyncio.create_task(_last_words(child.stderr))
    try:
        child.stdin.write(framed(task))
        begin = await _step(answer_of(child.stdout, Begin), within_s)
        for done, frame in handed(log, Offset(begin.after), upto):
            child.stdin.write(frame)
            await _step(child.stdin.drain(), within_s)
            if progress is not None:
                progress(done, int(upto))
        child.stdin.write(framed([]))
        await _step(child.stdin.drain(), within_s)
        made = await _step(answer_of(child.stdout, kind), within_s)
        await _step(child.wait(), within_s)
        return made
    except Stalled:
        raise
    except (ConnectionError, FoldFailed) as error:
        said = await _said(child, words)
        what = str(error) if isinstance(error, FoldFailed) else _EARLY
        raise FoldFailed(f"{what}: {said}" if said else what) from None
    finally:
        await _ended(child, words)


def handed(log: EventLog, after: Offset, upto: Offset) -> Iterator[tuple[int, bytes]]:
    """The frames that a child is fed with, some events each, and the last offset of each."""
    replayed = ((int(at), body) for at, body in log.replay(after) if at <= upto)
    done = int(after)
    while done < upto:
        chunk = list(islice(replayed, _CHUNK))
        done = chunk[-1][0]
        yield done, framed(chunk)


async def _started(module: str) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *policies.directories(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except (OSError, RuntimeError, MemoryError) as error:  # no descriptor, memory, process, thread
        why = error.strerror if isinstance(error, OSError) else None
        raise FoldFailed(
            f"no process could be started to fold ({why or type(error).__name__})"
        ) from None


async def _step(work: Awaitable[F], within_s: float) -> F:
    try:
        async with asyncio.timeout(within_s):
            return await work
    except TimeoutError:
        why = f"the folding process took no step for {within_s:g} s and was ended"
        raise Stalled(why) from None


async def _last_words(stderr: asyncio.StreamReader) -> bytes:
    """Read all that a child writes, so that it never waits for us; the end of it is kept."""
    kept = b""
    while said := await stderr.read(4096):
        kept = (kept + said)[-_WORDS:]
    return kept


async def _said(child: asyncio.subprocess.Process, words: asyncio.Task[bytes]) -> str:
    """Why the child ended, in its own words: the last line, or only the kind of a traceback."""
    if child.returncode is None:
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), _ENDS_S)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(words), _ENDS_S)
    text = words.result().decode(errors="replace") if words.done() else ""
    lines = text.strip().splitlines()
    if not lines:
        number = child.returncode
        return f"signal {-number}" if number is not None and number < 0 else ""
    if "Traceback (most recent call last):" in text:
        return lines[-1].partition(":")[0]  # the message may contain private data
    return lines[-1].removeprefix(_PREFIX)


async def _ended(child: asyncio.subprocess.Process, words: asyncio.Task[bytes]) -> None:
    """Kill it if it still runs; a process that cannot be killed is left behind."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), _ENDS_S)
    words.cancel()
    with suppress(asyncio.CancelledError):
        await words


async def answer_of(pipe: asyncio.StreamReader, kind: type[F]) -> F:
    """The child's next message. Raises FoldFailed if it is not of this kind."""
    pieces = list[bytes]()
    try:
        while not pieces or len(pieces[-1]) == PIECE:
            (length,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
            pieces.append(await pipe.readexactly(length))
        if len(pieces) == 1:
            return msgspec.msgpack.decode(pieces[0], type=kind)
        return await asyncio.to_thread(_decoded, pieces, kind)
    except asyncio.IncompleteReadError:
        raise FoldFailed(_EARLY) from None
    except codec.UNREADABLE:
        raise FoldFailed(f"the folding process did not say {kind.__name__}") from None


def _decoded(pieces: Sequence[bytes], kind: type[F]) -> F:
    return msgspec.msgpack.decode(b"".join(pieces), type=kind)


def framed(message: object) -> bytes:
    """A message as bytes for the pipe."""
    body = msgspec.msgpack.encode(message)
    if len(body) < PIECE:
        return _LENGTH.pack(len(body)) + body
    whole, parts = memoryview(body), list[bytes | memoryview]()
    for at in range(0, len(body) + 1, PIECE):
        piece = whole[at : at + PIECE]
        parts += (_LENGTH.pack(len(piece)), piece)
    return b"".join(parts)


# --- the child's side ---------------------------------------------------------------------


@uncollected()
def fold(source: IO[bytes], sink: IO[bytes]) -> None:
    """Serve one task from `source`, answering to `sink`."""
    task = read_frame(source, Task)
    snapshots = FileSnapshots(Path(task.directory), task.keep)
    policy = policies.load(task.policy, **task.parameters)
    at, world, mark = _beginning(task, policy, snapshots)
    if task.route:
        world.learners[task.policy].own = task.route
    sink.write(framed(Begin(at)))
    sink.flush()
    with world.in_blocks():
        for at, body in events_from(source):
            mark = snapshot.mark_of(body)
            world = apply(world, event_of(at, body)) if body else skip(world)
    begun = time.perf_counter()
    learner = memoryview(b"")
    if task.begin != "newest":
        learner = memoryview(snapshot.dump_learner(world.learners[task.policy]))
    if not task.save:
        sink.write(framed(Folded(at, 0, time.perf_counter() - begun, learner)))
        sink.flush()
        return
    if task.begin == "fresh":
        world = _with_learner(task, policy, world.learners[task.policy], at, snapshots)
    state = snapshot.dump(world, mark)
    snapshots.save(Offset(at), task.key, state)
    sink.write(framed(Folded(at, len(state), time.perf_counter() - begun, learner)))
    sink.flush()


def _beginning(
    task: Task, policy: policies.Policy[Any], snapshots: FileSnapshots
) -> tuple[int, World, bytes]:
    """The offset to begin at, and the world there;

    as at a start, unreadable snapshots are ignored.
    """
    by_name, found, why = {task.policy: policy}, None, ""
    if task.begin != "fresh":
        found = snapshots.latest(task.key)
    elif task.first > 1:
        found = snapshots.oldest(task.base_key)
    if found is not None and found[0] >= task.first - 1:
        try:
            kept = snapshot.read(found[1])
            if task.begin != "fresh":
                world = snapshot.restore(kept, by_name, task.policy)
            else:
                world = snapshot.restore_untaught(kept, policy, task.policy)
            return int(found[0]), world, kept.mark
        except (ValueError, TypeError) as error:
            why = f" (that of event {found[0]} is unusable: {error})"
    if task.first > 1:
        raise SystemExit(f"the log begins at {task.first} and no snapshot reaches it{why}")
    return 0, new_world(by_name, task.policy, task.capacity, task.per_item), b""


def _with_learner(
    task: Task, policy: policies.Policy[Any], learner: Learner, at: int, snapshots: FileSnapshots
) -> World:
    base = snapshots.latest(task.base_key)
    if base is None or base[0] != at:
        raise SystemExit(f"there is no snapshot of event {at} under {task.base_key}")
    world = snapshot.restore(snapshot.read(base[1]), {task.policy: policy}, task.policy)
    world.learners[task.policy] = learner
    return world


def events_from(source: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Offsets and bodies, empty if they were erased, until the service has no more."""
    while True:
        chunk = read_frame(source, list[tuple[int, bytes]])
        if not chunk:
            return
        yield from chunk


def event_of(at: int, body: bytes) -> ev.AnyEvent:
    """The event of a body; the process ends if it is not one."""
    try:
        return ev.decode(body)
    except msgspec.DecodeError:
        raise SystemExit(f"the record at offset {at} is no event") from None


def read_frame(source: IO[bytes], kind: type[F]) -> F:
    """The next message; the process ends if there is none."""
    pieces = list[bytes]()
    while not pieces or len(pieces[-1]) == PIECE:
        head = source.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise SystemExit(1)  # the service is gone, and with it the reason for this process
        pieces.append(source.read(_LENGTH.unpack(head)[0]))
    try:
        return _decoded(pieces, kind)
    except codec.UNREADABLE:
        raise SystemExit("the service sent what cannot be read") from None


def beside_the_service(serve: Callable[[IO[bytes], IO[bytes]], None]) -> None:
    """Serve one task of the service whose child this process is."""
    os.nice(10)  # the service that decides goes first
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(1)  # the service has ended: nobody is left to be told


def read_log(
    source: IO[bytes], sink: IO[bytes], after: int, take: Callable[[ev.AnyEvent | None], object]
) -> None:
    """Ask for the events after an offset, and take each; None is one that was erased."""
    sink.write(framed(Begin(after)))
    sink.flush()
    for at, body in events_from(source):
        take(event_of(at, body) if body else None)


if __name__ == "__main__":
    for directory in sys.argv[1:]:
        policies.add_directory(directory)
    try:
        beside_the_service(fold)
    except (StoreError, MemoryError) as error:
        sys.exit(_PREFIX + (str(error) or type(error).__name__))
