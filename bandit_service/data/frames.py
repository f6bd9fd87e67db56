"""A pickled DataFrame read without pandas, and without running anything that it names.

A pickle is a program: it calls what it names. Here every name is either one of the few that
a plain table needs, each bound to an inert stand-in of this module, or it is refused. So nothing
of pandas, numpy or pyarrow is called either, and which version of them wrote the file matters
little: BlockManagers of pandas 1.3 to 3, strings as objects or as Arrow buffers.
"""

from __future__ import annotations

import pickle  # noqa: TID251 - read by an unpickler that knows no code
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Frame: TypeAlias = dict[str, Sequence[Any]]
_KINDS = "biufO"


class BadFrame(ValueError):
    """Not a pickled table, or one with more in it than a table has; the message says what."""


def read_frame(path: Path) -> Frame:
    """The columns of the pickled DataFrame in `path` by name, in their order.

    Values are plain Python ones, None or NaN for missing ones. Raises OSError if the file cannot be
    read.
    """
    with path.open("rb") as file:
        try:
            found = _Unpickler(file).load()
            if not isinstance(found, _Frame):
                raise BadFrame(f"must hold a DataFrame, got {type(found).__name__.lstrip('_')}")
            return found.columns()
        except BadFrame:
            raise
        except (
            pickle.UnpicklingError,
            AttributeError,
            EOFError,
            ImportError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            raise BadFrame(f"not a pickled DataFrame: {error}") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        """The stand-in for what the pickle names."""
        try:
            return _ALLOWED[_HOMES.get(module, module), name]
        except KeyError:
            raise BadFrame(f"names {module}.{name}, which a table does not need") from None


class _Sealed:
    """What a pickle can create but not change; its class neither, since it has the same method."""

    def __setstate__(self, _state: Any) -> None:
        raise BadFrame("changes what it named, which a table does not need")


class _Call(_Sealed):
    """A function that a pickle may call."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *args: Any) -> Any:
        return self._run(*args)


class _State:
    """An object of which only the state is kept."""

    state: Any = None

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_State):
    def columns(self) -> Frame:
        manager = (self.state or {}).get("_mgr")
        if not isinstance(manager, _Manager):
            raise BadFrame("the DataFrame has no blocks")
        names = _values(manager.axes[0])
        found: dict[int, Sequence[Any]] = {}
        for values, placement in manager.blocks:
            rows = _rows(values)
            places = range(len(names))[placement] if isinstance(placement, slice) else placement
            for at, column in zip(_values(places), rows, strict=True):
                found[int(at)] = column
        if sorted(found) != list(range(len(names))):
            raise BadFrame("the DataFrame has columns without values")
        if len({len(column) for column in found.values()}) > 1:
            raise BadFrame("the DataFrame has columns of several lengths")
        if len(set(names)) != len(names):
            raise BadFrame("the DataFrame has a column twice")
        return {str(name): found[at] for at, name in enumerate(names)}


class _Manager(_Sealed):
    def __init__(self, blocks: Any, axes: Any) -> None:
        self.blocks: Sequence[tuple[Any, Any]] = blocks
        self.axes: Sequence[Any] = axes


class _DType:
    """What numpy's dtype is in a pickle: a kind with its size, and then the order of bytes."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, str) or kind[:1] not in _KINDS:
            raise BadFrame(f"has values of type {kind!r}, which a table of scores does not need")
        self.kind, self.order = str(kind), "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    @property
    def objects(self) -> bool:
        return self.kind[0] == "O"

    def numbers(self, raw: Any) -> NDArray[Any]:
        return np.frombuffer(bytes(raw), self.order + self.kind)


class _Array:
    """What numpy's ndarray is in a pickle."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if dtype.objects:
            self.values = np.fromiter(raw, object, len(raw)).reshape(shape)
        else:
            self.values = dtype.numbers(raw).reshape(shape, order="F" if fortran else "C")


def _from_buffer(raw: Any, dtype: _DType, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.values = dtype.numbers(raw).reshape(shape, order="F" if order == "F" else "C")
    return array


def _scalar(dtype: _DType, raw: Any) -> Any:
    return raw if dtype.objects else dtype.numbers(_bytes(raw))[0].item()


class _Index(_Sealed):
    def __init__(self, values: Any = ()) -> None:
        self.values = values


class _RangeIndex(_Index):
    pass


def _new_index(kind: type, made_of: Any) -> _Index:
    if kind is _RangeIndex:
        return _Index(range(made_of["start"], made_of["stop"], made_of["step"]))
    return _Index(made_of["data"])


class _Strings(_State):
    """An array of strings: Arrow's buffers, or an ndarray of objects."""

    def values(self) -> list[Any]:
        state = self.state
        if isinstance(state, dict):
            return list(state["_pa_array"])
        return _values(next(part for part in state if isinstance(part, _Array)))


def _backed(kind: Any, _checksum: Any, state: Any) -> Any:
    made = kind()
    if state is not None:
        made.__setstate__(state)
    return made


def _arrow(data: Any) -> list[str | None]:
    """Strings from a validity bitmap, offsets and UTF-8 (Arrow's columnar format, variable-size
    binary layout); the slices are Python's, which do not reach beyond a buffer.
    """
    kind, length, nulls, start, buffers, *_ = data
    if kind not in ("string", "large_string"):
        raise BadFrame(f"has Arrow values of type {kind!r}, of which only strings are read")
    valid, offsets, text = buffers
    width: Any = np.int64 if kind == "large_string" else np.int32
    ends = np.frombuffer(bytes(offsets), width)[start : start + length + 1]
    body = b"" if text is None else bytes(text)
    if length and (len(ends) != length + 1 or ends[0] < 0 or (np.diff(ends) < 0).any()):
        raise BadFrame("has Arrow strings with broken offsets")
    there = np.ones(length, bool)
    if valid is not None and nulls:
        bits = np.unpackbits(np.frombuffer(bytes(valid), np.uint8), bitorder="little")
        there = bits[start : start + length].astype(bool)
    return [body[ends[i] : ends[i + 1]].decode() if there[i] else None for i in range(int(length))]


def _chunked(chunks: Sequence[list[str | None]], *_: Any) -> list[str | None]:
    return [text for chunk in chunks for text in chunk]


def _encode(text: str, encoding: str = "latin1", *_: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise BadFrame(f"encodes in {encoding!r}, which a table does not need")
    return text.encode("latin-1")


def _bytes(raw: Any = b"", *_: Any) -> bytes:
    return raw.encode("latin-1") if isinstance(raw, str) else bytes(memoryview(raw))


def _block(values: Any, placement: Any, *_: Any) -> tuple[Any, Any]:
    return values, placement


def _values(array: Any) -> list[Any]:
    """A flat list of Python values."""
    if isinstance(array, _Strings):
        return array.values()
    if isinstance(array, _Index):
        return _values(array.values)
    if isinstance(array, _Array):
        flat: list[Any] = array.values.ravel().tolist()
        return flat
    return list(array)


def _rows(values: Any) -> list[list[Any]]:
    """One list for each column of a block."""
    if isinstance(values, _Array) and values.values.ndim == 2:
        return [row.tolist() for row in values.values]
    return [_values(values)]


# pandas 3 names its classes by where they are public, numpy moved its core in version 2.
_HOMES = {
    "pandas.core.frame": "pandas",
    "pandas.core.indexes.base": "pandas",
    "pandas.core.indexes.numeric": "pandas",
    "pandas.core.indexes.range": "pandas",
    "pandas.core.arrays.string_": "pandas",
    "pandas.core.arrays.string_arrow": "pandas",
    "pandas.arrays": "pandas",
    "pandas.core.internals.managers": "pandas",
    "pandas._libs.internals": "pandas",
    "numpy.core.multiarray": "numpy",
    "numpy._core.multiarray": "numpy",
    "numpy.core.numeric": "numpy",
    "numpy._core.numeric": "numpy",
    "__builtin__": "builtins",
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("pandas", "DataFrame"): _Frame,
    ("pandas", "BlockManager"): _Manager,
    ("pandas", "_unpickle_block"): _Call(_block),
    ("pandas", "_new_Index"): _Call(_new_index),
    ("pandas", "Index"): _Index,
    ("pandas", "Int64Index"): _Index,
    ("pandas", "UInt64Index"): _Index,
    ("pandas", "Float64Index"): _Index,
    ("pandas", "RangeIndex"): _RangeIndex,
    ("pandas", "ArrowStringArray"): _Strings,
    ("pandas", "StringArray"): _Strings,
    ("pandas", "StringDtype"): _State,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): _Call(_backed),
    ("pandas._libs.missing", "C_NA"): None,
    ("pandas", "NA"): None,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy", "_reconstruct"): _Array,
    ("numpy", "_frombuffer"): _Call(_from_buffer),
    ("numpy", "scalar"): _Call(_scalar),
    ("pyarrow.lib", "_restore_array"): _Call(_arrow),
    ("pyarrow.lib", "chunked_array"): _Call(_chunked),
    ("pyarrow.lib", "type_for_alias"): str,
    ("pyarrow.lib", "py_buffer"): _Call(_bytes),
    ("builtins", "slice"): slice,
    ("builtins", "bytearray"): _Call(_bytes),
    ("_codecs", "encode"): _Call(_encode),
}
