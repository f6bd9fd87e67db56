"""In which cell each remembered query is, as a file: so that a start need not compute the cells.

It is a cache. It holds the ids of queries and numbers of cells, and nothing of the queries
themselves: what is erased stays in no centre of a cell. A file is: magic, a digest of all that
follows, the three numbers, how many queries there are, their ids, their cells.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from store._disk import write_whole
from store.errors import Full

_MAGIC = b"bandcel1"
_DIGEST = 16
_FIXED = struct.Struct("<QQQQ")
_HEAD = len(_MAGIC) + _DIGEST + _FIXED.size


class Placed(NamedTuple):
    """The cell of each query. cells: how many there are. built_of: of how many queries they were
    computed; since: how many came after. ids: ascending; where: the cell of each.
    """

    cells: int
    built_of: int
    since: int
    ids: NDArray[np.int64]
    where: NDArray[np.int32]

    def save(self, path: Path) -> None:
        """Write the file as a whole or not at all. Raises Full."""
        ids, where = self.ids.astype("<i8").tobytes(), self.where.astype("<i4").tobytes()
        rest = _FIXED.pack(*self[:3], len(self.ids)) + ids + where
        digest = hashlib.blake2b(rest, digest_size=_DIGEST).digest()
        try:
            write_whole(path, _MAGIC, digest, rest)
        except OSError as error:
            raise Full(f"{path} cannot be written ({error.strerror})") from None


def read(path: Path) -> Placed | None:
    """What `save` wrote; None if there is no such file, or if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    rest = memoryview(data)[len(_MAGIC) + _DIGEST :]
    digest = hashlib.blake2b(rest, digest_size=_DIGEST).digest()
    if data[: _HEAD - _FIXED.size] != _MAGIC + digest:
        return None
    cells, built_of, since, n = _FIXED.unpack_from(rest)
    ids = np.frombuffer(data, "<i8", n, _HEAD).astype(np.int64)
    where = np.frombuffer(data, "<i4", n, _HEAD + 8 * n).astype(np.int32)
    return Placed(cells, built_of, since, ids, where)
