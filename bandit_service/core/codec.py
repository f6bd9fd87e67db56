"""Any state to bytes and back, written once: for policies, for the world, for its digest.

A state is a dataclass of numbers, strings, lists, tuples, dicts, numpy arrays, structs and
dataclasses of these. Fields whose name begins with an underscore are caches and are left out. Equal
states give equal bytes, so comparing bytes compares states, bit for bit.

A class whose state is not its fields defines its encoding: `folded()` returns plain data of the
annotated type, and the class method `unfolded` makes the object from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")
Makers: TypeAlias = Mapping[Any, Callable[[Any], Any]]
_Maker: TypeAlias = Callable[[Any, Makers], Any]
_ARRAY = 1
_DICTS, _LISTS = (dict, OrderedDict), (list, tuple)
_PLAIN = (type(None), bool, int, float, str, bytes, memoryview)
_array = msgspec.msgpack.Decoder(tuple[str, list[int], memoryview])
"""Reads an array's bytes where they lie, since they are copied into the array."""
_ENCODED = msgspec.Raw
"""What is kept as `dump` writes it, until somebody looks: neither written nor read again."""
IF_ANY: Mapping[str, bool] = {"if_any": True}
"""`field(metadata=IF_ANY)`: the field is written only if it is true, so that a state that has none
of it is written as it was before the field was there."""
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes of unknown origin can raise; the last where they are nested without end."""


def dump(state: Any) -> bytes:
    """`state` as MessagePack; arrays keep dtype, shape and bits. TypeError on anything else."""
    return msgspec.msgpack.encode(_written(state, type(state)), enc_hook=_packed)


def load(data: bytes | memoryview | msgspec.Raw, like: type[T], makers: Makers | None = None) -> T:
    """The state of type `like` that `dump` made `data` from; arrays are fresh and writable.

    makers: what makes an object of a class from what its `folded` gave, in place of `unfolded`.
    Raises one of UNREADABLE where `data` is no such state.
    """
    kind: Any = like
    restored: T = _made(_decoder(_shape(kind)).decode(data), kind, makers or {})
    return restored


def sha256(data: bytes) -> str:
    """The hex SHA-256 by which two states are compared."""
    return hashlib.sha256(data).hexdigest()


def _written(value: Any, like: Any) -> Any:
    """The value without caches; what has none by its type goes to msgspec as it is."""
    if _native(like):
        return value
    kind: Any = type(value)
    like = kind if _is_open(like) else like
    if hasattr(value, "folded"):
        return _written(value.folded(), _kept_type(kind))
    if dataclasses.is_dataclass(value):
        found = {}
        for name, of, native, if_any in _parts(kind):
            one = getattr(value, name)
            if not if_any or one:
                found[name] = one if native else _written(one, of)
        return found
    args = typing.get_args(like)
    if isinstance(value, dict):
        kind = args[1] if len(args) == 2 else Any
        return {key: _written(item, kind) for key, item in value.items()}
    if isinstance(value, list | tuple):
        kinds = _kinds(value, args) if args else [Any] * len(value)
        return [_written(item, kind) for item, kind in zip(value, kinds, strict=True)]
    if isinstance(value, (*_PLAIN, np.ndarray, msgspec.Struct)):
        return value
    raise TypeError(f"a state may not hold a {type(value).__name__}")


@cache
def _shape(like: Any) -> Any:
    """What msgspec decodes for this type, all of it in one pass: what it knows, as it is."""
    like = _bare(like)
    if _readable(like):
        return like
    origin, args = typing.get_origin(like), typing.get_args(like)
    if origin is OrderedDict and _native(like):
        return dict.__class_getitem__(args)
    if _native(like) or like is Any:
        return like
    if isinstance(like, type) and hasattr(like, "folded"):
        return _shape(_kept_type(like))
    if isinstance(like, type) and dataclasses.is_dataclass(like):
        optional = _if_any(like)
        kept = [
            (name, _shape(kind) | None, None) if name in optional else (name, _shape(kind))
            for name, kind in _fields(like).items()
        ]
        return msgspec.defstruct(like.__name__, kept, forbid_unknown_fields=True, kw_only=True)
    if origin in _DICTS:
        return dict.__class_getitem__((args[0], _shape(args[1])))
    if origin in _LISTS:
        kinds = [_shape(arg) for arg in args if arg is not Ellipsis]
        whole = origin is tuple and Ellipsis not in args
        return tuple.__class_getitem__(tuple(kinds)) if whole else list.__class_getitem__(kinds[0])
    if origin in (typing.Union, types.UnionType):
        return _shape(_only(args)) | None
    raise TypeError(f"a state may not hold a {like}")


def _made(value: Any, like: Any, makers: Makers) -> Any:
    """The value of type `like`, of what was decoded for it."""
    maker = _maker(like)
    return value if maker is None else maker(value, makers)


@cache
def _maker(like: Any) -> _Maker | None:
    """What makes a value of this type of what was decoded for it; None where that is the value."""
    like = _bare(like)
    if _readable(like):
        return None
    origin, args = typing.get_origin(like), typing.get_args(like)
    if _native(like) or like is Any:
        return _ordered if origin is OrderedDict else None
    if isinstance(like, type) and hasattr(like, "folded"):
        return _maker_of_folded(like)
    if isinstance(like, type):
        return _maker_of_fields(like)
    if origin in _DICTS:
        return _maker_of_dict(origin, _maker(args[1]))
    if origin in _LISTS:
        return _maker_of_list(origin, args)
    only = _maker(_only(args))
    assert only is not None  # a union of what msgspec knows is known, too
    return lambda value, makers: None if value is None else only(value, makers)


def _ordered(value: Any, _: Makers) -> Any:
    return OrderedDict(value)


def _maker_of_folded(like: Any) -> _Maker:
    inner = _maker(_kept_type(like))

    def made(value: Any, makers: Makers) -> Any:
        make = makers.get(like) or like.unfolded
        return make(value if inner is None else inner(value, makers))

    return made


def _maker_of_fields(like: Any) -> _Maker:
    optional = _if_any(like)
    parts = [(name, _maker(kind), name in optional) for name, kind in _fields(like).items()]

    def made(value: Any, makers: Makers) -> Any:
        given = {}
        for name, maker, if_any in parts:
            one = getattr(value, name)
            if one is not None or not if_any:
                given[name] = one if maker is None else maker(one, makers)
        return like(**given)

    return made


def _maker_of_dict(origin: Any, item: _Maker | None) -> _Maker:
    if item is None:
        return lambda value, _: origin(value)
    return lambda value, makers: origin((key, item(one, makers)) for key, one in value.items())


def _maker_of_list(origin: Any, args: tuple[Any, ...]) -> _Maker:
    def made(value: Any, makers: Makers) -> Any:
        kinds = _kinds(value, args)
        return origin(_made(item, kind, makers) for item, kind in zip(value, kinds, strict=True))

    return made


def _only(args: tuple[Any, ...]) -> Any:
    (only,) = (arg for arg in args if arg is not type(None))
    return only


@cache
def _native(like: Any) -> bool:
    """Whether msgspec writes and reads this type by itself: nothing in it is a cache."""
    like = _bare(like)
    if like is None or like in _PLAIN or like in (np.ndarray, _ENCODED):
        return True
    origin, args = typing.get_origin(like), typing.get_args(like)
    if origin is np.ndarray:
        return True
    if origin is not None:
        parts = [arg for arg in args if arg is not Ellipsis]
        known = (*_DICTS, *_LISTS, typing.Union, types.UnionType)
        return origin in known and all(_native(part) for part in parts)
    if not isinstance(like, type) or hasattr(like, "folded"):
        return False
    if issubclass(like, msgspec.Struct):
        return True
    if not dataclasses.is_dataclass(like):
        return False
    kept = _fields(like)
    whole = len(kept) == len(dataclasses.fields(like)) and not _if_any(like)
    return whole and all(map(_native, kept.values()))


@cache
def _readable(like: Any) -> bool:
    """Whether msgspec makes a dataclass by itself that it does not write by itself: of some fields
    that are not always written, and no caches."""
    if not isinstance(like, type) or not dataclasses.is_dataclass(like) or hasattr(like, "folded"):
        return False
    kept = _fields(like)
    whole = len(kept) == len(dataclasses.fields(like)) and bool(_if_any(like))
    return whole and all(map(_native, kept.values()))


@cache
def _fields(like: Any) -> dict[str, Any]:
    """The fields that are no caches, with their types."""
    hints = typing.get_type_hints(like)
    names = (each.name for each in dataclasses.fields(like))
    return {name: hints[name] for name in names if not name.startswith("_")}


@cache
def _parts(like: Any) -> list[tuple[str, Any, bool, bool]]:
    """Of each field that is no cache: name, type, whether it is native, and `IF_ANY`."""
    optional = _if_any(like)
    return [(name, of, _native(of), name in optional) for name, of in _fields(like).items()]


@cache
def _if_any(like: Any) -> frozenset[str]:
    """The fields that are written only if they are true."""
    fields = dataclasses.fields(like)
    return frozenset(each.name for each in fields if each.metadata.get("if_any"))


@cache
def _kept_type(like: Any) -> Any:
    return typing.get_type_hints(like.folded)["return"]


@cache
def _decoder(like: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(like, dec_hook=_converted, ext_hook=_unpacked)


def _bare(like: Any) -> Any:
    return getattr(like, "__supertype__", like)  # a NewType is its supertype at run time


@cache
def _is_open(like: Any) -> bool:
    """Whether the type says less than the value: Any, a union, a class with subclasses."""
    return typing.get_origin(like) is None or typing.get_origin(like) in (
        typing.Union,
        types.UnionType,
    )


def _kinds(items: typing.Sized, args: tuple[Any, ...]) -> list[Any]:
    """The type of each item of a list or tuple."""
    if len(args) == 1 or (len(args) == 2 and args[1] is Ellipsis):
        return [args[0]] * len(items)
    if len(args) != len(items):
        raise msgspec.ValidationError(f"{len(args)} items expected, {len(items)} found")
    return list(args)


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)  # not copied, but encoded
        body = [value.dtype.str, list(value.shape), flat.data]
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(body))
    raise TypeError(f"a state may not hold a {type(value).__name__}")


def _unpacked(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise msgspec.ValidationError(f"unknown extension {code} in a dumped state")
    try:
        dtype, shape, body = _array.decode(data)
        return np.frombuffer(body, dtype=np.dtype(dtype)).reshape(shape).copy()
    except (TypeError, ValueError) as error:
        raise msgspec.ValidationError(f"not an array: {error}") from None


def _converted(like: Any, value: Any) -> Any:
    """What msgspec does not know: arrays, which are made by now, and dicts with an order."""
    if typing.get_origin(like) is OrderedDict:
        plain = dict.__class_getitem__(typing.get_args(like))
        return OrderedDict(msgspec.convert(value, plain, dec_hook=_converted))
    return value
