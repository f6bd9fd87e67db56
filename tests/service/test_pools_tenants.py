"""Two tenants whose logs are in two pools: what each sends is learned in its own, seen there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bandit_service import cli
from bandit_service.http.middleware import ROUTER
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector
from tests.service.test_experiments import CHEAP, DEAR, arms_of
from tests.service.test_pools import answer_to, pools


async def test_each_call_of_two_tenants_is_of_its_own_pool(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = Keyring(acme={"tenant": "acme"}, globex={"tenant": "globex"}, any={},
                   root={"scopes": ["admin", "read"]})  # fmt: skip
    async with pools(tmp_path / "var", models, **ring.environ) as (client, apps):
        acme, globex, anyone, root = (client.by(ring[n]) for n in ("acme", "globex", "any", "root"))
        worlds = {name: app[ROUTER].world for name, app in apps.items()}

        # a session of one name is a session of each tenant
        for who, n in ((acme, 2), (globex, 1)):
            for i in range(n):
                await who.decide(embedding=a_vector(i), session="s", unit="u")
        for who, credited in ((acme, 2), (globex, 1)):
            status, told = await who.post("/v1/rewards", {"session": "s", "quality": 0.5})
            assert (status, told["results"][0]["credited"]) == (200, credited), told
        by_name = {"session": "s", "quality": 0.5, "tenant": "acme"}
        _, told = await anyone.post("/v1/rewards", by_name)
        assert (told["results"][0]["status"], told["results"][0]["credited"]) == ("duplicate", 2)
        assert (await anyone.post("/v1/rewards", {"session": "s", "quality": 1}))[0] == 404

        # a comparison without a decision, by the key, and by the tenant that it names
        compared = {"winner": CHEAP, "loser": DEAR, "embedding": a_vector(3)}
        for who, named in ((acme, ""), (anyone, "globex"), (globex, "globex"), (anyone, "")):
            status, told = await who.post("/v1/comparisons", compared | {"tenant": named})
            assert (status, told["results"][0]["status"]) == (200, "accepted"), told
        assert {name: world.comparisons for name, world in worlds.items()} == {
            "main": 1, "acme": 1, "globex": 2,
        }  # fmt: skip
        for path in ("/v1/comparisons", "/v1/rewards"):  # another's tenant
            body = (compared if "comp" in path else {"arm": CHEAP, "quality": 1.0}) | {
                "tenant": "globex", "embedding": a_vector(1),
            }  # fmt: skip
            status, told = await acme.post(path, body)
            assert (status, told["error"]["param"]) == (403, "tenant"), told

        # a vote by token finds the log without a key, and shows the vote
        voted = await globex.decide(embedding=a_vector(4), unit="u")
        nobody = Client(client.session, client.url)
        path = f"/v1/feedback/{voted['feedback_token']}"
        assert (await nobody.post(path, {"vote": "up"}))[0] == 200
        assert (await nobody.get(path))[1]["vote"] == "up"
        assert (await globex.get(f"/v1/decisions/{voted['decision_id']}"))[1]["signals"]
        assert (await acme.get(f"/v1/decisions/{voted['decision_id']}"))[0] == 404

        # an experiment of one pool is none of the other
        body = arms_of(audience={"tenants": ["acme"]})
        status, _, _ = await answer_to(root, "PUT", "/v1/experiments/e", body, x_bandit_pool="acme")
        assert status == 201
        await answer_to(root, "POST", "/v1/experiments/e/start", {}, x_bandit_pool="acme")
        assert (await acme.decide(unit="u", embedding=a_vector(5)))["experiment"] == "e"
        assert "experiment" not in await globex.decide(unit="u", embedding=a_vector(5))
        assert (await acme.get("/v1/experiments/e/results"))[0] == 200
        assert (await globex.get("/v1/experiments/e"))[0] == 404
        assert (await root.get("/v1/experiments"))[1]["experiments"] == []

        # an export is of one pool
        for pool, count in (("acme", 3), ("globex", 3), ("main", 0)):
            arguments = ["export", "--url", client.url, "--key", ring["root"], "--pool", pool]
            assert await asyncio.to_thread(cli.main, arguments) == 0
            events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert sum(each["kind"] == "decided" for each in events) == count, pool

        # a unit is erased with its tenant, and one of the same name elsewhere is not
        status, told, _ = await answer_to(root, "DELETE", "/v1/units/u?tenant=acme")
        assert (status, told["erased"] > 0) == (200, True), told
        assert worlds["globex"].pending.decisions
        assert (await globex.get(f"/v1/decisions/{voted['decision_id']}"))[0] == 200
        _, told, _ = await answer_to(root, "GET", "/v1/decisions", x_bandit_pool="acme")
        assert told["decisions"] == []


async def test_what_a_tenant_had_in_another_pool_can_be_erased(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with pools(data, models) as (client, _):
        await client.decide(tenant="acme", unit="u")
    moved = json.dumps(
        [{"name": "acme", "tenants": ["other"]}, {"name": "globex", "tenants": ["acme"]}]
    )
    async with pools(data, models, BANDIT_POOLS=moved) as (client, apps):
        await client.decide(tenant="acme", unit="u")
        worlds = {name: app[ROUTER].world for name, app in apps.items()}
        path = "/v1/units/u?tenant=acme"
        for pool, left in (("", (1, 0)), ("acme", (0, 0))):
            headers = {"x_bandit_pool": pool} if pool else {}
            status, told, _ = await answer_to(client, "DELETE", path, **headers)
            assert (status, told["erased"]) == (200, 1), told
            assert tuple(len(worlds[n].pending.decisions) for n in ("acme", "globex")) == left
