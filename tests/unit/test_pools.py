"""Which log a tenant is in, and what a decision's id says of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from bandit_service import cli, settings
from bandit_service.clock import Ids
from bandit_service.core.pools import CODES, Place, PoolMap, PoolTenants, code_in, code_of, twins

_TENANTS = [f"tenant-{i}" for i in range(2000)]


def _ring(**shares: int) -> PoolMap:
    pools = [PoolTenants(name, share=share) for name, share in shares.items()]
    return PoolMap("main", "", pools)


def test_an_exact_name_goes_before_the_longest_beginning_before_a_share() -> None:
    pools = [
        PoolTenants("one", frozenset({"acme-eu-1"})),
        PoolTenants("long", prefixes=("acme-eu",)),
        PoolTenants("short", prefixes=("acme",)),
        PoolTenants("rest", share=1),
    ]
    found = PoolMap("main", "", pools)
    asked = ("acme-eu-1", "acme-eu-2", "acme", "globex", "")
    assert [found.of_tenant(tenant).pool for tenant in asked] == [
        "one", "long", "short", "rest", "main",
    ]  # fmt: skip
    assert PoolMap("main", "", pools[:3]).of_tenant("globex").pool == "main"


def test_shares_are_weights_and_a_new_pool_takes_only_what_is_its() -> None:
    before = {tenant: _ring(a=1, b=3).of_tenant(tenant).pool for tenant in _TENANTS}
    counts = Counter(before.values())
    assert 1300 < counts["b"] < 1700
    after = {tenant: _ring(a=1, b=3, c=2).of_tenant(tenant).pool for tenant in _TENANTS}
    moved = {after[tenant] for tenant in _TENANTS if after[tenant] != before[tenant]}
    assert moved == {"c"}


def test_every_process_maps_alike() -> None:
    # written down once: another hash would send tenants to other logs after an upgrade
    assert [_ring(a=1, b=3).of_tenant(tenant).pool for tenant in _TENANTS[:8]] == [
        "b", "b", "b", "b", "a", "a", "b", "a",
    ]  # fmt: skip
    assert (code_of("main"), code_of("acme"), code_of("main", "eu")) == (2939, 3874, 3843)


@pytest.mark.parametrize("code", [0, 1, CODES - 1])
def test_ids_carry_the_code_and_stay_in_order(code: int) -> None:
    ids, plain = Ids(code=code), Ids()
    made = [ids.new(1_700_000_000.0) for _ in range(200)]
    assert made == sorted(made)
    assert len({UUID(id) for id in made}) == 200
    assert all(UUID(id).version == 7 and UUID(id).variant == UUID(made[0]).variant for id in made)
    assert {code_in(id) for id in made} == {code}
    assert len({code_in(plain.new(1_700_000_000.0)) for _ in range(200)}) > 100


def test_an_id_says_its_pool_and_its_cell() -> None:
    pools = [PoolTenants("acme", cell="eu"), PoolTenants("globex", cell="us")]
    found = PoolMap("main", "eu", pools)
    ids = {name: Ids(code=code_of(name)).new(1.0) for name in ("acme", "globex")}
    assert found.of_id(ids["acme"]) == Place("acme", "eu")
    assert found.of_id(ids["globex"]) == Place("globex", "us")
    assert found.of_id(Ids(code=code_of("main", "us")).new(1.0)) == Place("main", "us")
    other = next(code for code in range(CODES) if code not in found._codes)
    assert found.of_id(Ids(code=other).new(1.0)) is None
    assert found.of_id("no id") is None


def test_what_is_too_long_for_a_tenant_is_not_remembered() -> None:
    found = _ring(a=1)
    for i in range(3):
        assert found.of_tenant(f"{i}" + "x" * 256).pool == "main"
    assert found._find.cache_info().currsize == 1  # type: ignore[attr-defined]


def test_two_names_with_one_code_are_found() -> None:
    names = [f"pool-{i}" for i in range(400)]
    found = twins("main", [""], names)
    assert found is not None
    assert code_of(found[0]) == code_of(found[1])
    assert twins("main", ["", "eu"], ["acme", "globex"]) is None


def _read(text: str, tmp_path: Path, **environ: str) -> settings.Settings:
    config = tmp_path / "bandit.toml"
    config.write_text(text)
    return settings.read(config, environ)


def test_a_pool_has_a_directory_and_the_log_of_all(tmp_path: Path) -> None:
    text = """
data_dir = "data"
[log]
engine = "postgres"
dsn_env = "ALL"
[[pools]]
name = "acme"
tenants = ["acme"]
[[pools]]
name = "big"
tenants = ["big-*"]
engine = "jetstream"
dsn_env = "NATS"
log = "big-2"
[[pools]]
name = "small"
share = 1
engine = "sqlite"
data_dir = "elsewhere"
"""
    found = _read(text, tmp_path, ALL="postgresql://a/b", NATS="nats://c")
    acme, big, small = settings.others_of(found)
    assert (acme.data_dir, acme.log.engine, acme.log.name) == (
        "data/pools/acme",
        "postgres",
        "acme",
    )
    assert (big.log.engine, big.log.name, big.dsn) == ("jetstream", "big-2", "nats://c")
    assert (small.data_dir, small.log.engine, small.dsn) == ("elsewhere", "sqlite", "")
    assert acme.dsn == found.dsn == "postgresql://a/b"
    assert (small.log.dsn_env, acme.log.dsn_env) == ("", "ALL")
    assert "nats://c" not in repr(found)
    main = settings.default_of(found)
    assert {main.id_code, acme.id_code, big.id_code, small.id_code} >= {code_of("main")}
    assert settings.default_of(_read("", tmp_path)).id_code is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("name = 'A'\nshare = 1", "pools[0].name: must be of a-z"),
        ("name = 'main'\nshare = 1", "pools[0].name: 'main' is the default pool, by log.name"),
        ("name = 'a'", "pools[0].tenants: name some, or set share"),
        ("name = 'a'\ntenants = ['*']", "pools[0].tenants[0]: must be a tenant's name"),
        ("name = 'a'\ntenants = ['x', 'x']", "pools[0].tenants: must have each name once"),
        ("name = 'a'\nshare = 101", "pools[0].share: must be from 0 to 100, got 101"),
        ("name = 'a'\nshare = 1\nengine = 'mysql'", "pools[0].engine: must be one of sqlite"),
        ("name = 'a'\nshare = 1\nengine = 'postgres'", "pools[0].dsn_env: log.engine"),
        ("name = 'a'\nshare = 1\ndsn_env = 'X'", "pools[0].dsn_env: is only for log.engine"),
        ("name = 'a'\nshare = 1\ninsecure_single = true", "pools[0].insecure_single: is only for"),
        ("name = 'a'\nshare = 1\ncell = 'eu'", "pools[0].cell: set cell, too"),
        ("name = 'a'\nshare = 1\ndata_dir = 'var'", "pools[0].data_dir: another pool uses var"),
        ("name = 'a'\nshares = 1", "pools[0].shares: "),
    ],
)
def test_what_is_wrong_is_told(text: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(settings.BadSettings) as told:
        _read(f"[[pools]]\n{text}\n", tmp_path)
    assert any(each.startswith(wrong) for each in told.value.mistakes), told.value.mistakes


def test_pools_that_cannot_be_together_are_told(tmp_path: Path) -> None:
    one = "[[pools]]\nname = '{}'\ntenants = ['{}']\n"
    with pytest.raises(settings.BadSettings) as told:
        _read(f"cell = 'eu'\n{one.format('a', 'x')}{one.format('a', 'y')}", tmp_path)
    assert told.value.mistakes == [
        "pools[1].name: duplicate name 'a'",
        "pools[0].cell: must name one, since this process has the cell 'eu'",
        "pools[1].cell: must name one, since this process has the cell 'eu'",
        "pools[1].data_dir: another pool uses var/pools/a",
    ]
    with pytest.raises(settings.BadSettings) as told:
        _read(f"{one.format('a', 'x')}{one.format('b', 'x')}", tmp_path)
    assert told.value.mistakes == ["pools[1].tenants: 'x' is in the pool 'a', too"]


@pytest.mark.parametrize(
    ("engine", "first", "second", "is_one"),
    [
        ("postgres", "postgresql://u:p@db/x", "postgres://u:q@DB:5432/x?sslmode=require", True),
        ("postgres", "postgresql://u:p@db/u", "postgresql://u:p@one,db:5432", True),
        ("postgres", "postgresql://u@/x?host=a,b", "postgresql://u@b:5432/x", True),
        ("postgres", "postgresql://u:p@[::1]/x", "postgresql://u:p@[::1]:5432/x", True),
        ("postgres", "postgresql://u:p@db/x", "postgresql://u:p@db/y", False),
        ("postgres", "postgresql://u:p@db/x", "postgresql://v:p@db/x", False),  # other schemas
        ("postgres", "postgresql://u:p@db/x", "postgresql://u:p@db:5433/x", False),
        ("jetstream", "nats://u:p@a:4222,b:4222", "tls://u:p@b", True),
        ("jetstream", "nats://u:p@a", "nats://v:p@a", False),  # other accounts
    ],
)
def test_two_addresses_of_one_database_are_noticed(
    engine: str, first: str, second: str, is_one: bool, tmp_path: Path
) -> None:
    pools = "".join(
        f"[[pools]]\nname = '{name}'\ntenants = ['{name}']\nengine = '{engine}'\n"
        f"dsn_env = '{name.upper()}'\nlog = 'l'\n"
        for name in ("a", "b")
    )
    if not is_one:
        _read(pools, tmp_path, A=first, B=second)
        return
    with pytest.raises(settings.BadSettings) as told:
        _read(pools, tmp_path, A=first, B=second)
    assert told.value.mistakes == ["pools[1].log: another pool uses the log 'l' there"]


def test_config_show_prints_the_pools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "bandit.toml"
    config.write_text("[[pools]]\nname = 'acme'\ntenants = ['acme-*']\n")
    assert cli.main(["config", "show", "--config", str(config)]) == 0
    told = capsys.readouterr().out
    assert 'pools: {"name": "acme", "tenants": ["acme-*"]' in told
    assert cli.main(["config", "show", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pools"][0]["name"] == "acme"
