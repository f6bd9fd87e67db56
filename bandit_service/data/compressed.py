"""Opens files, packed or not, as UTF-8 text."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bandit_service.parsing.extras import install
from bandit_service.parsing.inputs import Unusable, decoded

PACKED = (".gz", ".zst", ".bz2", ".xz")
"""How names of packed files may end."""

BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError)
"""What reading a damaged file may raise, besides `Unusable`."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_FOREIGN = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV"),
    (b"PAR1", "a Parquet file: let its name end in .parquet"),
    (b"SQLite format 3", "an SQLite database, not a table of text"),
)


@contextmanager
def opened(path: Path) -> Iterator[tuple[io.BufferedReader, Callable[[], int]]]:
    """The file's text as UTF-8 without a byte-order mark, and how many stored bytes were read.

    Packed files (gzip, zstd, bzip2, xz) are recognised by their first bytes, or by their names.
    Raises `Unusable` and `BROKEN`.
    """
    with ExitStack() as open_until_then:
        raw = open_until_then.enter_context(path.open("rb"))
        file = _unpacked(path, raw, open_until_then)
        begin = file.peek(16)
        for magic, what in _FOREIGN:
            if begin.startswith(magic):
                raise Unusable(f"is {what}")
        yield decoded(file), raw.tell


def _unpacked(path: Path, raw: io.BufferedReader, until: ExitStack) -> io.BufferedReader:
    begin, name = raw.peek(6), path.name.lower()
    if begin.startswith(b"\x1f\x8b") or name.endswith(".gz"):
        packed: Any = gzip.GzipFile(fileobj=raw)
    elif begin.startswith(b"BZh") or name.endswith(".bz2"):
        packed = bz2.BZ2File(raw)
    elif begin.startswith(b"\xfd7zXZ\0") or name.endswith(".xz"):
        packed = lzma.LZMAFile(raw)  # noqa: SIM115 - the stack closes it
    elif begin.startswith(_ZSTD) or name.endswith((".zst", ".zstd")):
        packed = _zstd(raw)
    else:
        return raw
    return until.enter_context(io.BufferedReader(packed))


def _zstd(raw: io.BufferedReader) -> Any:
    if importlib.util.find_spec("pyarrow") is None:
        raise Unusable(
            f"is packed with zstd, which needs pyarrow: {install('evaluate', 'pyarrow')}, or "
            "unpack it with `zstd -d`"
        )
    import pyarrow as pa

    return pa.CompressedInputStream(raw, "zstd")


def unpacked_name(name: str) -> str:
    """The name without the ending of a packed file."""
    end = next((end for end in (*PACKED, ".zstd") if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)] if end else name
