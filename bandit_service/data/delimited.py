"""Tables of text: the delimiter of the cells, the header, and the rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import IO

_DELIMITERS = ",;\t|"
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_FIELD_LIMIT = 1 << 28  # characters of one cell; an answer may be long


@dataclass(frozen=True, slots=True)
class Delimited:
    """rows: the line on which each begins, from 1, and its cells; blank lines are no rows."""

    header: list[str]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]]

    @property
    def parted(self) -> str:
        """The delimiter, in words."""
        return f"parted by {_NAMES.get(self.delimiter, self.delimiter)}"


@contextmanager
def delimited(file: IO[bytes], needed: Sequence[str] = ()) -> Iterator[Delimited]:
    """The table in a file of UTF-8, whose header comes after blank lines and Excel's `sep=`.

    The delimiter is the first of comma, semicolon, tab and bar by which all columns of `needed` are
    present, in any case; otherwise the one that gives the most columns.
    """
    limit = csv.field_size_limit(_FIELD_LIMIT)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    try:
        before, first, given = 0, "", ""
        for line in text:
            word = line.strip().strip('"').lower()
            if word.startswith("sep=") and len(word) <= 5:
                given = word[4:] or "\t"  # the tab was stripped
            elif word.strip(_DELIMITERS):
                first = line
                break
            before += 1
        delimiter = given or _delimiter(first, needed)
        reader = csv.reader(chain([first], text), delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        yield Delimited(header, delimiter, _rows(reader, before))
    finally:
        csv.field_size_limit(limit)
        text.detach()  # or it would close the file when it is collected


def canonical(header: Sequence[str], known: Sequence[str]) -> list[str]:
    """The header with the known names in place of the same in another case.

    >>> canonical(["Query", "MODEL", "x"], ["query", "model"])
    ['query', 'model', 'x']
    """
    by_small = {name.lower(): name for name in known if name not in header}
    return [by_small.get(name.strip().lower(), name) for name in header]


def _delimiter(line: str, needed: Sequence[str]) -> str:
    headers = {each: next(csv.reader([line], delimiter=each), []) for each in _DELIMITERS}
    for each, header in headers.items():
        if needed and set(needed) <= set(canonical([name.strip() for name in header], needed)):
            return each
    return max(headers, key=lambda each: len(headers[each]))


def _rows(reader: Iterator[list[str]], before: int) -> Iterator[tuple[int, list[str]]]:
    line = reader.line_num  # type: ignore[attr-defined]
    for cells in reader:
        if cells:
            yield before + line + 1, cells
        line = reader.line_num  # type: ignore[attr-defined]
