"""The embedded mode: the same interface, the same log, no server to start."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bandit_client import AsyncClient, Client, Unknown
from tests.service.running import Process, a_vector

ARMS = [
    {"id": "small", "usd_per_mtok_in": 0.1, "usd_per_mtok_out": 0.4},
    {"id": "large", "usd_per_mtok_in": 2.0, "usd_per_mtok_out": 8.0},
]
ROOT = Path(__file__).parents[2]


def test_it_learns_and_its_log_is_a_services(tmp_path: Path, models: Path) -> None:
    data = tmp_path / "var"
    settings = {"policy.name": "epsilon_greedy", "policy.parameters": {}}
    with Client.embedded(data, arms=ARMS, models=models, settings=settings) as client:
        assert {each.id for each in client.arms()} == {"small", "large"}
        assert client.policies().serving.name == "epsilon_greedy"
        made = client.decide("What is 17 * 23?")
        assert client.reward(made, quality=1.0).status == "accepted"
        client.reward_later(embedding=a_vector(1), arm="small", quality=0.5)
        with client.stream() as stream:
            assert stream.decide(embedding=a_vector(2)).result().arm in ("small", "large")
        with pytest.raises(Unknown):
            client.experiment("none")
    with Client.embedded(data, arms=ARMS, models=models, settings=settings) as again:
        assert again.decision(made.decision_id).signals == {"quality": 1.0}
        with pytest.raises(Exception, match="open in another process"):
            Client.embedded(data, arms=ARMS)
    process = Process(data, models)
    try:
        with Client(asyncio.run(process.url())) as served:
            assert served.decision(made.decision_id).signals == {"quality": 1.0}
    finally:
        process.kill()


async def test_the_same_on_a_loop(models: Path) -> None:
    client = AsyncClient.embedded(arms=ARMS, models=models)
    with pytest.raises(RuntimeError, match="does not run yet"):
        _ = client.url
    async with client:
        made = await asyncio.gather(*(client.decide(embedding=a_vector(i)) for i in range(5)))
        for each in made:
            await client.reward_later(each, quality=1.0)
        assert (await client.flush()).delivered == 5
        assert client.url.startswith("http://127.0.0.1:")
        service = client._service
        assert service is not None
        assert service._own is not None
        directory = service._own
        assert await asyncio.to_thread(os.path.isdir, directory)
        # nobody without the key that was made for it is answered
        with Client(client.url, "") as stranger, pytest.raises(Exception, match="unauthorized"):
            await asyncio.to_thread(stranger.arms)
    assert not await asyncio.to_thread(os.path.exists, directory)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"settings": {"policy.nam": "eagle"}},
            "settings: there is no 'policy.nam'; did you mean 'policy.name'",
        ),
        ({"settings": {"policy.name": "eagel"}}, "did you mean"),
        ({"arms": [{"id": "a"}]}, r"arms\[0\]"),
        ({"models": "/nowhere"}, "models: there is no directory /nowhere"),
        ({"config": "/nowhere.toml"}, "/nowhere.toml"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    options: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(ValueError, match=said):
        Client.embedded(**options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_need_not_close_it(tmp_path: Path, models: Path) -> None:
    """The end of the process sends what is queued, and only then ends the service."""
    code = """
import sys
from bandit_client import Batching, Client
client = Client.embedded(sys.argv[1], models=sys.argv[2], batching=Batching(every_s=30))
made = client.decide("hello")
client.reward_later(made, quality=1.0)
print(made.decision_id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "var"), str(models)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Client.embedded(tmp_path / "var", models=models) as client:
        assert client.decision(done.stdout.strip()).signals == {"quality": 1.0}
