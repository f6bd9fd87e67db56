"""Any state to bytes and back, written once for all policies.

A state is a dataclass of numbers, strings, lists, tuples, dicts, numpy arrays and dataclasses of
these. Fields whose name begins with an underscore are caches and are left out. Equal states give
equal bytes, so comparing bytes compares states, bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from typing import Any, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")
_ARRAY = 1
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes of unknown origin can raise; the last where they are nested without end."""


def dump(state: Any) -> bytes:
    """`state` as MessagePack; arrays keep dtype, shape and bits. TypeError on anything else."""
    return msgspec.msgpack.encode(_plain(state))


def load(data: bytes, like: type[T]) -> T:
    """The state of type `like` that `dump` made `data` from; arrays are fresh and writable."""
    restored: T = _typed(msgspec.msgpack.decode(data, ext_hook=_array), like)
    return restored


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        body = [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(body))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f.name for f in dataclasses.fields(value) if not f.name.startswith("_"))
        return {name: _plain(getattr(value, name)) for name in kept}
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise TypeError(f"a state may not hold a {type(value).__name__}")


def _array(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code} in a dumped state")
    dtype, shape, body = msgspec.msgpack.decode(data)
    return np.frombuffer(body, dtype=np.dtype(dtype)).reshape(shape).copy()


def _typed(value: Any, like: Any) -> Any:
    like = getattr(like, "__supertype__", like)  # a NewType is its supertype at run time
    origin, args = typing.get_origin(like), typing.get_args(like)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (only,) = (arg for arg in args if arg is not type(None))
        return _typed(value, only)
    if isinstance(like, type) and dataclasses.is_dataclass(like):
        hints = typing.get_type_hints(like)
        return like(**{name: _typed(item, hints[name]) for name, item in value.items()})
    if isinstance(like, type) and issubclass(like, msgspec.Struct):
        return msgspec.convert(value, like)
    if origin is dict:
        return {_typed(key, args[0]): _typed(item, args[1]) for key, item in value.items()}
    if origin is list:
        return [_typed(item, args[0]) for item in value]
    if origin is tuple:
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        return tuple(_typed(item, kind) for item, kind in zip(value, kinds, strict=True))
    return value


def sha256(data: bytes) -> str:
    """The hex SHA-256 by which two states are compared."""
    return hashlib.sha256(data).hexdigest()
