"""A service under test: in this process on a free port, or as a process that can be killed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from bandit_service import settings
from bandit_service.app import service
from bandit_service.core.world import World
from bandit_service.http import middleware
from loadtest.forks import fork, start

DIM = 384


def a_vector(seed: int) -> list[float]:
    """A unit vector of the default model's length."""
    vector = np.random.default_rng(seed).normal(size=DIM)
    return [float(x) for x in vector / np.linalg.norm(vector)]


class Client:
    """JSON over HTTP; every call gives (status, body)."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str = "") -> None:
        self.session, self.url, self._key = session, url, key

    @property
    def headers(self) -> dict[str, str]:
        """What says who asks."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def by(self, key: str) -> Client:
        """The same service, asked with this API key."""
        return Client(self.session, self.url, key)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        async with self.session.request(
            method, self.url + path, data=data, headers=self.headers
        ) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        return await self.call("POST", path, body)

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.call("GET", path)

    async def decide(self, **fields: Any) -> dict[str, Any]:
        """A decision that is expected to be made; by default for some embedding."""
        if not {"query", "messages", "embedding"} & set(fields):
            fields["embedding"] = a_vector(0)
        status, body = await self.post("/v1/decide", fields)
        assert status == 200, body
        decided: dict[str, Any] = body
        return decided

    async def begin(self, experiment: str, why: str = "") -> None:
        """Start an experiment, and wait until its policies are folded and it runs."""
        path = f"/v1/experiments/{experiment}"
        status, body = await self.post(f"{path}/start", {"why": why})
        assert status in (200, 202), body
        async with asyncio.timeout(240):
            while body["status"] == "starting":
                await asyncio.sleep(0.02)
                _, body = await self.get(path)
        assert body["status"] == "running", body

    async def reward(self, decision_id: str, **signals: Any) -> str:
        """The status of one reward that is expected to be taken."""
        status, body = await self.post("/v1/rewards", {"decision_id": decision_id, **signals})
        assert status == 200, body
        return str(body["results"][0]["status"])


def prepare(data_dir: Path, models: Path) -> None:
    """The service's directory, with the models that were exported before."""
    data_dir.mkdir(exist_ok=True)
    if not (data_dir / "models").exists():
        (data_dir / "models").symlink_to(models, target_is_directory=True)


@asynccontextmanager
async def serving(data_dir: Path, models: Path, **environ: str) -> AsyncIterator[Client]:
    """A service in this process, on a free port, with the model that was exported before."""
    async with opened(data_dir, models, **environ) as (client, _):
        yield client


@asynccontextmanager
async def opened(
    data_dir: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Client, World]]:
    """The same, and the world behind it."""
    prepare(data_dir, models)
    chosen = settings.read(
        None, {"BANDIT_DATA_DIR": str(data_dir), "BANDIT_SERVER_PORT": "0", **environ}
    )
    async with service.serving(chosen) as (url, running), aiohttp.ClientSession() as session:
        yield Client(session, url), running[middleware.ROUTER].world


class Process:
    """`bandit-service serve` as a process of its own."""

    def __init__(self, data_dir: Path, models: Path, *, config: str = "", **environ: str) -> None:
        self.data_dir = data_dir
        prepare(data_dir, models)
        self._ready = data_dir / "ready.json"
        self._ready.unlink(missing_ok=True)
        self.log_path = data_dir / "stderr.log"
        arguments = ["serve", "--port", "0", "--ready-file", str(self._ready)]
        arguments += ["--config", config] if config else []
        whole = os.environ | {"BANDIT_DATA_DIR": str(data_dir), **environ}  # noqa: TID251 - passed on
        # What Python reads at its start, and aiohttp where it is imported.
        early = any(name.startswith("PYTHON") or name == "SSL_CERT_FILE" for name in environ)
        begin = start if early else fork
        self.popen = begin(arguments, whole, self.log_path)

    async def url(self) -> str:
        """Where it listens, once it does."""
        async with asyncio.timeout(120):
            while (ready := self._read_ready()) is None:
                await asyncio.sleep(0.02)
        return str(json.loads(ready)["url"])

    def _read_ready(self) -> str | None:
        assert self.popen.poll() is None, self.log_path.read_text()
        return self._ready.read_text() if self._ready.exists() else None

    def kill(self) -> None:
        """kill -9."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(60)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(60)
