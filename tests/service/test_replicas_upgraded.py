"""Two releases on one log: nobody writes what an open replica cannot read."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bandit_service.core import events as ev
from bandit_service.core import snapshot
from loadtest.postgres import Postgres
from tests.service.provider import a_provider, until
from tests.service.running import Client, a_vector, prepare
from tests.service.test_experiments import CHEAP
from tests.service.test_live_configuration import change
from tests.service.test_replicas import patiently, replicas, same, shared
from tests.service.test_replicas_budgets import _asked, _environ

_BEFORE = "1e65727091721eba6e863bafabf86d0501893035"
"""The last commit that reads an older format of events (5) and has the same state (13)."""
_VERSION_OF = Path("bandit_service") / "core" / "snapshot.py"
_COMMAND = "import sys; from bandit_service import cli; sys.exit(cli.main(sys.argv[1:]))"


def _older(
    data_dir: Path,
    models: Path,
    python: tuple[str, ...] = ("-m", "tests.service.old_release"),
    **environ: str,
) -> subprocess.Popen[bytes]:
    """A process of the release before. python: what it runs; by default this release, without the
    kinds of events that a first one did not know.
    """
    prepare(data_dir, models)
    ready = data_dir / "ready.json"
    ready.unlink(missing_ok=True)
    arguments = ["serve", "--port", "0", "--ready-file", str(ready)]
    whole = os.environ | {"BANDIT_DATA_DIR": str(data_dir)} | environ  # noqa: TID251 - passed on
    with (data_dir / "stderr.log").open("ab") as log:
        command = [sys.executable, *python, *arguments]
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
                older.wait(60)


def _code_of(commit: str, into: Path) -> None:
    """The packages of a commit; the test is skipped where the history does not go back so far."""
    root = Path(__file__).parents[2]
    packages = ("bandit_service", "policies", "store")
    archive = ["git", "-C", str(root), "archive", commit, *packages]
    if shutil.which("git") is None:
        pytest.skip("git is not there, and so no code of an older release")
    found = subprocess.run(archive, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"the history of this checkout does not have {commit[:12]}: an older release")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as files:
        files.extractall(into, filter="data")


async def test_the_code_of_an_older_commit_shares_a_log_with_this_one(
    tmp_path: Path, models: Path, postgres: Postgres
) -> None:
    """Their states are the same, and what the older one cannot read waits until it has left."""
    code = tmp_path / "code"
    _code_of(_BEFORE, code)
    if f"VERSION = {snapshot.VERSION}" not in (code / _VERSION_OF).read_text():
        pytest.skip("no older commit with another format has the state of this one")
    # `nested` learns by another rule since, so its state differs
    environ = shared(tmp_path, postgres) | {"BANDIT_LOG_DIGEST_EVERY": "5"}
    environ["BANDIT_POLICY_NAME"] = "metallm"
    numbered = environ | {"BANDIT_REVISION": "1"}  # which the older one does not know
    path = {"PYTHONPATH": str(code)}
    older = _older(tmp_path / "old", models, ("-P", "-c", _COMMAND), **environ, **path)
    held_out = {"routes": [{"id": "r", "holdout_share": 0.1, "holdout_arm": CHEAP}], "why": "so"}
    try:
        url = await _url(tmp_path / "old", older)
        async with (
            aiohttp.ClientSession() as session,
            replicas(1, tmp_path, models, postgres, **numbered) as [(new, world)],
        ):
            old = Client(session, url)
            for i in range(6):
                one, other = (old, new) if i % 2 else (new, old)
                id = (await one.decide(embedding=a_vector(i)))["decision_id"]
                assert await patiently(other, id, 1.0) == "accepted"
            assert (await change(new, held_out))[0] == 200  # its route waits

            async def compared() -> bool:
                rows = (await new.get("/v1/replicas"))[1]["replicas"]
                assert sorted(row["reads"] for row in rows) == [5, ev.READS]
                assert not any(row["differs"] for row in rows)
                return [row["differs"] for row in rows].count(False) == len(rows)

            await until(compared)
            assert "r" not in world.routes.specs
            older.terminate()
            assert await asyncio.to_thread(older.wait, 60) == 0

            async def followed() -> bool:
                return "r" in world.routes.specs

            await until(followed)
            assert world.routes.specs["r"].holdout_share == 0.1
    finally:
        if older.poll() is None:
            older.kill()
            older.wait(60)
