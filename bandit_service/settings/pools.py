"""`[[pools]]`: tenants with a log of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

import store
from bandit_service.core.fields import MAX_NAME, Id, check_stated, doc
from bandit_service.core.pools import twins
from bandit_service.parsing.validation import Mistakes, every_mistake
from bandit_service.settings import shared

MOST = 100
"""Pools of one configuration: each that a process serves has series of its own in its metrics."""
_ENGINES = (*store.ENGINES, *shared.ENGINES)


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tenants that share a log.

    tenants: exact names, and beginnings of names with a `*` at their end. share: the weight among
    the pools that share the tenants that no pool names. cell: the processes that serve it; those
    of other cells answer 421. engine, dsn_env, dsn_file, log: where its log is, by default as
    `[log]` says, under the name of the pool. insecure_single: as of `[log]`. data_dir: by default a
    directory in `data_dir`.
    """

    name: Id
    tenants: tuple[str, ...] = ()
    share: Annotated[
        int, doc("Weight among the pools with a share.", 1, minimum=0, maximum=100)
    ] = 0
    cell: str = ""
    engine: str = ""
    dsn_env: str = ""
    dsn_file: str = ""
    log: str = ""
    insecure_single: bool = False
    data_dir: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with the address of its log; "" for one in a file, or where secrets are not read."""

    spec: PoolSpec
    dsn: str = field(default="", repr=False)


def check_pool(spec: PoolSpec) -> None:
    """ValueError "field: what was wrong, what is allowed", or several."""
    check_stated(spec)
    wrong: list[str] = []
    odd = set(spec.name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    if not spec.name or odd or spec.name[0] in "-_":
        wrong.append(
            "name: must be of a-z, 0-9, - and _, and begin with one of the first two, got "
            f"{spec.name!r}"
        )
    for i, tenant in enumerate(spec.tenants):
        if not 0 < len(tenant) <= MAX_NAME or tenant == "*":
            wrong.append(
                f"tenants[{i}]: must be a tenant's name or a beginning with * at its end, of 1 to "
                f"{MAX_NAME} characters, got {tenant!r}; for all others use share"
            )
    if len(set(spec.tenants)) < len(spec.tenants):
        wrong.append("tenants: must have each name once")
    if not spec.tenants and not spec.share:
        wrong.append("tenants: name some, or set share; a pool without tenants is never used")
    if spec.engine and spec.engine not in _ENGINES:
        wrong.append(f"engine: must be one of {', '.join(_ENGINES)}, got {spec.engine!r}")
    if wrong:
        raise Mistakes(wrong)


def pools_of(
    items: Any,
    values: Mapping[str, Any],
    environ: Mapping[str, str],
    beside: Path | None,
    mistakes: list[str],
    *,
    secrets: bool,
) -> tuple[Pool, ...]:
    """The pools of `[[pools]]`. values: all settings, by key. secrets: read their addresses."""
    if not isinstance(items, list):
        mistakes.append(f"pools: must be a list of tables, got {type(items).__name__}")
        return ()
    if len(items) > MOST:
        mistakes.append(f"pools: must be at most {MOST}, got {len(items)}")
        return ()
    found: dict[int, Pool] = {}
    for i, item in enumerate(items):
        spec, wrong = every_mistake(item, PoolSpec, check_pool)
        mistakes += [f"pools[{i}].{each}" for each in wrong]
        if spec is None:
            continue
        wrong, own = [], log_of(spec, values)
        dsn = shared.dsn_of(own, environ, beside, wrong) if secrets else ""
        wrong += shared.of_retention(own) + shared.of_jetstream(own)
        mistakes += [f"pools[{i}].{each.removeprefix('log.')}" for each in wrong]
        found[i] = Pool(spec, dsn)
    default = shared.dsn_of(values, environ, beside, []) if secrets else ""
    mistakes += [*_names(found, values), *_between(found, values)]
    mistakes += _together(found, values, default)
    return tuple(found.values())


def log_of(spec: PoolSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those of the pool's log in the place of the default pool's."""
    engine = spec.engine or values["log.engine"]
    own: dict[str, Any] = {"log.engine": engine, "log.name": spec.log or spec.name}
    if spec.dsn_env or spec.dsn_file or engine != values["log.engine"]:
        own |= {"log.dsn_env": spec.dsn_env, "log.dsn_file": spec.dsn_file}
    inherited = engine == values["log.engine"] and values["log.insecure_single"]
    own["log.insecure_single"] = spec.insecure_single or inherited
    return {**values, **own, "data_dir": _directory(spec, values["data_dir"])}


def _directory(spec: PoolSpec, data_dir: str) -> str:
    return spec.data_dir or str(Path(data_dir) / "pools" / spec.name)


def _names(pools: Mapping[int, Pool], values: Mapping[str, Any]) -> list[str]:
    """Names that are there twice, or that ids could not tell apart."""
    wrong, default = [], values["log.name"]
    names: list[str] = []
    for i, pool in pools.items():
        name = pool.spec.name
        if name == default:
            wrong.append(f"pools[{i}].name: {name!r} is the default pool, by log.name")
        elif name in names:
            wrong.append(f"pools[{i}].name: duplicate name {name!r}")
        else:
            names.append(name)
    same = twins(default, [values["cell"], *(each.spec.cell for each in pools.values())], names)
    if same:
        wrong.append(f"pools: {same[0]!r} and {same[1]!r} have one code in ids; rename one of them")
    return wrong


def _between(pools: Mapping[int, Pool], values: Mapping[str, Any]) -> list[str]:
    """A tenant in two pools, and cells for some only."""
    wrong, cell = [], values["cell"]
    seen: dict[str, str] = {}
    for i, pool in pools.items():
        for tenant in pool.spec.tenants:
            other = seen.setdefault(tenant, pool.spec.name)
            if other != pool.spec.name:
                wrong.append(f"pools[{i}].tenants: {tenant!r} is in the pool {other!r}, too")
        if cell and not pool.spec.cell:
            wrong.append(
                f"pools[{i}].cell: must name one, since this process has the cell {cell!r}"
            )
        if pool.spec.cell and not cell:
            wrong.append(f"pools[{i}].cell: set cell, too: the one that this process serves")
    return wrong


def _together(pools: Mapping[int, Pool], values: Mapping[str, Any], default_dsn: str) -> list[str]:
    """Two pools that would use one log or one directory. default_dsn: of the default pool's log."""
    wrong = []
    directories, logs = {_resolved(values["data_dir"])}, [(values, default_dsn)]
    for i, pool in pools.items():
        own = log_of(pool.spec, values)
        directory = _resolved(own["data_dir"])
        if directory in directories:
            wrong.append(f"pools[{i}].data_dir: another pool uses {own['data_dir']}")
        if any(_is_one_log(own, pool.dsn, *other) for other in logs):
            wrong.append(f"pools[{i}].log: another pool uses the log {own['log.name']!r} there")
        directories.add(directory)
        logs.append((own, pool.dsn))
    return wrong


def _is_one_log(one: Mapping[str, Any], dsn: str, other: Mapping[str, Any], other_dsn: str) -> bool:
    """Whether two pools have one log in one database. dsn, other_dsn: "" where none is read."""
    engine = one["log.engine"]
    if engine not in shared.ENGINES or any(
        one[key] != other[key] for key in ("log.engine", "log.name")
    ):
        return False
    if all(one[key] == other[key] for key in ("log.dsn_env", "log.dsn_file")):
        return True
    return bool(dsn) and shared.is_one_place(engine, dsn, other_dsn)


def _resolved(directory: str) -> Path:
    return Path(directory).resolve()
