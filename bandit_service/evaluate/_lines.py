"""Tables read line by line: CSV, JSON lines and Parquet, with a progress bar by bytes or rows."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import msgspec
from tqdm import tqdm

from bandit_service.replay.recorded import BadRecording

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_FIELD_LIMIT = 1 << 28  # characters of one CSV field; an answer may be long
_EVERY = 500


@dataclass(frozen=True, slots=True)
class Unread:
    """A line that is no row, and why."""

    why: str


Lines: TypeAlias = Iterator[tuple[int, Mapping[str, Any] | Unread]]


def lines(path: Path, needed: Sequence[str]) -> Lines:
    """The rows of a table with the numbers of their lines from 1, or of their rows in Parquet.

    A CSV row counts where it begins. BadRecording where the file cannot be read, or, having a
    header, lacks a column of `needed`.
    """
    if not path.name.endswith(SUFFIXES):
        raise BadRecording(f"{path}: must end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise BadRecording(f"{path}: no such file")
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        return _parquet(path, needed)
    return _csv(path, needed) if kind == "csv" else _json(path)


def header_of(path: Path) -> list[str]:
    """The first row of a CSV file."""
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        with _opened(path) as (file, _), _decoded(file) as text:
            return next(csv.reader(text), [])
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise BadRecording(f"{path}: cannot be read: {error}") from None
    finally:
        csv.field_size_limit(limit)


def plain(value: Any) -> Any:
    """A number out of a number, a truth or their text; None for none, "" and NaN.

    What is none of these comes back as it is, to be told.

    >>> plain("0.5"), plain(True), plain(""), plain("many")
    (0.5, 1.0, None, 'many')
    """
    if isinstance(value, str):
        word = value.strip().lower()
        try:
            value = {"": math.nan, "true": 1.0, "false": 0.0}[word]
        except KeyError:
            try:
                value = float(word)
            except ValueError:
                return value
    if isinstance(value, bool):
        return float(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def check_columns(path: Path, there: Sequence[str], needed: Sequence[str]) -> None:
    """BadRecording that names a column which is missing, or there twice."""
    for name in needed:
        if name not in there:
            raise BadRecording(f"{path}: no column {name!r}; there are {', '.join(there)}")
        if there.count(name) > 1:
            raise BadRecording(f"{path}: column {name!r} is there twice")


def _csv(path: Path, needed: Sequence[str]) -> Lines:
    limit = csv.field_size_limit(_FIELD_LIMIT)
    line = 0
    try:
        with _opened(path) as (file, tick), _decoded(file) as text:
            reader = csv.reader(text)
            header = next(reader, [])
            check_columns(path, header, needed)
            line = reader.line_num
            for cells in reader:
                if len(cells) == len(header):
                    yield line + 1, dict(zip(header, cells, strict=True))
                elif cells:
                    yield line + 1, Unread(f"must have {len(header)} cells, got {len(cells)}")
                line = reader.line_num
                tick()
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise BadRecording(f"{path}: cannot be read after line {line}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _json(path: Path) -> Lines:
    line = 0
    try:
        with _opened(path) as (file, tick):
            for line, body in enumerate(file, start=1):
                tick()
                if body.strip():
                    yield line, _object(body)
    except (OSError, EOFError, zlib.error) as error:
        raise BadRecording(f"{path}: cannot be read after line {line}: {error}") from None


def _object(body: bytes) -> Mapping[str, Any] | Unread:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unread(f"not JSON: {error}")
    return value if isinstance(value, dict) else Unread(f"must be an object, got {value!r:.40}")


def _parquet(path: Path, needed: Sequence[str]) -> Lines:
    if importlib.util.find_spec("pyarrow") is None:
        raise BadRecording(f"{path}: Parquet needs pyarrow: pip install 'bandit-service[evaluate]'")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file, _bar(file.metadata.num_rows, " rows") as bar:
            check_columns(path, file.schema_arrow.names, needed)
            done = 0
            for batch in file.iter_batches(batch_size=_EVERY):
                yield from enumerate(batch.to_pylist(), start=done + 1)
                done += batch.num_rows
                bar.update(batch.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise BadRecording(f"{path}: cannot be read as Parquet: {error}") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """The bytes of a file, gunzipped if it is gzipped, and what moves the bar."""
    with path.open("rb") as raw, _bar(path.stat().st_size, "B") as bar:
        seen = 0

        def tick() -> None:
            nonlocal seen
            seen += 1
            if seen % _EVERY == 0:
                bar.update(raw.tell() - bar.n)

        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast(IO[bytes], unpacked), tick
        else:
            yield raw, tick


def _bar(total: int, unit: str) -> tqdm[Any]:
    return tqdm(total=total, desc="reading", unit=unit, unit_scale=True, disable=None, leave=False)


@contextmanager
def _decoded(file: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    try:
        yield text
    finally:
        text.detach()  # or it would close the file when it is collected
