"""Two releases on one log: nobody writes what an open replica cannot read."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

from loadtest.postgres import Postgres
from tests.service.provider import a_provider, until
from tests.service.running import Client, a_vector, prepare
from tests.service.test_replicas import patiently, replicas, same, shared
from tests.service.test_replicas_budgets import _asked, _environ


def _older(data_dir: Path, models: Path, **environ: str) -> subprocess.Popen[bytes]:
    """A process of the release before."""
    prepare(data_dir, models)
    ready = data_dir / "ready.json"
    ready.unlink(missing_ok=True)
    arguments = ["serve", "--port", "0", "--ready-file", str(ready)]
    whole = os.environ | {"BANDIT_DATA_DIR": str(data_dir)} | environ  # noqa: TID251 - passed on
    with (data_dir / "stderr.log").open("ab") as log:
        command = [sys.executable, "-m", "tests.service.old_release", *arguments]
        return subprocess.Popen(command, env=whole, stderr=log, stdout=log)


async def _url(data_dir: Path, process: subprocess.Popen[bytes]) -> str:
    async def there() -> bool:
        assert process.poll() is None, (data_dir / "stderr.log").read_text()
        return (data_dir / "ready.json").exists()

    await until(there)
    return str(json.loads((data_dir / "ready.json").read_text())["url"])


async def test_what_the_older_release_cannot_read_waits_until_it_has_left(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    async with a_provider() as provider:
        environ = _environ(provider, usd=1.0)
        without: dict[str, Any] = {k: v for k, v in environ.items() if k != "BANDIT_BUDGETS"}
        whole = shared(tmp_path, postgres) | without
        environ["BANDIT_METRICS"] = '[{"name": "stars"}]'  # which wait, too
        older = _older(tmp_path / "old", models, **whole)
        try:
            url = await _url(tmp_path / "old", older)
            async with (
                aiohttp.ClientSession() as session,
                replicas(1, tmp_path, models, postgres, **environ) as [(new, world)],
            ):
                old = Client(session, url)
                status, told = await _asked(new)
                assert status == 503, told
                assert "a replica of an older release is open" in told["error"]["message"]
                status, told = await new.call("PUT", "/v1/policy", {"name": "knn"})
                assert status == 503, told
                status, told = await new.call("DELETE", "/v1/units/someone")
                assert (status, world.erasures.owners) == (503, {}), told
                assert not world.named.specs
                for i in range(6):  # what both know goes on
                    one, other = (old, new) if i % 2 else (new, old)
                    id = (await one.decide(embedding=a_vector(i)))["decision_id"]
                    assert await patiently(other, id, 1.0) == "accepted"
                older.terminate()
                assert await asyncio.to_thread(older.wait, 60) == 0

                async def taken() -> bool:
                    return (await _asked(new))[0] == 200

                await until(taken)
                assert world.leases

                async def named() -> bool:
                    return list(world.named.specs) == ["stars"]

                await until(named)
                # and from now on it cannot come back
                older = _older(tmp_path / "old", models, **whole)
                assert await asyncio.to_thread(older.wait, 60) != 0
                told_of = (tmp_path / "old" / "stderr.log").read_text()
                assert "is not known to this version" in told_of
                assert (await _asked(new))[0] == 200
                await same([world])
        finally:
            if older.poll() is None:
                older.kill()
                older.wait(30)
