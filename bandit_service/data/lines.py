"""Tables read line by line: CSV, JSON lines and Parquet, with a progress bar by bytes or rows."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from bandit_service.data.compressed import BROKEN, PACKED, opened, unpacked_name
from bandit_service.data.delimited import canonical, delimited
from bandit_service.data.rows import BadRecording
from bandit_service.parsing.extras import install
from bandit_service.parsing.inputs import Unusable, json_of, not_utf8, with_point
from bandit_service.parsing.suggestions import did_you_mean

_CSV, _JSON, _PARQUET = (
    (".csv", ".tsv", ".txt"),
    (".jsonl", ".ndjson", ".json"),
    (".parquet", ".pq"),
)
SUFFIXES = (*_CSV, *_JSON, *_PARQUET)
_SHEETS = (".xlsx", ".xls", ".ods")
_EVERY = 500


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that cannot be read as a row, and why."""

    why: str


Lines: TypeAlias = Iterator[tuple[int, Mapping[str, Any] | Unread]]
_Numbers: TypeAlias = Callable[[str], bool]


def lines(
    path: Path,
    needed: Sequence[str],
    known: Sequence[str] = (),
    numbers: _Numbers = lambda _: False,
    wholes: Sequence[str] = (),
) -> Lines:
    """The rows of a table with the numbers of their lines from 1, or of their rows in Parquet.

    CSV with any of the usual delimiters, JSON as lines or as one list, Parquet; the first two also
    packed. A CSV row counts where it begins. Columns that are needed or known are found in any
    case. numbers: which columns may have decimal commas. wholes: names by which an object of JSON
    is known that may be the whole file. BadRecording where the file cannot be read, or, having a
    header, lacks a column of `needed`.
    """
    name = unpacked_name(path.name).lower()
    if not name.endswith(SUFFIXES):
        why = "; save the sheet as CSV" if name.endswith(_SHEETS) else ""
        raise BadRecording(
            f"{path}: must end in {', '.join(SUFFIXES)}, and may then be packed "
            f"({', '.join(PACKED)}){why}"
        )
    if not path.is_file():
        raise BadRecording(f"{path}: no such file")
    if name.endswith(_PARQUET):
        return _parquet(path, needed, known)
    if name.endswith(_CSV):
        return _csv(path, needed, known, numbers)
    return _json(path, (*needed, *known), wholes)


def header_of(path: Path, needed: Sequence[str] = ()) -> list[str]:
    """The names of a CSV file's columns."""
    header: list[str] = []
    with _told(path, [0]), opened(path) as (file, _), delimited(file, needed) as found:
        header = canonical(found.header, needed)
    return header


def check_columns(
    path: Path, there: Sequence[str], needed: Sequence[str], parted: str = ""
) -> None:
    """Raise BadRecording for a missing or duplicate column."""
    if needed and not any(there):
        raise BadRecording(f"{path}: is empty; it needs the columns {', '.join(needed)}")
    for name in needed:
        if name not in there:
            raise BadRecording(
                f"{path}: no column {name!r}{did_you_mean(name, there)}; it has "
                f"{', '.join(there)}{parted}"
            )
        if there.count(name) > 1:
            raise BadRecording(f"{path}: duplicate column {name!r}")


def _csv(path: Path, needed: Sequence[str], known: Sequence[str], numbers: _Numbers) -> Lines:
    at = [0]
    with _told(path, at), _ticking(path) as (file, tick), delimited(file, needed) as found:
        header = canonical(found.header, (*needed, *known))
        check_columns(path, header, needed, f" ({found.parted})")
        wide = len(header)
        commas = [] if found.delimiter == "," else [i for i in range(wide) if numbers(header[i])]
        for at[0], cells in found.rows:
            tick()
            if len(cells) > wide and not any(cells[wide:]):
                cells = cells[:wide]  # delimiters at the end, as of empty columns
            if len(cells) != wide:
                yield at[0], Unread(f"must have {wide} cells, got {len(cells)}")
                continue
            for i in commas:
                cells[i] = with_point(cells[i], found.delimiter)
            yield at[0], dict(zip(header, cells, strict=True))


def _json(path: Path, names: Sequence[str], wholes: Sequence[str]) -> Lines:
    at = [0]
    with _told(path, at), _ticking(path) as (file, tick):
        bodies: Iterable[bytes] = file
        if file.peek(_EVERY).lstrip()[:1] == b"[" or unpacked_name(path.name).endswith(".json"):
            whole = file.read()
            found = _list_in(path, whole, wholes)
            if found is not None:
                yield from ((i, _object(value, names)) for i, value in enumerate(found, 1))
                return
            bodies = io.BytesIO(whole)
        for at[0], body in enumerate(bodies, start=1):
            tick()
            if body.strip():
                try:
                    value = json_of(body)
                except ValueError as error:
                    yield at[0], Unread(f"not JSON: {error}")
                else:
                    yield at[0], _object(value, names)


def _list_in(path: Path, whole: bytes, wholes: Sequence[str]) -> list[Any] | None:
    """The list in the whole file, or its only object; None if the file has lines."""
    try:
        value = json_of(whole)
    except ValueError:
        return None
    if isinstance(value, list):
        return value if any(isinstance(each, dict) for each in value) else None
    if isinstance(value, dict) and any(name in value for name in wholes):
        return [value]
    if isinstance(value, dict) and all(isinstance(each, dict | list) for each in value.values()):
        raise BadRecording(
            f"{path}: must be a list of objects, or an object a line; it is one object of columns "
            "(pandas: to_json(path, orient='records', lines=True))"
        )
    return None


def _object(value: Any, names: Sequence[str]) -> Mapping[str, Any] | Unread:
    if not isinstance(value, dict):
        return Unread(f"must be an object, got {value!r:.40}")
    if all(name in value for name in names):
        return value
    return dict(zip(canonical(list(value), names), value.values(), strict=True))


def _parquet(path: Path, needed: Sequence[str], known: Sequence[str]) -> Lines:
    if importlib.util.find_spec("pyarrow") is None:
        raise BadRecording(f"{path}: Parquet needs pyarrow: {install('evaluate', 'pyarrow')}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file, _bar(file.metadata.num_rows, " rows") as bar:
            names = canonical(file.schema_arrow.names, (*needed, *known))
            check_columns(path, names, needed)
            done = 0
            for batch in file.iter_batches(batch_size=_EVERY):
                rows = batch.rename_columns(names).to_pylist()
                yield from enumerate(rows, start=done + 1)
                done += batch.num_rows
                bar.update(batch.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise BadRecording(f"{path}: cannot be read as Parquet: {error}") from None


@contextmanager
def _told(path: Path, line: list[int]) -> Iterator[None]:
    """Errors of reading become BadRecording with the last line that was read."""
    try:
        yield
    except Unusable as error:
        raise BadRecording(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise BadRecording(f"{path}: after line {line[0]}: {not_utf8(error)}") from None
    except (*BROKEN, csv.Error) as error:
        raise BadRecording(f"{path}: cannot be read after line {line[0]}: {error}") from None


@contextmanager
def _ticking(path: Path) -> Iterator[tuple[io.BufferedReader, Callable[[], None]]]:
    """The bytes of a file as UTF-8, and what moves the bar."""
    with opened(path) as (file, tell), _bar(path.stat().st_size, "B") as bar:
        seen = 0

        def tick() -> None:
            nonlocal seen
            seen += 1
            if seen % _EVERY == 0:
                bar.update(tell() - bar.n)

        yield file, tick


def _bar(total: int, unit: str) -> tqdm[Any]:
    return tqdm(total=total, desc="reading", unit=unit, unit_scale=True, disable=None, leave=False)
