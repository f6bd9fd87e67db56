"""The settings of each pool's log, from those of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bandit_service.core.pools import PoolMap, PoolTenants, code_of
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.settings.pools import Pool, log_of
from bandit_service.settings.whole import Settings


def map_of(settings: Settings) -> PoolMap:
    """Which pool each tenant is in."""
    pools = [
        PoolTenants(
            each.spec.name,
            frozenset(name for name in each.spec.tenants if not name.endswith("*")),
            tuple(name[:-1] for name in each.spec.tenants if name.endswith("*")),
            each.spec.share,
            each.spec.cell,
        )
        for each in settings.pools
    ]
    return PoolMap(settings.log.name, settings.cell, pools)


def default_of(settings: Settings) -> Settings:
    """The settings of the default pool; its ids name it where there are others."""
    if not settings.pools:
        return settings
    name = settings.log.name
    return replace(settings, pool=name, id_code=code_of(name, settings.cell))


def is_default(settings: Settings) -> bool:
    """Whether they are of the default pool, or there is one log."""
    return settings.pool not in [each.spec.name for each in settings.pools]


def others_of(settings: Settings) -> list[Settings]:
    """The settings of every other pool that this process serves."""
    return [of_pool(settings, each) for each in settings.pools if each.spec.cell == settings.cell]


def named(settings: Settings, pool: str) -> Settings:
    """The settings of the pool of this name, "" for the default one. LookupError with what there
    is where there is none.
    """
    if pool in ("", settings.log.name):
        return default_of(settings)
    return of_pool(settings, pool_named(settings, pool))


def pool_named(settings: Settings, name: str) -> Pool:
    """The pool of this name beside the default one. LookupError with what there is."""
    for each in settings.pools:
        if each.spec.name == name:
            return each
    there_are = [settings.log.name, *(each.spec.name for each in settings.pools)]
    raise LookupError(no_pool(name, there_are))


def no_pool(name: str, there_are: Sequence[str]) -> str:
    """What is said of a pool that there is not."""
    return (
        f"no pool {name!r}{did_you_mean(name, there_are)}; expected one of {', '.join(there_are)}"
    )


def of_pool(settings: Settings, pool: Pool) -> Settings:
    """The settings by which a process serves one pool."""
    chosen = settings.log
    spec = pool.spec
    values = {
        "data_dir": settings.data_dir,
        "log.engine": chosen.engine,
        "log.dsn_env": chosen.dsn_env,
        "log.dsn_file": chosen.dsn_file,
        "log.insecure_single": chosen.insecure_single,
    }
    own = log_of(spec, values)
    return replace(
        settings,
        data_dir=own["data_dir"],
        log=replace(
            chosen,
            engine=own["log.engine"],
            name=own["log.name"],
            dsn_env=own["log.dsn_env"],
            dsn_file=own["log.dsn_file"],
            insecure_single=own["log.insecure_single"],
        ),
        dsn=pool.dsn,
        pool=spec.name,
        id_code=code_of(spec.name),
    )
