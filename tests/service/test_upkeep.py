"""Work beside serving, in real processes: no descriptors, a child that stands still, a crash."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import psutil
import pytest
from aiohttp import web
from yarl import URL

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.http import connections
from bandit_service.runtime import recovery
from bandit_service.runtime.maintenance import Maintenance
from bandit_service.runtime.router import Router
from tests.service.command import command
from tests.service.running import Client, Process, a_vector, opened, serving

ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
EAGER = {"BANDIT_SNAPSHOTS_EVERY_EVENTS": "100", "BANDIT_LOG_FORMAT": "json"}


@contextlib.asynccontextmanager
async def _running(
    data: Path, models: Path, **environ: str
) -> AsyncIterator[tuple[Client, Process]]:
    process = Process(data, models, **EAGER | environ)
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(session, await process.url()), process
    finally:
        process.popen.kill()
        process.popen.wait()


async def _traffic(client: Client, first: int, last: int, **fields: Any) -> list[str]:
    ids = []
    for i in range(first, last):
        decided = await client.decide(embedding=a_vector(i % 40), **fields)
        ids.append(str(decided["decision_id"]))
        assert await client.reward(ids[-1], quality=(i % 10) / 10) == "accepted"
    return ids


async def _until(holds: Callable[[], Awaitable[bool]], within_s: float = 90.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.05)


def _chosen(data: Path, **environ: str) -> settings.Settings:
    return settings.read(None, {"BANDIT_DATA_DIR": str(data), **environ})


def _lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log_path.read_text().splitlines()]


# --- descriptors --------------------------------------------------------------------------


async def test_without_descriptors_upkeep_goes_on_and_the_log_stays_short(
    tmp_path: Path, models: Path
) -> None:
    """At 5a5a85b no snapshot was made any more, untold; and 23,448 lines were logged in 5 s."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        process = Process(tmp_path / "var", models, **EAGER)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    idle: list[socket.socket] = []
    try:
        url = await process.url()
        address = (url.removeprefix("http://").partition(":")[0], int(url.rpartition(":")[2]))
        async with aiohttp.ClientSession() as session:
            client = Client(session, url)
            await client.decide()
            for _ in range(400):
                idle.append(socket.create_connection(address))
            await _traffic(client, 0, 80)

            async def made() -> bool:
                return bool(list((tmp_path / "var" / "snapshots").glob("*.snapshot")))

            await _until(made)
            status, ready = await client.get("/readyz")
            assert (status, ready["status"]) == (200, "ready")
            answer = await asyncio.to_thread(_read, address)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "busy"
        assert psutil.Process(process.popen.pid).num_fds() < 256
        assert len([line for line in _lines(process) if "endpoint" not in line]) < 40
    finally:
        for each in idle:
            each.close()
        process.popen.kill()
        process.popen.wait()


async def test_calls_that_find_no_descriptor_blame_no_arm_and_leave_some_for_upkeep(
    tmp_path: Path, models: Path
) -> None:
    """On 164cc0c0 calls took the last ones: no snapshot as long as connections were kept open,
    and each call that found none was a failure of its arm."""
    go, seen = asyncio.Event(), list[int]()

    async def slow(request: web.Request) -> web.Response:
        await request.read()
        await go.wait()
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_post("/{path:.*}", slow)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    arm = {"id": "a", "usd_per_mtok_in": 1, "usd_per_mtok_out": 1, "upstream": "p"}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        process = Process(
            tmp_path / "var",
            models,
            BANDIT_ARMS=json.dumps([arm]),
            BANDIT_UPSTREAMS=json.dumps([{"id": "p", "base_url": provider}]),
            BANDIT_LOG_FORMAT="json",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        url = await process.url()
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask() -> None:
                try:
                    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                        seen.append(answer.status)
                        if answer.status != 200:
                            assert "descriptors" in await answer.text()
                except aiohttp.ClientError:  # the connection itself was one too many
                    seen.append(503)

            # the client's connections that are answered are kept open, and used again
            asked = [asyncio.create_task(ask()) for _ in range(170)]

            async def refused() -> bool:
                return len(seen) > 30

            await _until(refused)
            client = Client(session, url)
            status, made = await client.post("/v1/snapshots", {})
            assert status == 200, made
            go.set()
            await asyncio.gather(*asked)
        assert set(seen) == {200, 503}
        assert [each for each in _lines(process) if each["message"] == "upstream failed"] == []
        assert process.stop() == 0
    finally:
        process.popen.kill()
        process.popen.wait()
        await runner.cleanup()


def _read(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=60) as one:
        return one.recv(4096)


async def test_of_one_kind_of_error_the_loop_tells_a_line_a_second() -> None:
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.default_exception_handler = told.append  # type: ignore[method-assign, assignment]
    for _ in range(1000):
        connections.tell_seldom(loop, {"message": "some error", "exception": KeyError()})
    assert len(told) == 1


# --- children -----------------------------------------------------------------------------


async def test_a_child_that_stands_still_is_killed_and_counted_and_erasure_goes_on(
    tmp_path: Path, models: Path
) -> None:
    """At 5a5a85b a snapshot and an erasure waited for it for ever, and no metric said so."""
    stopped: set[int] = set()
    async with _running(
        tmp_path / "var",
        models,
        BANDIT_SNAPSHOTS_STALLED_S="2",
        BANDIT_SNAPSHOTS_EVERY_S="86400",
        BANDIT_SNAPSHOTS_EVERY_EVENTS="1000000",
    ) as (client, process):
        await _traffic(client, 0, 5, unit="ann")
        stopping = asyncio.create_task(_stop_children(process.popen.pid, stopped))
        try:
            async with asyncio.timeout(60):
                status, said = await client.post("/v1/snapshots", {})
                assert status == 503
                assert "took no step for 2 s" in said["error"]["message"]
                status, said = await client.call("DELETE", "/v1/units/ann")
                assert status == 503
                assert "erased as soon as that can be" in said["error"]["message"]
        finally:
            stopping.cancel()
        assert stopped
        assert not any(psutil.pid_exists(pid) for pid in stopped)
        async with client.session.get(f"{client.url}/metrics") as answer:
            text = await answer.text()
        assert f"bandit_children_ended_total {len(stopped):.1f}" in text

        async def erased() -> bool:
            _, body = await client.get("/readyz")
            return body["status"] == "ready" and "erased" in process.log_path.read_text()

        await _until(erased)


async def test_who_erases_what_is_being_erased_is_told_how_much_it_was(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 0e17ee51 upkeep, or a second request, erased it twice: one was told {"erased": 0}."""
    asked, both = 0, asyncio.Event()
    forget, snapshot = Router.forget, Maintenance.snapshot

    async def forgotten(*arguments: Any) -> Any:
        nonlocal asked
        owner = await forget(*arguments)
        asked += 1
        if asked == 2:
            both.set()
        return owner

    async def made(*arguments: Any, **more: Any) -> Any:
        await both.wait()
        return await snapshot(*arguments, **more)

    async with serving(tmp_path / "var", models) as client:
        await _traffic(client, 0, 5, unit="ann")
        monkeypatch.setattr(Router, "forget", forgotten)
        monkeypatch.setattr(Maintenance, "snapshot", made)
        told = await asyncio.gather(*(client.call("DELETE", "/v1/units/ann") for _ in range(2)))
        assert told == [(200, {"erased": 10})] * 2
        assert await client.call("DELETE", "/v1/units/ann") == (200, {"erased": 0})


async def _stop_children(pid: int, stopped: set[int]) -> None:
    while True:
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                # before it is Python the service itself waits for it, as for any new process
                ready = "bandit_service.runtime.folding" in child.cmdline()
                if ready and child.pid not in stopped and child.status() != psutil.STATUS_ZOMBIE:
                    os.kill(child.pid, signal.SIGSTOP)
                    stopped.add(child.pid)
        await asyncio.sleep(0.01)


async def test_what_a_child_says_before_it_ends_is_told(tmp_path: Path, models: Path) -> None:
    """At 5a5a85b the cause, a full disk, was plain text on stderr; our line had none."""
    async with opened(tmp_path / "var", models) as (client, _):
        await client.decide()
        shutil.rmtree(tmp_path / "var" / "snapshots")
        (tmp_path / "var" / "snapshots").write_text("in the way")
        status, said = await client.post("/v1/snapshots", {})
        assert status == 503
        message = said["error"]["message"]
        assert "the folding process ended early: " in message
        assert "cannot be written (File exists)" in message
        assert message.count("make space") == 1
        (tmp_path / "var" / "snapshots").unlink()
        (tmp_path / "var" / "snapshots").mkdir()
        assert (await client.post("/v1/snapshots", {}))[0] == 200


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), MemoryError(), RuntimeError()]
)
async def test_a_child_that_cannot_be_started_is_told_and_tried_again(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """At 5a5a85b `DELETE /v1/units` answered 500, and nothing was erased until a restart."""
    monkeypatch.setattr("bandit_service.runtime.maintenance._LOOK_S", 0.02)
    monkeypatch.setattr("bandit_service.runtime.maintenance._AGAIN_S", 0.1)

    async def fails(*_: object, **__: object) -> None:
        raise error

    async with opened(tmp_path / "var", models) as (client, world):
        await _traffic(client, 0, 2, unit="ann")
        with monkeypatch.context() as patched:
            patched.setattr("asyncio.create_subprocess_exec", fails)
            status, said = await client.call("DELETE", "/v1/units/ann")
            assert status == 503
            assert "no process could be started" in said["error"]["message"]

            async def told() -> bool:
                _, body = await client.get("/readyz")
                return body["status"] == "degraded" and "erasure" in body["failing"]

            await _until(told)
            async with client.session.get(f"{client.url}/metrics") as answer:
                text = await answer.text()
            assert 'bandit_task_failing{task="erasure"} 1.0' in text
        await _until(lambda: _ready(client))
        assert world.erasures.owners == {}


async def _ready(client: Client) -> bool:
    return bool((await client.get("/readyz"))[1]["status"] == "ready")


@pytest.mark.parametrize("task", ["sweep", "upkeep", "lag", "steer", "commit"])
async def test_each_long_lived_task_survives_what_its_loop_does_not_expect(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    where = {
        "sweep": "bandit_service.runtime.pending_decisions.PendingDecisions.sweep",
        "upkeep": "bandit_service.runtime.maintenance.time",
        "lag": "bandit_service.app.gauges.time",
        "steer": "bandit_service.runtime.experiment_monitor.Background._steer",
        "commit": "bandit_service.runtime.group_commit.GroupCommit.sync",
    }[task]
    for quick in ("maintenance._LOOK_S", "supervisor.FIRST_S"):
        monkeypatch.setattr(f"bandit_service.runtime.{quick}", 0.02)
    more = {"BANDIT_EXPERIMENT_RULES_STEER_S": "0.1", "BANDIT_REWARD_TTL_S": "1"}
    async with opened(tmp_path / "var", models, **more) as (client, _):
        if task == "steer":
            arms = {"a": "gemini-2.5-pro", "b": "mistral-large-2512"}
            variants = [{"key": key, "weight": 0.5, "arm": arm} for key, arm in arms.items()]
            assert (await client.call("PUT", "/v1/experiments/e", {"variants": variants}))[0] < 300
        with monkeypatch.context() as patched:
            patched.setattr(where, fails)

            async def told() -> bool:
                if task == "commit":
                    await client.decide()  # which is to be synced
                _, body = await client.get("/readyz")
                return task in body.get("failing", {})

            await _until(told)
        await _until(lambda: _ready(client))
        assert await client.reward((await client.decide())["decision_id"], quality=1) == "accepted"


# --- after a crash ------------------------------------------------------------------------


async def _switched(client: Client, to: str) -> None:
    status, body = await client.call("PUT", "/v1/policy", {"name": to})
    assert status in (200, 202), body

    async def serves() -> bool:
        return bool((await client.get("/v1/policies"))[1]["serving"]["name"] == to)

    await _until(serves)


@pytest.mark.parametrize("snapshots", ["there", "of before only", "none"])
async def test_after_a_crash_the_policy_decides_that_the_log_says(
    tmp_path: Path, models: Path, snapshots: str
) -> None:
    """At 5a5a85b metallm was back, and its decisions were logged with the key of knn."""
    data, quiet = tmp_path / "var", {"BANDIT_SNAPSHOTS_EVERY_EVENTS": "1000000"}
    async with _running(data, models, BANDIT_POLICY_NAME="metallm", **quiet) as (client, process):
        await _traffic(client, 0, 20)
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        await _switched(client, "knn")
        process.kill()
    for file in (data / "snapshots").glob("*.snapshot"):
        if snapshots == "none" or (snapshots == "of before only" and file.name.startswith("knn")):
            file.unlink()
    async with _running(data, models, BANDIT_POLICY_NAME="metallm", **quiet) as (client, process):
        _, told = await client.get("/v1/policies")
        assert (told["serving"]["name"], "folding" in told) == ("knn", False)
        decided = await client.decide()
        process.kill()
    chosen = _chosen(data, BANDIT_POLICY_NAME="metallm")
    log = assembly.open_log(chosen)
    try:
        last = next(
            event
            for event in map(ev.decode, (body for _, body in log.replay()))
            if isinstance(event, ev.Decided) and event.id == decided["decision_id"]
        )
        short = recovery.recover(log, chosen, assembly.open_snapshots(chosen))
        whole = recovery.replayed(log, chosen, short.policy)
    finally:
        log.close()
    assert (last.policy, last.key.startswith("knn")) == ("knn", True)
    assert short.policy.name == "knn"
    assert short.world.digest() == whole.world.digest()


async def test_while_another_policy_is_folded_decisions_name_the_one_that_makes_them(
    tmp_path: Path, models: Path
) -> None:
    """The configuration has changed: the old one decides until the new one is folded."""
    data = tmp_path / "var"
    async with opened(data, models, BANDIT_POLICY_NAME="metallm") as (client, world):
        await _traffic(client, 0, 5)
        key = world.policy.key
    async with opened(data, models, BANDIT_POLICY_NAME="knn") as (client, world):
        decided = await client.decide()
        if decided["policy"] == "metallm":
            assert world.pending.decisions[decided["decision_id"]].decided.key == key

        async def serves() -> bool:
            return world.serving == "knn"

        await _until(serves)
        decided = await client.decide()
        assert (
            world.pending.decisions[decided["decision_id"]].decided.key == world.policy.key != key
        )


@pytest.mark.parametrize("where", ["snapshot beyond the end", "wal", "mark"])
async def test_a_lost_end_refuses_the_start_and_nothing_is_deleted(
    tmp_path: Path, models: Path, where: str
) -> None:
    """At 5a5a85b 6 of 95 events were there, ready; the snapshot that knew more was deleted."""
    data = tmp_path / "var"
    async with _running(data, models) as (client, process):
        ids = await _traffic(client, 0, 20)
        assert (await client.post("/v1/snapshots", {}))[0] == 200
        ids += await _traffic(client, 20, 25)
        process.kill()
    wal, mark = data / "events.sqlite3-wal", data / "events.sqlite3-synced"
    content = bytearray(wal.read_bytes())
    if where == "wal":
        content[len(content) // 2] ^= 8
        wal.write_bytes(content)
    else:
        os.truncate(wal, len(content) // 3)
        if where == "snapshot beyond the end":
            mark.unlink()
    before = {each.name: each.read_bytes() for each in (data / "snapshots").iterdir()}
    refused = Process(data, models)
    assert await asyncio.to_thread(refused.popen.wait, 60) == 1
    said = refused.log_path.read_text().strip().splitlines()[-1]
    assert "the log is damaged at offset" in said
    assert "bandit-service inspect --repair" in said
    assert "Traceback" not in refused.log_path.read_text()
    assert {each.name: each.read_bytes() for each in (data / "snapshots").iterdir()} == before
    code, told = await _inspected(data, "--repair")
    assert (code, told["repaired"], told["set_aside"]) == (0, True, [])
    async with _running(data, models) as (client, process):
        known = [await client.reward(id, quality=(i % 10) / 10) for i, id in enumerate(ids[:20])]
        assert known == ["duplicate"] * 20  # of which the snapshot still knows
        process.kill()


async def _inspected(data: Path, *more: str) -> tuple[int, Any]:
    said = await command("inspect", "--json", *more, BANDIT_DATA_DIR=str(data))
    return said.status, json.loads(said.out)


async def test_without_the_snapshots_that_knew_what_was_erased_a_start_says_so(
    tmp_path: Path, models: Path
) -> None:
    """At 5a5a85b it was another state without a word, and `inspect` always hashed that one."""
    data = tmp_path / "var"
    async with opened(data, models) as (client, world):
        await _traffic(client, 0, 5, unit="ann")
        await _traffic(client, 5, 10)
        assert (await client.call("DELETE", "/v1/units/ann"))[1] == {"erased": 10}
        digest = world.digest()
    _, found = await _inspected(data)
    assert found["log_alone_sha256"] != found["state_sha256"]
    assert (found["state_sha256"] == digest, "unknown" in found) == (True, False)
    for file in (data / "snapshots").iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    _, found = await _inspected(data)
    assert found["unknown"].startswith("10 records are erased or lost")
    assert found["state_sha256"] != digest
    async with _running(data, models) as (client, process):
        warned = [
            line
            for line in _lines(process)
            if "erased or lost events is unknown" in line["message"]
        ]
        assert [line["events"] for line in warned] == [10]
        async with client.session.get(f"{client.url}/metrics") as answer:
            assert "bandit_recovery_unknown_events 10.0" in await answer.text()


# --- names, numbers, files ----------------------------------------------------------------


@pytest.mark.parametrize("id", ["{", "a}b", "{id}", "a/b", "ä {x}", "%7B", "a.b"])
async def test_an_arm_of_any_allowed_name_has_a_path(client: Client, id: str) -> None:
    """At 5a5a85b one with a brace was a 404."""
    body = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 2.0}
    url = URL(f"{client.url}/v1/arms/{quote(id, safe='')}", encoded=True)
    for method, name in (("PUT", "id"), ("DELETE", "id")):
        data = json.dumps(body) if method == "PUT" else None
        async with client.session.request(method, url, data=data) as answer:
            said = await answer.json()
            assert answer.status in (200, 201), said
            assert said[name] == id


async def test_the_path_in_metrics_and_the_document_is_as_before(client: Client) -> None:
    await client.get("/v1/decisions/none")
    async with client.session.get(f"{client.url}/metrics") as answer:
        assert 'endpoint="/v1/decisions/{id}",code="404"' in (await answer.text()).replace(
            'code="404",endpoint="/v1/decisions/{id}"', 'endpoint="/v1/decisions/{id}",code="404"'
        )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/arms/z", {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1, "context_window": "N"}),
        ("PUT", "/v1/arms/z", {"usd_per_mtok_in": 1, "usd_per_mtok_out": 1, "max_running": "N"}),
        ("PUT", "/v1/policy", {"name": "knn", "parameters": {"neighbours": "N"}}),
        ("PUT", "/v1/policy", {"name": "metallm", "parameters": {"alpha": "N"}}),
        ("POST", "/v1/rewards", {"decision_id": "x", "quality": 1, "extra": ["N"]}),
    ],
)
async def test_a_number_of_any_length_is_refused_by_its_name(
    client: Client, method: str, path: str, body: dict[str, Any]
) -> None:
    """At 5a5a85b 500: OverflowError where the refusal was to be put in words."""
    raw = json.dumps(body).replace('"N"', "1" + 400 * "0").encode()
    status, said = await client.call(method, path, raw)
    assert status == 400, said
    assert "must fit in 64 bits" in said["error"]["message"]
    assert said["error"]["param"]


def test_a_number_of_any_length_in_a_configuration_is_a_mistake_that_is_told() -> None:
    arms = json.dumps([{"id": "a", "usd_per_mtok_in": 1, "usd_per_mtok_out": 1}])
    wrong = arms.replace('"a",', f'"a", "context_window": 1{400 * "0"},')
    with pytest.raises(settings.BadSettings) as said:
        settings.read(None, {"BANDIT_ARMS": wrong})
    assert said.value.mistakes == ["arms[0].context_window: integers must fit in 64 bits"]


async def test_no_file_of_the_service_is_for_other_users(tmp_path: Path, models: Path) -> None:
    """At 5a5a85b the log and the snapshots were 0644, and the directory 0755."""
    before = os.umask(0o022)
    data = tmp_path / "new" / "var"
    try:
        assembly.open_log(_chosen(data)).close()
        assert data.stat().st_mode & 0o777 == 0o700
        async with serving(data, models) as client:
            await client.decide()
            assert (await client.post("/v1/snapshots", {}))[0] == 200
        ours = [data / "snapshots", *data.glob("events*"), *(data / "snapshots").iterdir()]
        assert len(ours) >= 3
        assert [each for each in ours if each.stat().st_mode & 0o077] == []
    finally:
        os.umask(before)


async def test_a_file_of_keys_that_others_can_read_is_told(tmp_path: Path, models: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nid = "a"\nhash = "{"0" * 64}"\nscopes = ["read"]\n')
    keys.chmod(0o644)
    more = {"BANDIT_SECURITY_KEYS_FILE": str(keys), "BANDIT_LOG_LEVEL": "warning"}
    async with _running(tmp_path / "var", models, **more) as (_, process):
        told = [line for line in _lines(process) if "can read a file" in line["message"]]
        assert [line["path"] for line in told] == [str(keys)]
        assert f"chmod 400 {keys}" in told[0]["why"]
