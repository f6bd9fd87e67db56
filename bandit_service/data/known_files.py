"""The recordings of docs/results.md by their hashes, and whether a copy is one of them."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("known_files.toml")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as it was read for the results. bytes, queries: 0 where they are not stated."""

    name: str
    sha256: str
    bytes: int = 0
    queries: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """A copy. known: the file of its name, or another of its hash; None if there is neither."""

    sha256: str
    bytes: int
    known: KnownFile | None

    @property
    def same(self) -> bool:
        """Whether it is that file, to the byte."""
        return self.known is not None and self.known.sha256 == self.sha256


@cache
def known_files() -> tuple[KnownFile, ...]:
    """All of them, in the order of the page."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return tuple(KnownFile(name, **fields) for name, fields in table.items())


def checked(path: Path) -> Checked:
    """The hash of a file, beside the one that is known. OSError where it cannot be read."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
            size += len(block)
    sha256 = found.hexdigest()
    by_hash = next((each for each in known_files() if each.sha256 == sha256), None)
    by_name = next((each for each in known_files() if Path(each.name).name == path.name), None)
    return Checked(sha256, size, by_hash or by_name)
