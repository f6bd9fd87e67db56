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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
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

State: TypeAlias = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a snapshot; `why` it is invalid, or empty. `key`: as far as it can be read."""

    path: Path
    key: str
    offset: Offset
    size_bytes: int
    why: str = ""


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

    def valid(self) -> Iterator[tuple[str, Offset, State]]:
        """All valid ones, of every key, newest first; each file is read when it is needed."""
        for path in sorted(self._paths(), key=_offset, reverse=True):
            found, state = _read(path)
            if not found.why:
                yield found.key, found.offset, state

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
    at = len(_MAGIC) + _DIGEST
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_SHORTEST)
            keyed = _FIXED.unpack_from(head, at)[2] if size >= _SHORTEST else 0
            name = file.read(min(keyed, size))
            digest = hashlib.blake2b(head[at:] + name, digest_size=_DIGEST)
            state = _hashed(file, max(0, size - len(head) - len(name)), digest)
    except OSError as error:
        return Found(path, "", _offset(path), 0, f"it cannot be read ({error.strerror})"), b""
    why = _wrong(path, size, head, digest.digest())
    return Found(path, "" if why else name.decode(), _offset(path), size, why), state


def _hashed(file: BufferedReader, size: int, digest: hashlib.blake2b) -> State:
    """Read this many bytes, fewer at the end of the file. A large state is hashed on another thread
    while the rest is read, since the two take about equally long.
    """
    if size <= _PIECE:
        state = file.read(size)
        digest.update(state)
        return state
    made = bytearray(size)
    pieces = memoryview(made)
    done = 0
    with ThreadPoolExecutor(1) as hashing:
        while done < size:
            piece = pieces[done : done + _PIECE]
            read = len(piece) and file.readinto(piece)
            if not read:
                break
            hashing.submit(digest.update, piece[:read])
            done += read
    return made if done == size else bytes(pieces[:done])


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
