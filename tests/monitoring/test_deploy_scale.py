"""What deploy/ has for several replicas, each by its own tool where there is one."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from bandit_service import settings
from loadtest import postgres
from loadtest.ports import free_port
from loadtest.postgres import Postgres
from tests import shared_log
from tests.monitoring.files import DEPLOY, compose_agrees, documents
from tests.service.running import Client, a_vector, opened
from tests.service.test_replicas import patiently, same, shared

REPLICAS = ["replica-1", "replica-2", "replica-3"]


def _compose() -> dict[str, Any]:
    (compose,) = documents("compose.scale.yaml")
    found: dict[str, Any] = compose
    return found


def _configured(text: str, tmp_path: Path) -> settings.Settings:
    """What a configuration says, with its secrets where the test has them."""
    for name, content in {
        "keys.toml": f'[[keys]]\nid = "app"\nhash = "{"0" * 64}"\nscopes = ["decide"]\n',
        "dsn": _dsn(),
    }.items():
        (tmp_path / name).write_text(content)
    text = re.sub(r'"/run/secrets/[^"]*keys.toml"', f'"{tmp_path / "keys.toml"}"', text)
    text = re.sub(r'"/run/secrets/[^"]*dsn"', f'"{tmp_path / "dsn"}"', text)
    (tmp_path / "bandit.toml").write_text(text)
    return settings.read(tmp_path / "bandit.toml", {})


def _dsn() -> str:
    """As the head of compose.scale.yaml has it made."""
    text = (DEPLOY / "compose.scale.yaml").read_text(encoding="utf-8")
    (found,) = re.findall(r"printf '(postgresql://\S+)'", text)
    return str(found) % "secret"


def test_compose_agrees_with_its_file(tmp_path: Path) -> None:
    compose_agrees("compose.scale.yaml", "postgres", tmp_path)


def test_each_replica_has_a_volume_of_its_own_and_all_one_configuration(tmp_path: Path) -> None:
    compose = _compose()
    services = compose["services"]
    assert [name for name in services if name.startswith("replica")] == REPLICAS
    data = {
        mount.split(":")[0]
        for name in REPLICAS
        for mount in services[name]["volumes"]
        if mount.endswith(":/data")
    }
    assert data == set(REPLICAS) <= set(compose["volumes"])
    for name in REPLICAS:
        rest = {key: value for key, value in services[name].items() if key != "volumes"}
        first = {key: value for key, value in services[REPLICAS[0]].items() if key != "volumes"}
        assert rest == first
    chosen = _configured((DEPLOY / "bandit.scale.toml").read_text(encoding="utf-8"), tmp_path)
    assert (chosen.log.engine, chosen.dsn) == ("postgres", _dsn())
    hosts = {
        each.partition(":")[0] for each in _dsn().partition("@")[2].partition("/")[0].split(",")
    }
    assert hosts == {"postgres", "standby"} <= set(services)
    mounted = {each["target"] for each in services[REPLICAS[0]]["secrets"]}
    named = re.findall(r'"(/run/secrets/\S+)"', (DEPLOY / "bandit.scale.toml").read_text())
    assert mounted == set(named)


def test_what_is_mounted_is_there_and_published_on_loopback_only() -> None:
    compose = _compose()
    for service in compose["services"].values():
        assert {"image", "build"} & set(service)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (
                (DEPLOY / source).exists()
                if source.startswith(".")
                else source in compose["volumes"]
            )
        for secret in service.get("secrets", ()):
            assert (secret if isinstance(secret, str) else secret["source"]) in compose["secrets"]


def test_the_proxy_and_prometheus_know_every_replica() -> None:
    text = (DEPLOY / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    assert re.findall(r"^\s*server (replica-\d):8080", text, re.MULTILINE) == REPLICAS
    assert "least_conn;" in text
    (scraped,) = documents("prometheus/prometheus.scale.yaml")
    (static,) = scraped["scrape_configs"][0]["static_configs"]
    assert static["targets"] == [f"{name}:8080" for name in REPLICAS]
    allowed = _compose()["services"][REPLICAS[0]]["environment"]["BANDIT_SERVER_ALLOWED_HOSTS"]
    assert allowed.split(",") == REPLICAS


def test_the_manifests_are_by_the_schema_and_fit_together(tmp_path: Path) -> None:
    found = documents("kubernetes/replicas.yaml")
    for each in found:
        kubernetes_validate.validate(each, "1.30", strict=True)
    budget, _, service, pods, scaler, workload = found
    assert [each["kind"] for each in found] == [
        "PodDisruptionBudget",
        "ConfigMap",
        "Service",
        "Service",
        "HorizontalPodAutoscaler",
        "StatefulSet",
    ]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    for selects in (service["spec"]["selector"], pods["spec"]["selector"]):
        assert selects.items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert workload["spec"]["serviceName"] == pods["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]
    # a new pod that folds by another key is refused as long as an old one is there
    assert workload["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert budget["spec"]["maxUnavailable"] < scaler["spec"]["minReplicas"]
    assert "replicas" not in workload["spec"], "they are the autoscaler's"
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert environ["BANDIT_LOG_ENGINE"] == "postgres"
    (path,) = {each["mountPath"] for each in container["volumeMounts"] if each["name"] == "secrets"}
    assert environ["BANDIT_LOG_DSN_FILE"] == f"{path}/dsn"
    scaler["spec"]["maxReplica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(scaler, "1.30", strict=True)


@dataclass
class _Standby:
    """What standby.sh runs. dsn: names the primary and it."""

    dsn: str
    run: Callable[[], subprocess.Popen[bytes]]
    promote: Callable[[], object]
    said: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = self.run()

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def _with_a_standby(server: Postgres, directory: Path) -> Iterator[_Standby]:
    """The primary made by primary.sh, a standby by standby.sh."""
    as_user, programs = postgres._user(), postgres.programs()
    port, data = free_port(), directory / "pgdata"
    directory.mkdir(mode=0o755)
    data.mkdir()
    secret = directory / "password"
    secret.write_text(server._password)
    for each in (directory, data, secret):
        server._own(each)
    environ = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PRIMARY_HOST": "127.0.0.1",
        "PRIMARY_PORT": str(server.port),
        "PASSWORD_FILE": str(secret),
    }
    made = environ | {"PGDATA": str(server._data)}
    subprocess.run(["sh", str(DEPLOY / "postgres" / "primary.sh")], env=made, check=True, **as_user)
    server.stop()
    server.start()
    said = directory / "standby.log"
    # a shell cannot trap a signal that is ignored where it begins, as those of a job beside are
    shell = ["env", "--default-signal", "sh"]
    script = [
        *shell,
        str(DEPLOY / "postgres" / "standby.sh"),
        "-p",
        str(port),
        "-k",
        str(directory),
    ]

    def run() -> subprocess.Popen[bytes]:
        with said.open("ab") as log:
            return subprocess.Popen(
                script,
                env=environ | {"PGDATA": str(data)},
                stdout=log,
                stderr=log,
                cwd="/",
                **as_user,
            )

    def promote() -> None:
        command = [str(programs / "pg_ctl"), "-D", str(data), "promote"]  # type: ignore[operator]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **as_user)

    hosts = f"127.0.0.1:{server.port},127.0.0.1:{port}"
    own = urlsplit(server.dsn)
    dsn = (
        f"postgresql://{own.username}:{own.password}@{hosts}/postgres"
        "?target_session_attrs=read-write"
    )
    standby = _Standby(dsn, run, promote, said)
    standby.start()
    try:
        yield standby
    finally:
        standby.end(signal.SIGQUIT)


async def test_a_failover_to_the_standby_of_these_files_loses_nothing(
    tmp_path: Path, models: Path
) -> None:
    shared_log.wanted()
    with postgres.running() as server:
        place = server._directory.with_name(server._directory.name + "-standby")
        try:
            with _with_a_standby(server, place) as standby:
                environ = shared(tmp_path, server) | {
                    "THE_DSN": standby.dsn,
                    "BANDIT_LOG_TIMEOUT_S": "10",
                }
                await _through_a_failover(server, standby.promote, tmp_path, models, environ)
        finally:
            shutil.rmtree(place, ignore_errors=True)


async def test_a_standby_that_was_away_for_too_long_is_copied_again(tmp_path: Path) -> None:
    shared_log.wanted()
    import asyncpg

    with postgres.running() as server:
        place = server._directory.with_name(server._directory.name + "-standby")
        try:
            with _with_a_standby(server, place) as standby:
                database = await asyncpg.connect(server.dsn)
                try:
                    await _away_for_too_long(database, standby)
                finally:
                    await database.close()
        finally:
            shutil.rmtree(place, ignore_errors=True)


async def _away_for_too_long(database: Any, standby: _Standby) -> None:
    await database.execute("SET synchronous_commit = local")  # this one waits for no standby
    await database.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    await database.execute("SELECT pg_reload_conf()")
    await _streams(database, standby)
    assert standby.end(signal.SIGINT) == 0
    async with asyncio.timeout(60):
        while await database.fetchval("SELECT wal_status FROM pg_replication_slots") != "lost":
            await database.execute("SELECT pg_logical_emit_message(false, 'a', repeat('a', 1000))")
            await database.execute("SELECT pg_switch_wal()")
            await database.execute("CHECKPOINT")
    await database.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    await database.execute("SELECT pg_reload_conf()")
    assert "copied again" not in standby.said.read_text()
    standby.start()
    await _streams(database, standby)
    assert "copied again" in standby.said.read_text()
    assert await database.fetchval("SELECT wal_status FROM pg_replication_slots") != "lost"
    # one that follows is not copied again, whenever it is started
    before = standby.said.read_text().count("copied again")
    assert standby.end(signal.SIGTERM) == 0
    standby.start()
    await _streams(database, standby)
    assert standby.said.read_text().count("copied again") == before


async def _streams(database: Any, standby: _Standby) -> None:
    """Wait until the standby follows by its slot."""
    follows = (
        "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s "
        "ON s.active_pid = r.pid WHERE r.state = 'streaming' AND s.slot_name = 'standby' "
        "AND r.application_name = 'standby'"
    )
    async with asyncio.timeout(60):
        # while it is copied, the copy reads by the slot
        copied = standby.said.parent / "pgdata" / "copied"
        while not (copied.exists() and await database.fetchval(follows)):
            assert standby.process is not None
            assert standby.process.poll() is None, standby.said.read_text()
            await asyncio.sleep(0.05)


async def _through_a_failover(
    server: Postgres, promote: Any, path: Path, models: Path, environ: dict[str, str]
) -> None:
    async with (
        opened(path / "r0", models, **environ) as (one, first),
        opened(path / "r1", models, **environ) as (other, second),
    ):
        acknowledged = await _rewarded(one, other, 0, 10)
        server.kill()
        during = [(await one.decide(embedding=a_vector(i)))["decision_id"] for i in range(3)]
        promote()
        for id in acknowledged:
            assert await patiently(other, id, 0.5) == "duplicate"
        for id in during:
            assert await patiently(other, id, 0.5) == "accepted"
        await _rewarded(other, one, 10, 14)
        await same([first, second])
        assert first.rewards == 17


async def _rewarded(one: Client, other: Client, begin: int, end: int) -> list[str]:
    ids = []
    for i in range(begin, end):
        ids.append((await one.decide(embedding=a_vector(i)))["decision_id"])
        assert await patiently(other, ids[-1], 0.5) == "accepted"
    return ids
