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

import kubernetes_validate
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
    """The three of the compose file, by its configuration, its command lines and its secrets.

    Each has the paths and the addresses that its container would have, as they can be had here.
    """
    services = _compose()["services"]
    found = [Nats(directory / name, "") for name in SERVERS]
    ports = dict(zip(SERVERS, (free_port() for _ in SERVERS), strict=True))
    for name, server in zip(SERVERS, found, strict=True):
        (volume,) = (each for each in services[name]["volumes"] if each.startswith("./nats"))
        config, path, _ = volume.split(":")
        (secret,) = services[name]["secrets"]
        option, named, *rest = services[name]["command"]
        assert (option, named) == ("--config", path)
        asked = dict(zip(rest[::2], rest[1::2], strict=True))
        for each, port in ports.items():
            asked["--routes"] = asked["--routes"].replace(f"{each}:6222", f"127.0.0.1:{port}")
        place = directory / name
        _write(place / "run" / "secrets" / secret, (directory / "nats-user").read_text())
        text = (DEPLOY / config).read_text(encoding="utf-8")
        for there, here in (
            ("0.0.0.0:4222", f"127.0.0.1:{server.port}"),
            ("0.0.0.0:8222", f"127.0.0.1:{server._http}"),
            (
                "listen: 0.0.0.0:6222",
                f"listen: 127.0.0.1:{ports[name]}, routes: [{asked['--routes']}]",
            ),
            ('"/data"', f'"{place / "data"}"'),
        ):
            assert text.count(there) == 1
            text = text.replace(there, here)
        assert "0.0.0.0" not in text
        _write(place / path.lstrip("/"), text)
        # as its command line says; the program of the tests takes the file beside
        inside = f"server_name: {asked['--name']}\ninclude {path.lstrip('/')}\n"
        _write(place / "server.conf", inside)
    try:
        for server in found:
            server.start()
        for server in found:
            server.ready()
        yield found
    finally:
        for server in found:
            server.kill()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


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
        with pytest.raises(Exception, match="rejects the credentials"):
            await wrong.connect()


def test_the_servers_of_kubernetes_are_those_of_compose() -> None:
    config, service, workload, budget = documents("kubernetes/nats.yaml")
    for each in (config, service, workload, budget):
        kubernetes_validate.validate(each, "1.30", strict=True)
    conf = (DEPLOY / "nats" / "nats.conf").read_text(encoding="utf-8")
    assert config["data"] == {"nats.conf": conf}
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    names = [f"{workload['metadata']['name']}-{i}" for i in range(workload["spec"]["replicas"])]
    assert len(names) == 3
    assert workload["spec"]["serviceName"] == service["metadata"]["name"]
    hosts = [f"{name}.{service['metadata']['name']}" for name in names]
    compose = _compose()["services"]["nats-1"]
    assert container["image"] == compose["image"]
    routes = ",".join(f"nats://{host}:6222" for host in hosts)
    assert [*container["args"][:3], *container["args"][4:]] == [
        *compose["command"][:3],
        "--routes",
        routes,
    ]
    assert container["args"][3] == "$(POD)", "each has its own name"
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {"data": "/data", "configuration": "/etc/nats", "user": "/run/secrets"}
    text = (DEPLOY / "kubernetes" / "nats.yaml").read_text(encoding="utf-8")
    (dsn,) = re.findall(r"printf '(nats://\S+)'", text)
    assert _hosts(dsn % "secret") == hosts
    assert "--from-file nats-user" in text
    labels = workload["spec"]["template"]["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        budget["spec"]["selector"]["matchLabels"],
        workload["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert f"http: 0.0.0.0:{ports[container[probe]['httpGet']['port']]}" in conf
    assert budget["spec"]["maxUnavailable"] == 1


def _hosts(dsn: str) -> list[str]:
    """The hosts of an address that the settings take."""
    environ = {"BANDIT_LOG_ENGINE": "jetstream", "BANDIT_LOG_DSN_ENV": "D", "D": dsn}
    found = settings.read(None, environ).dsn
    return re.findall(r"[@,]([^,:@]+):4222", found)
