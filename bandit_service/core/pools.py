"""Which log a tenant's events are in, where a process serves several. Pure.

A pool is a set of tenants that share one log, with a world of its own. The default pool has every
tenant that no other pool has, and all that names no tenant. An id of a decision carries the code of
its pool, so that an outcome without a tenant finds the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from uuid import UUID

from bandit_service.core.fields import MAX_NAME

POOL = "x-bandit-pool"
"""The header with the pool that is asked, where a process serves several."""

CODES = 1 << 12
"""How many codes there are: 12 of the 62 random bits of an id name its pool."""
_FREE_BITS = 50
_KEPT = 65_536
"""Tenants whose pool is remembered."""


@dataclass(frozen=True, slots=True)
class PoolTenants:
    """Which tenants a pool has. prefixes: how their names may begin. share: its weight among the
    pools that share the tenants which no pool names; 0 for none of them. cell: where it is served.
    """

    name: str
    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    share: int = 0
    cell: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log is served."""

    pool: str
    cell: str


def code_of(name: str, cell: str = "") -> int:
    """The code of a pool in the ids of its decisions. cell: of a default pool, of which each cell
    has its own.

    >>> 0 <= code_of("acme") < CODES
    True
    """
    name = f"{name}@{cell}" if cell else name
    return int.from_bytes(sha256(b"bandit pool " + name.encode()).digest()[:2], "big") >> 4


def code_in(id: str) -> int | None:
    """The code that an id carries; None where it is no UUID.

    >>> code_in("0192f1b6-7c1e-7000-bffc-000000000000")
    4095
    """
    try:
        return UUID(id).int >> _FREE_BITS & (CODES - 1)
    except ValueError:
        return None


def twins(default: str, cells: Iterable[str], names: Iterable[str]) -> tuple[str, str] | None:
    """Two pools with one code; None where every one has its own. default: the name of the default
    pools, one in each cell.
    """
    seen: dict[int, str] = {}
    codes = [(code_of(default, cell), default) for cell in dict.fromkeys(cells)]
    for code, name in (*codes, *((code_of(name), name) for name in names)):
        if code in seen:
            return seen[code], name
        seen[code] = name
    return None


@dataclass(frozen=True)
class PoolMap:
    """default: the pool of all that has no other. cell: of the process; its default pool is there.
    pools: all of them, also those of other cells.

    >>> map = PoolMap("main", "", [PoolTenants("acme", frozenset({"acme"}), ("acme-",))])
    >>> map.of_tenant("acme-eu").pool, map.of_tenant("globex").pool
    ('acme', 'main')
    """

    default: str
    cell: str
    pools: Sequence[PoolTenants]
    _exact: Mapping[str, Place] = field(init=False, repr=False)
    _prefixes: Sequence[tuple[str, Place]] = field(init=False, repr=False)
    _codes: Mapping[int, Place] = field(init=False, repr=False)
    _find: Callable[[str], Place] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look up by name, by the longest prefix, and by code."""
        places = [(each, Place(each.name, each.cell)) for each in self.pools]
        cells = {self.cell, *(each.cell for each in self.pools)}
        prefixes = [(prefix, place) for each, place in places for prefix in each.prefixes]
        exact = {name: place for each, place in places for name in each.exact}
        codes = {code_of(self.default, cell): Place(self.default, cell) for cell in cells}
        codes |= {code_of(each.name): place for each, place in places}
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_prefixes", sorted(prefixes, key=lambda one: -len(one[0])))
        object.__setattr__(self, "_codes", codes)
        object.__setattr__(self, "_find", lru_cache(_KEPT)(self._of_tenant))

    def of_tenant(self, tenant: str) -> Place:
        """The pool of a tenant; that of no tenant is the default one. A name that is longer than a
        tenant's may be, which is refused later, is the default pool's, and is not remembered.
        """
        return self._find(tenant if len(tenant) <= MAX_NAME else "")

    def of_id(self, id: str) -> Place | None:
        """The pool that an id names; None for an id of before there were pools, or of elsewhere."""
        code = code_in(id)
        return None if code is None else self._codes.get(code)

    def _of_tenant(self, tenant: str) -> Place:
        here = Place(self.default, self.cell)
        if not tenant:
            return here
        if (named := self._exact.get(tenant)) is not None:
            return named
        for prefix, place in self._prefixes:
            if tenant.startswith(prefix):
                return place
        shared = [each for each in self.pools if each.share]
        if not shared:
            return here
        chosen = max(shared, key=lambda each: (_score(each, tenant), each.name))
        return Place(chosen.name, chosen.cell)


def _score(pool: PoolTenants, tenant: str) -> bytes:
    """Rendezvous hashing: a pool that comes or goes moves only the tenants that it gets or had."""
    told = f"{pool.name}\0{tenant}\0".encode()
    return max(sha256(told + str(i).encode()).digest() for i in range(pool.share))
