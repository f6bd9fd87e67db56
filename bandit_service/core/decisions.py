"""Pending decisions by id, oldest first; those from a snapshot stay encoded until they are used.

A snapshot has tens of thousands of them, and most expire unused. So a decision from a snapshot is
decoded on first use, and otherwise copied into the next snapshot as it is. Until then it is a view
of the snapshot's bytes, since copying all of them would take most of a start's time; the last view
frees these bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping
from itertools import islice
from typing import TypeVar, overload

import msgspec

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.resolved import Pending

T = TypeVar("T")
_FEW = 2_000
"""Fewer are copied, so that a few do not keep the bytes of a large world."""


class _Whose(msgspec.Struct):
    """Only the owner of a decision, so that the rest is not decoded."""

    tenant: str = ""
    unit: str = ""


class _Waiting(msgspec.Struct):
    decided: _Whose


_whose = msgspec.msgpack.Decoder(_Waiting)


class Decisions(MutableMapping[str, Pending]):
    """A mapping of ids to `Pending`; changes of a returned one change the stored one."""

    __slots__ = ("_kept",)

    def __init__(self, kept: Iterable[tuple[str, Pending | msgspec.Raw]] = ()) -> None:
        self._kept: OrderedDict[str, Pending | msgspec.Raw] = OrderedDict(kept)

    def __getitem__(self, id: str) -> Pending:
        found = self._kept[id]
        if isinstance(found, msgspec.Raw):
            found = self._kept[id] = codec.load(found, Pending)
        return found

    def find(self, id: str) -> Pending | None:
        """The same, None where there is none; `get` takes three times as long."""
        found = self._kept.get(id)
        return self[id] if isinstance(found, msgspec.Raw) else found

    def __setitem__(self, id: str, pending: Pending) -> None:
        self._kept[id] = pending

    def add(self, some: Iterable[Pending]) -> None:
        """Several, in their order."""
        self._kept.update((one.decided.id, one) for one in some)

    def __delitem__(self, id: str) -> None:
        del self._kept[id]

    def __contains__(self, id: object) -> bool:
        return id in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def get(self, id: str, default: None = None, /) -> Pending | None: ...

    @overload
    def get(self, id: str, default: T, /) -> Pending | T: ...

    def get(self, id: str, default: object = None, /) -> object:
        """A decision, or the default: in one step, since each outcome looks it up several times."""
        found = self._kept.get(id, default)
        return self[id] if isinstance(found, msgspec.Raw) else found

    def newest(self, most: int) -> list[Pending]:
        """So many, newest first."""
        return [self[id] for id in list(islice(reversed(self._kept), most))]

    def older_than(self, id: str | None) -> Iterator[str]:
        """The ids from the newest on, or from the first that is older than this one on.

        Ids sort by their age; one that has left is as good as any other.
        """
        newest = reversed(self._kept)
        return newest if id is None else (each for each in newest if each < id)

    def of_owner(self, owner: str) -> list[str]:
        """The ids of an owner's decisions. O(n), and none of them is decoded for good."""
        return [id for id, one in self._kept.items() if _owner_of(one) == owner]

    def folded(self) -> dict[str, msgspec.Raw]:
        """Each in its encoding."""
        return {
            id: one if isinstance(one, msgspec.Raw) else msgspec.Raw(codec.dump(one))
            for id, one in self._kept.items()
        }

    @classmethod
    def unfolded(cls, kept: dict[str, msgspec.Raw]) -> Decisions:
        """Those of which `folded` gave this."""
        if len(kept) < _FEW:
            return cls((id, msgspec.Raw(bytes(one))) for id, one in kept.items())
        return cls(kept.items())


def _owner_of(one: Pending | msgspec.Raw) -> str:
    of = _whose.decode(one).decided if isinstance(one, msgspec.Raw) else one.decided
    return ev.owner_of(of.tenant, of.unit)
