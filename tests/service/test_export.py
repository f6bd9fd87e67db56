"""`bandit-service export` of a stopped and of a running service, and GET /v1/events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.data.events_frame import FRAME
from bandit_service.data.jsonl import read
from bandit_service.data.log_source import ServiceSource
from bandit_service.http import events as events_http
from store import Corrupt, Offset, can_erase, can_trim
from tests.service.command import Said, command
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, serving
from tests.unit.data.making import a_history, records


async def _used(client: Client) -> None:
    """Decisions and outcomes of every kind."""
    for i in range(12):
        decided = await client.decide(embedding=a_vector(i), unit=f"u{i % 3}")
        id = decided["decision_id"]
        if i % 3:
            assert await client.reward(id, quality=0.5, cost_usd=0.001) == "accepted"
        if i % 4 == 1:
            assert await client.reward(id, quality=0.75, correction=True) == "accepted"


async def _frames(client: Client, query: str) -> tuple[dict[str, str], list[tuple[int, Any]]]:
    async with client.session.get(f"{client.url}/v1/events{query}") as response:
        assert response.status == 200, await response.text()
        body = await response.read()
        frames = []
        while body:
            (length,) = FRAME.unpack(body[: FRAME.size])
            frames.append(msgspec.msgpack.decode(body[FRAME.size : FRAME.size + length]))
            body = body[FRAME.size + length :]
        return dict(response.headers), [(offset, event) for offset, event in frames]


async def _export(*arguments: str, data: Path | None = None) -> Said:
    environ = {} if data is None else {"BANDIT_DATA_DIR": str(data)}
    return await command("export", *arguments, **environ)


async def test_a_running_service_and_its_log_give_the_same_lines(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    async with serving(data, models) as client:
        await _used(client)
        status, running, told = await _export("--url", client.url)
        assert status == 0, told
        status, _, told = await _export(data=data)
        assert (status, "locked" in told or "open" in told) == (1, True), told
    status, stopped, told = await _export("--to", str(tmp_path / "out.jsonl"), data=data)
    assert (status, stopped) == (0, b""), told
    assert (tmp_path / "out.jsonl").read_bytes() == running
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o077 == 0  # on 164cc0c0 it was 0644
    events = [read(line) for line in running.splitlines()]
    assert [offset for offset, _ in events] == list(range(1, len(events) + 1))
    assert sum(isinstance(event, ev.Decided) for _, event in events) == 12
    assert f"wrote {len(events)} events" in told


async def test_events_come_in_order_between_after_and_limit(client: Client) -> None:
    await _used(client)
    headers, whole = await _frames(client, "")
    last = int(headers["x-log-last"])
    assert (headers["x-log-first"], headers["x-last-offset"]) == ("1", str(last))
    assert [offset for offset, _ in whole] == list(range(1, last + 1))
    headers, some = await _frames(client, "?after=3&limit=5")
    assert some == whole[3:8]
    assert headers["x-last-offset"] == "8"
    headers, none = await _frames(client, f"?after={last + 7}")
    assert (none, headers["x-last-offset"]) == ([], str(last + 7))


async def test_what_is_asked_wrongly_is_refused(client: Client) -> None:
    for query, param in (
        ("after=-1", "after"),
        ("after=x", "after"),
        ("limit=0", "limit"),
        ("limit=1e3", "limit"),
        (f"after={10**30}", "after"),
        ("limit=%F0%9D%9F%8F", "limit"),
    ):
        status, body = await client.get(f"/v1/events?{query}")
        assert (status, body["error"]["param"]) == (400, param)


async def test_an_erased_event_is_nil_and_a_trimmed_one_is_gone(
    tmp_path: Path, models: Path
) -> None:
    data = tmp_path / "var"
    data.mkdir()
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    events = a_history(60, dim=384)
    log.append(records(events))
    assert can_erase(log)
    erased = log.forget(ev.owner_of("acme", "u3"), log.last)
    log.close()
    async with serving(data, models) as client:
        _, frames = await _frames(client, "")
        assert sum(event is None for _, event in frames) == erased > 3
        source = await asyncio.to_thread(ServiceSource, client.url, page=7)
        stored = await asyncio.to_thread(lambda: list(source.events(10)))
        assert [offset for offset, _ in stored] == list(range(11, source.last + 1))
        kept = [event for _, event in stored[: len(events) - 10]]
        assert kept == [
            event if frame[1] is not None else None
            for event, frame in zip(events[10:], frames[10:], strict=False)
        ]
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    assert can_trim(log)
    log.trim(Offset(20))
    log.close()
    async with serving(data, models) as client:
        status, body = await client.get("/v1/events?after=0")
        assert (status, body["error"]["code"], body["error"]["param"]) == (410, "expired", "after")
        _, frames = await _frames(client, "")
        assert frames[0][0] == 21
        status, out, told = await _export("--url", client.url)
        assert (status, json.loads(out.splitlines()[0])["offset"] > 20) == (0, True)
        assert "events up to 20 were deleted" in told


async def test_a_reader_that_stops_costs_bounded_memory_and_holds_nobody_up(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken from the log before the reader goes on is what the buffers hold."""
    data = tmp_path / "var"
    data.mkdir()
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    log.append(records(a_history(12_000, dim=384)))
    whole = int(log.last)
    log.close()
    taken = 0
    framed = events_http.framed

    def counted(offset: int, body: bytes) -> bytes:
        nonlocal taken
        taken = offset
        return framed(offset, body)

    monkeypatch.setattr(events_http, "framed", counted)
    async with serving(data, models) as client:
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        writer.write(
            b"GET /v1/events?limit=100000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        async with asyncio.timeout(60):
            while not taken or taken != before:
                before = taken
                for _ in range(10):
                    decided = await client.decide(embedding=a_vector(1))
                    status = await client.reward(decided["decision_id"], quality=0.5)
                    assert status == "accepted"
        assert 0 < taken < whole // 2
        rest = 0
        while chunk := await reader.read(1 << 16):
            rest += len(chunk)
        assert taken >= whole
        assert rest > 12_000 * 4 * 384
        writer.close()
        await writer.wait_closed()


async def test_only_an_admin_reads_the_events(tmp_path: Path, models: Path) -> None:
    ring = Keyring(boss={"scopes": ["admin"]}, app={})
    (tmp_path / "key").write_text(ring["boss"] + "\n")
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        for given, code in ((ring["boss"], 0), (f"@{tmp_path / 'key'}", 0), (ring["app"], 1)):
            status, out, told = await _export("--url", client.url, "--key", given)
            assert (status, bool(out)) == (code, not code), told
            assert given not in told
        assert "scope" in told
        status, out, told = await _export("--url", client.url)
        assert (status, out, "Traceback" in told) == (1, b"", False)


async def test_an_answer_that_breaks_off_is_no_whole_one(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log fails in the middle: the reader is told, and an export leaves no file."""
    framed = events_http.framed

    def failing(offset: int, body: bytes) -> bytes:
        if offset == 100:
            raise Corrupt(100, "its checksum does not match")
        return framed(offset, body)

    data = tmp_path / "var"
    data.mkdir()
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    log.append(records(a_history(100, dim=384)))
    log.close()
    monkeypatch.setattr(events_http, "framed", failing)
    async with serving(data, models) as client:
        status, _, told = await _export("--url", client.url, "--to", str(tmp_path / "out"))
        assert (status, "connection ended after offset 64" in told) == (1, True), told
        assert (await client.get("/healthz"))[0] == 200
    assert {path.name for path in tmp_path.iterdir()} == {"var"}  # noqa: ASYNC240 - it is over


async def test_the_formats_of_a_service_that_runs(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models) as client:
        await _used(client)
        status, out, told = await _export("--url", client.url, "--format", "dsjson")
        assert (status, len(out.splitlines())) == (0, 9), told
        assert "wrote 9 decisions; left out: 3 unrewarded decisions" in told
        to = str(tmp_path / "tables")
        status, _, told = await _export("--url", client.url, "--format", "parquet", "--to", to)
        assert status == 0, told
    table = pq.read_table(tmp_path / "tables" / "decisions.parquet")
    assert table.num_rows == 12
    assert sum(table["corrected"].to_pylist()) == 3
    assert sum(table["settled"].to_pylist()) == 9


async def test_usage_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    for arguments, said in (
        (["--format", "parquet"], "--to"),
        (["--format", "dsjson", "--embeddings", "base64"], "--embeddings"),
        (["--after", "-1"], "--after"),
        (["--key", "x"], "--url"),
        (["--url", "http://x", "--key", "@no.key"], "--key: no.key: No such file or directory"),
        (["--url", "http://x", "--config", "y"], "--url"),
    ):
        status, out, told = await _export(*arguments, data=tmp_path)
        assert (status, out) == (2, b"")
        assert said in told
    status, out, told = await _export("--url", "http://127.0.0.1:1")
    assert (status, "does not answer" in told, "Traceback" in told) == (1, True, False)


async def test_a_reader_of_smaller_decisions_gets_whole_ones(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models, BANDIT_LOG_EMBEDDINGS="int8") as client:
        await _used(client)
        decided = await client.decide(embedding=a_vector(1), explain=True)
        assert "scores" not in decided
        assert decided["arms"][0]["score"] is not None
        _, frames = await _frames(client, "")
        lean = [event for _, event in frames if event["kind"] == "decided_lean"]
        assert [(each["coding"], len(each["embedding"])) for each in lean] == [("int8", 384)] * 13
        source = await asyncio.to_thread(ServiceSource, client.url)
        stored = await asyncio.to_thread(lambda: [event for _, event in source.events(0)])
        whole = [event for event in stored if isinstance(event, ev.Decided)]
        assert {len(each.embedding) for each in whole} == {4 * 384}
