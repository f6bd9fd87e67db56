"""Files of several revisions on one log: the newest is in force, whoever starts last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service import settings
from bandit_service.app import service
from bandit_service.app.pools import RELOADING
from bandit_service.core.world import World
from bandit_service.http.middleware import ROUTER
from bandit_service.settings import BadSettings
from loadtest.postgres import Postgres
from tests.service.running import Client, opened, prepare
from tests.service.test_replicas import same, shared

EXPERIMENT = {
    "id": "e",
    "variants": [{"key": "x", "arm": "a", "weight": 0.5}, {"key": "y", "arm": "b", "weight": 0.5}],
}


def _environ(revision: int, *arms: str, **more: Any) -> dict[str, str]:
    tables = {
        "arms": [{"id": id, "usd_per_mtok_in": 1, "usd_per_mtok_out": 1} for id in arms],
        **more,
    }
    return {f"BANDIT_{name.upper()}": json.dumps(of) for name, of in tables.items()} | {
        "BANDIT_REVISION": str(revision)
    }


def _offered(world: World) -> list[str]:
    return [record.spec.id for record in world.offered()]


async def _ready(client: Client) -> tuple[str, str]:
    _, told = await client.get("/readyz")
    return told["status"], told.get("why", "")


async def _behind(client: Client) -> float:
    async with client.session.get(f"{client.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    name = "bandit_configuration_file_behind "
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


async def test_an_older_file_changes_nothing_back(tmp_path: Path, models: Path) -> None:
    data = tmp_path / "var"
    route = {"id": "r", "arms": ["b"]}
    budget = {"scope": "service", "per": "day", "usd": 5.0}
    first = _environ(1, "a", "b", experiments=[EXPERIMENT])
    second = _environ(2, "b", "c", routes=[route], budgets=[budget])
    async with opened(data, models, **first) as (client, world):
        assert _offered(world) == ["a", "b"]
        assert world.experiments.trials["e"].status == "running"
        assert (await _ready(client), await _behind(client)) == (("ready", ""), 0.0)
    async with opened(data, models, **second) as (client, world):
        assert _offered(world) == ["b", "c"]
        before = world.events
    async with opened(data, models, **second) as (client, world):
        assert world.events == before  # the same file: nothing is written
    async with opened(data, models, **first) as (client, world):
        assert _offered(world) == ["b", "c"]
        assert list(world.routes.specs) == ["r"]
        assert world.experiments.trials["e"].status == "stopped"
        _, told = await client.get("/v1/budgets")
        assert [row["usd"] for row in told["budgets"]] == [5.0]
        status, why = await _ready(client)
        assert status == "degraded"
        assert why.startswith("revision: 1 is older than 2, which is in force: the file is not ")
        assert await _behind(client) == 1.0
        assert (await client.decide())["arm"] in ("b", "c")
        _, told = await client.get("/v1/configuration")
        said = [each["why"] for each in told["history"]]
        assert "revision 1 of the file" in said
        assert "revision 2 of the file" in said
        assert world.events == before + 1
    for other in (_environ(2, "b"), _environ(2, "b", "c"), second | _environ(2, "b", "d")):
        with pytest.raises(BadSettings, match="revision: 2 is in force with other arms"):
            async with opened(data, models, **other):
                pass
    with pytest.raises(BadSettings, match=r"policy\.name: another serves than that of the file"):
        async with opened(data, models, **first, BANDIT_POLICY_NAME="uniform"):
            pass
    async with opened(data, models, **_environ(3, "d")) as (client, world):
        assert _offered(world) == ["d"]
        assert (await _ready(client))[0] == "ready"


async def test_a_log_whose_files_are_not_numbered_takes_the_one_of_the_last_start(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    for arm in ("a", "b", "a"):
        async with opened(data, models, **_environ(0, arm)) as (_, world):
            assert _offered(world) == [arm]
            assert not world.configuration  # nothing of it is in the log
    async with opened(data, models, **_environ(1, "b")) as (_, world):
        assert _offered(world) == ["b"]
    async with opened(data, models, **_environ(0, "a")) as (client, world):
        assert _offered(world) == ["b"]
        assert (await _ready(client))[0] == "degraded"


async def test_replicas_take_the_newest_file_of_any_of_them(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    config = tmp_path / "bandit.toml"
    arm = "[[arms]]\nid = {!r}\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n"
    text = "revision = {}\n" + arm
    config.write_text(text.format(1, "a"))
    prepare(tmp_path / "one", models)
    environ = shared(tmp_path, postgres) | {"BANDIT_SERVER_PORT": "0"}
    chosen = settings.read(config, environ | {"BANDIT_DATA_DIR": str(tmp_path / "one")})
    numbered = {"BANDIT_REVISION": "2", "BANDIT_ARMS": _environ(2, "b")["BANDIT_ARMS"]}
    async with (
        service.serving(chosen) as (url, running),
        aiohttp.ClientSession() as session,
    ):
        one, world = Client(session, url), running[ROUTER].world
        assert _offered(world) == ["a"]
        other = {"BANDIT_REVISION": "1", "BANDIT_ARMS": numbered["BANDIT_ARMS"]}
        with pytest.raises(BadSettings, match="revision: 1 is in force with other arms"):
            async with opened(tmp_path / "other", models, **environ, **other):
                pass
        async with opened(tmp_path / "two", models, **environ, **numbered) as (_, newer):
            await same([world, newer])
            assert _offered(world) == ["b"]
            assert (await _ready(one))[0] == "degraded"
            reload = running[RELOADING].reload
            assert not await reload()  # its own file is the older one
            config.write_text(text.format(2, "c"))
            assert not await reload()  # another of the same number
            assert _offered(world) == ["b"]
            config.write_text(text.format(3, "c"))
            assert await reload()
            await same([world, newer])
            assert _offered(newer) == ["c"]
            assert (await _ready(one))[0] == "ready"
