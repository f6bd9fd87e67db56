"""Snapshots as files, each complete or absent. See docs/adr/0008-snapshots-are-files.

A file is: magic, a digest of all that follows, format, offset, length of the key, length of the
state, key, state. Its name repeats the key, as far as a name can, and the offset.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

from store._disk import PARTIAL, close_to_others, sync_directory, write_whole
from store._protocols import Offset
from store.errors import Full

FORMAT = 1
_MAGIC = b"bandsnap"
_DIGEST = 16
_FIXED = struct.Struct("<IqQQ")
_SHORTEST = len(_MAGIC) + _DIGEST + _FIXED.size
_NAME = re.compile(r"(.+-[0-9a-f]{8})-(\d{20})\.snapshot")
_PIECE = 1 << 22
_ALL = -1

State: TypeAlias = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a snapshot; `why` it is invalid, or empty. `key`: as far as it can be read."""

    path: Path
    key: str
    offset: Offset
    size_bytes: int
    why: str = ""


class Unsound(Exception):
    """What was read is no valid snapshot."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A snapshot that was read, and may not be hashed yet: only `check` says whether it is valid.

    key: as its file says.
    """

    path: Path
    key: str
    state: State
    _found: Callable[[], Found]

    @property
    def offset(self) -> Offset:
        """That of its name."""
        return _offset(self.path)

    def check(self) -> None:
        """Wait until all of it is hashed. Raises Unsound where it is not valid."""
        found = self._found()
        if found.why:
            raise Unsound(f"{self.path}: {found.why}")


class FileSnapshots:
    """Snapshots in a directory: the newest `keep` of each key. Only one process may write there."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep: must be at least 1, got {keep}")
        self.directory = Path(directory)
        self._keep = keep
        self._skipped: dict[Path, Found] = {}
        try:
            self.directory.mkdir(0o700, parents=True, exist_ok=True)
            for path in self.directory.glob(f"*.snapshot{PARTIAL}"):
                path.unlink()  # of a process that died while writing
            for path in self.directory.glob("*.snapshot"):
                close_to_others(path)  # of a version that made it readable for all
        except OSError as error:
            raise Full(f"{self.directory} cannot be written ({error.strerror})") from None

    @property
    def skipped(self) -> list[Found]:
        """The invalid files that `latest` found and that still exist."""
        return list(self._skipped.values())

    def save(self, at: Offset, key: str, state: bytes) -> None:
        """Write a file and give it its name when it is on the disk; then delete old ones."""
        path = self._path(key, at)
        name = key.encode()
        rest = _FIXED.pack(FORMAT, at, len(name), len(state)) + name
        digest = hashlib.blake2b(rest, digest_size=_DIGEST)
        digest.update(state)
        try:
            write_whole(path, _MAGIC, digest.digest(), rest, state)
        except OSError as error:
            raise Full(f"a snapshot cannot be written ({error.strerror})") from None
        self._skipped.pop(path, None)
        whole = [each for each in self._paths(key) if each not in self._skipped]
        self._delete(whole[self._keep :])

    def made_at(self, key: str, at: Offset) -> float | None:
        """When the snapshot of `key` at this offset was written, UTC seconds; None without one."""
        with contextlib.suppress(OSError):
            return self._path(key, at).stat().st_mtime
        return None

    def latest(self, key: str) -> tuple[Offset, State] | None:
        """The newest valid one of `key`; invalid ones that it skipped are in `skipped`."""
        for path in self._paths(key):
            found, state = _read(path)
            if found.why:
                self._skipped[path] = found
            elif found.key == key:
                return found.offset, state
        return None

    def oldest(self, key: str) -> tuple[Offset, State] | None:
        """The oldest valid one of `key`."""
        for path in reversed(self._paths(key)):
            found, state = _read(path)
            if not found.why and found.key == key:
                return found.offset, state
        return None

    def offsets(self, key: str) -> list[Offset]:
        """The offsets of all under `key`, oldest first, valid or not: no file is read."""
        return sorted(_offset(path) for path in self._paths(key))

    def found(self) -> list[Found]:
        """All files, by key and then newest first, each read and checked."""
        return [_read(path)[0] for path in self._paths()]

    def begun(self) -> Iterator[Begun]:
        """All of every key, newest first; each file is read when it is needed."""
        for path in sorted(self._paths(), key=_offset, reverse=True):
            yield _begun(path)

    def forget(self, before: Offset) -> None:
        """Delete all with an offset less than `before`, also damaged ones."""
        self._delete([path for path in self._paths() if _offset(path) < before])

    def newest(self, after: Offset) -> Offset:
        """The greatest offset of a valid one of any key, if it is greater than `after`; otherwise
        `after`. Only files with greater offsets are read.
        """
        beyond = sorted((p for p in self._paths() if _offset(p) > after), key=_offset, reverse=True)
        return next((_offset(path) for path in beyond if not _read(path)[0].why), after)

    def set_aside(self, after: Offset, ending: str) -> list[Path]:
        """Rename all with an offset greater than `after`, so that they are not found."""
        paths = [path for path in self._paths() if _offset(path) > after]
        try:
            for path in paths:
                path.rename(path.with_name(path.name + ending))
            sync_directory(self.directory)
        except OSError as error:
            raise Full(f"a snapshot cannot be set aside ({error.strerror})") from None
        return paths

    def _path(self, key: str, at: Offset) -> Path:
        return self.directory / f"{_stem(key)}-{at:020d}.snapshot"

    def _paths(self, key: str | None = None) -> list[Path]:
        """The files of one key, or of all, newest first."""
        paths = []
        for path in self.directory.glob("*.snapshot"):
            named = _NAME.fullmatch(path.name)
            if named is not None and (key is None or named[1] == _stem(key)):
                paths.append(path)
        return sorted(
            paths, key=lambda path: (path.name[: -len("-.snapshot") - 20], -_offset(path))
        )

    def _delete(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
                self._skipped.pop(path, None)
            if paths:
                sync_directory(self.directory)
        except OSError as error:
            raise Full(f"an old snapshot cannot be deleted ({error.strerror})") from None


def _stem(key: str) -> str:
    """A key in a file's name: its readable part, and a hash that distinguishes keys."""
    readable = re.sub(r"[^A-Za-z0-9_.]", "_", key)[:40] or "_"
    return f"{readable}-{hashlib.blake2b(key.encode(), digest_size=4).hexdigest()}"


def _offset(path: Path) -> Offset:
    return Offset(int(path.name[-len(".snapshot") - 20 : -len(".snapshot")]))


def _read(path: Path) -> tuple[Found, State]:
    """The record of a file, and its state, which is read once and not copied."""
    begun = _begun(path)
    return begun._found(), begun.state


def _begun(path: Path) -> Begun:
    at = len(_MAGIC) + _DIGEST
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_SHORTEST)
            keyed = _FIXED.unpack_from(head, at)[2] if size >= _SHORTEST else 0
            name = file.read(min(keyed, size))
            digest = hashlib.blake2b(head[at:] + name, digest_size=_DIGEST)
            state, hashed = _hashed(file, max(0, size - len(head) - len(name)), digest)
    except OSError as error:
        unreadable = Found(path, "", _offset(path), 0, f"it cannot be read ({error.strerror})")
        return Begun(path, "", b"", lambda: unreadable)

    def found() -> Found:
        hashed()
        why = _wrong(path, size, head, digest.digest())
        return Found(path, "" if why else name.decode(), _offset(path), size, why)

    return Begun(path, name.decode(errors="replace"), state, found)


def _hashed(
    file: BufferedReader, size: int, digest: hashlib.blake2b
) -> tuple[State, Callable[[], None]]:
    """Read this many bytes, fewer at the end of the file, and what waits until they are hashed. A
    large state is hashed on another thread while it is read and used, which takes less time.
    """
    if size <= _PIECE:
        state = file.read(size)
        digest.update(state)
        return state, lambda: None
    made, ends = bytearray(size), SimpleQueue[int]()
    pieces = memoryview(made)
    done = 0
    executor = ThreadPoolExecutor(1, "hash")
    hashing = executor.submit(_hash, digest, pieces, ends)
    executor.shutdown(wait=False)
    try:
        while done < size and (read := file.readinto(pieces[done : done + _PIECE])):
            done += read
            ends.put(done)
    finally:
        ends.put(_ALL)
    return made if done == size else bytes(pieces[:done]), hashing.result


def _hash(digest: hashlib.blake2b, pieces: memoryview, ends: SimpleQueue[int]) -> None:
    """Hash up to each of these ends, the last of which is followed by _ALL. What came meanwhile is
    hashed in one call, which needs no interpreter, while another thread may keep that for long.
    """
    begin, end = 0, 0
    while end != _ALL:
        end = ends.get()
        upto = max(begin, end)
        while end != _ALL and not ends.empty():
            end = ends.get()
            upto = max(upto, end)
        digest.update(pieces[begin:upto])
        begin = upto


def _wrong(path: Path, size: int, head: bytes, found: bytes) -> str:
    """Why a file with this computed digest is not a valid snapshot; "" if it is."""
    at = len(_MAGIC) + _DIGEST
    if size < _SHORTEST:
        return f"it has {size} bytes, fewer than any snapshot"
    if not head.startswith(_MAGIC):
        return "it is not a snapshot"
    if found != head[len(_MAGIC) : at]:
        return "its checksum does not match"
    known, offset, keyed, length = _FIXED.unpack_from(head, at)
    if known != FORMAT:
        return f"it has format {known}, this version reads {FORMAT}"
    if size != _SHORTEST + keyed + length:
        return "its lengths are not those of the file"
    if offset != _offset(path):
        return f"its name does not match offset {offset}"
    return ""
