"""What deploy/ has for replicas on NATS JetStream, with its servers by their own configuration."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bandit_service import settings
from loadtest.nats import Nats
from loadtest.ports import free_port
from store.jetstream import JetStreamLog
from tests import shared_log
from tests.monitoring.files import DEPLOY, compose_agrees, documents

REPLICAS = ["replica-1", "replica-2", "replica-3"]
SERVERS = ["nats-1", "nats-2", "nats-3"]
TEXT = (DEPLOY / "compose.jetstream.yaml").read_text(encoding="utf-8")


def _compose() -> dict[str, Any]:
    (compose,) = documents("compose.jetstream.yaml")
    found: dict[str, Any] = compose
    return found


def _secrets(directory: Path) -> None:
    """nats-user and nats-dsn, by the commands of the head of the file."""
    head = [line.removeprefix("#   ") for line in TEXT.splitlines() if line.startswith("#   ")]
    made = [line for line in head if line.startswith(("password=", "printf"))]
    assert len(made) == 3
    subprocess.run(["sh", "-euc", "\n".join(made)], cwd=directory, check=True)


def test_compose_agrees_with_its_file(tmp_path: Path) -> None:
    compose_agrees("compose.jetstream.yaml", "nats-1", tmp_path)


def test_its_replicas_are_those_of_the_other_file(tmp_path: Path) -> None:
    compose, (other,) = _compose(), documents("compose.scale.yaml")
    services = compose["services"]
    assert sorted(services) == sorted([*REPLICAS, *SERVERS, "proxy", "prometheus"])
    for name in ("proxy", "prometheus"):
        assert services[name] == other["services"][name]
    differs = {"secrets", "volumes", "depends_on"}
    for name in REPLICAS:
        one, two = services[name], other["services"][name]
        assert {k: v for k, v in one.items() if k not in differs} == {
            k: v for k, v in two.items() if k not in differs
        }
    for name in (*REPLICAS, *SERVERS):
        assert services[name]["read_only"]
        assert services[name]["volumes"][0] == f"{name}:/data"
        assert name in compose["volumes"]
        assert "ports" not in services[name]
        for mount in services[name]["volumes"][1:]:
            assert (DEPLOY / mount.split(":")[0]).is_file()
    _secrets(tmp_path)
    config = (DEPLOY / "bandit.jetstream.toml").read_text(encoding="utf-8")
    mounted = {each["target"] for each in services["replica-1"]["secrets"]}
    assert mounted == set(re.findall(r'"(/run/secrets/\S+)"', config))
    (tmp_path / "keys.toml").write_text((DEPLOY / "keys.toml").read_text(encoding="utf-8"))
    (tmp_path / "bandit.toml").write_text(config.replace("/run/secrets", str(tmp_path)))
    chosen = settings.read(tmp_path / "bandit.toml", services["replica-1"]["environment"])
    assert chosen.log.engine == "jetstream"
    assert not settings.exposure(chosen)
    assert re.findall(r"[@,](nats-\d):4222", chosen.dsn) == SERVERS


@contextmanager
def _servers(directory: Path) -> Iterator[list[Nats]]:
    """The three of the compose file, by its configuration, its names and its secrets.

    Each has the paths and the addresses that its container would have, as they can be had here.
    """
    services = _compose()["services"]
    text = (DEPLOY / "nats" / "nats.conf").read_text(encoding="utf-8")
    found = [Nats(directory / name, "") for name in SERVERS]
    routes = dict(zip(SERVERS, (free_port() for _ in SERVERS), strict=True))
    for name, port in routes.items():
        text = text.replace(f"nats://{name}:6222", f"nats://127.0.0.1:{port}")
    for name, server in zip(SERVERS, found, strict=True):
        assert services[name]["command"] == ["--config", "/etc/nats/nats.conf", "--name", name]
        (config,) = (v for v in services[name]["volumes"] if v.endswith("/etc/nats/nats.conf:ro"))
        assert config.split(":")[0] == "./nats/nats.conf"
        place = directory / name / "etc" / "nats"
        place.mkdir(parents=True)
        (directory / name / "run" / "secrets").mkdir(parents=True)
        (secret,) = services[name]["secrets"]
        made = (directory / "nats-user").read_text()
        (directory / name / "run" / "secrets" / secret).write_text(made)
        mine = (
            text.replace("0.0.0.0:4222", f"127.0.0.1:{server.port}")
            .replace("127.0.0.1:8222", f"127.0.0.1:{server._http}")
            .replace("0.0.0.0:6222", f"127.0.0.1:{routes[name]}")
            .replace('"/data"', f'"{directory / name / "data"}"')
        )
        assert not re.search(r"0\.0\.0\.0|nats-\d:", mine)
        (place / "nats.conf").write_text(mine)
        # as the command line says it: the program of the tests takes the file beside
        (directory / name / "server.conf").write_text(
            f"server_name: {name}\ninclude etc/nats/nats.conf\n"
        )
    try:
        for server in found:
            server.start()
        for server in found:
            server.ready()
        yield found
    finally:
        for server in found:
            server.kill()


async def test_its_servers_keep_a_log_as_the_service_demands_it(tmp_path: Path) -> None:
    shared_log.nats_wanted()
    await asyncio.to_thread(_secrets, tmp_path)
    dsn = (tmp_path / "nats-dsn").read_text()
    with _servers(tmp_path) as servers:
        for name, server in zip(SERVERS, servers, strict=True):
            dsn = dsn.replace(f"{name}:4222", f"127.0.0.1:{server.port}")
        log = JetStreamLog(dsn, timeout_s=20.0)
        await log.connect()  # refuses a stream of fewer than three copies
        await log.close()
        for server in servers:
            asked = f"http://127.0.0.1:{server._http}/jsz?config=true"
            with await asyncio.to_thread(urllib.request.urlopen, asked, timeout=60) as told:
                assert json.load(told)["config"]["sync_always"] is True
        wrong = JetStreamLog(re.sub(":[0-9a-f]{32}@", ":not@", dsn), timeout_s=20.0)
        with pytest.raises(Exception, match="lets nobody in"):
            await wrong.connect()
