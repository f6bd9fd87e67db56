"""Spans as a collector gets them: OTLP over real HTTP, decoded from its protobuf."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bandit_service import settings
from tests.service.provider import CRITIC, HELLO, a_gateway, until
from tests.service.running import Client
from tests.tools import imported

trace_service = imported("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

_PARENT = "b7ad6b7169203331"
_SECRET = "xylophones are my password"
_SERVER, _CLIENT, _ERROR = 2, 3, 2


class Span:
    """One span as it was sent."""

    def __init__(self, sent: Any, resource: dict[str, Any]) -> None:
        self.name: str = sent.name
        self.kind: int = sent.kind
        self.trace: str = sent.trace_id.hex()
        self.id: str = sent.span_id.hex()
        self.parent: str = sent.parent_span_id.hex()
        self.begun: int = sent.start_time_unix_nano
        self.ended: int = sent.end_time_unix_nano
        self.failed: bool = sent.status.code == _ERROR
        self.said = _plain(sent.attributes)
        self.resource = resource


def _plain(attributes: Any) -> dict[str, Any]:
    def value(of: Any) -> Any:
        kind = of.WhichOneof("value")
        if kind == "array_value":
            return [value(each) for each in of.array_value.values]
        return getattr(of, kind)

    return {each.key: value(each.value) for each in attributes}


class Collector:
    """What came in, newest last."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self.url = ""

    async def traces(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        sent = trace_service.ExportTraceServiceRequest.FromString(body)
        for of in sent.resource_spans:
            resource = _plain(of.resource.attributes)
            for scope in of.scope_spans:
                self.spans += [Span(each, resource) for each in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def within(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]


@asynccontextmanager
async def a_collector() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.traces)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def _ask(client: Client, trace: str = "", **body: Any) -> tuple[int, Any, bytes]:
    headers = {"traceparent": f"00-{trace}-{_PARENT}-01"} if trace else {}
    asked = {"model": "auto", "messages": HELLO, **body}
    url = f"{client.url}/v1/chat/completions"
    async with client.session.post(url, json=asked, headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_request_its_stages_and_each_attempt_are_spans_of_the_callers_trace(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    judge = {"id": "grader", "kind": "llm", "arm": CRITIC}
    async with a_collector() as collector:
        environ = {
            "BANDIT_TRACING_ENDPOINT": collector.url,
            "BANDIT_TRACING_SERVICE_NAME": "edge",
            "BANDIT_JUDGES": json.dumps([judge]),
        }
        async with a_gateway(tmp_path, models, **environ) as (client, provider):
            provider.judge = lambda _: '{"score": 8}'
            provider.behaviour = {"alpha": "429", "beta": "429"}
            traces: list[str] = []
            while len(traces) < 4 or not {"alpha", "beta"} & {
                each["model"] for each in provider.seen
            }:
                trace = f"{len(traces) + 1:032x}"
                traces.append(trace)
                status, headers, _ = await _ask(
                    client,
                    trace,
                    temperature=0.5,
                    user=_SECRET,
                    messages=[{"role": "user", "content": _SECRET}],
                )
                assert status == 200
                _, sent_trace, sent_parent, _ = headers["traceparent"].split("-")
                assert sent_trace == trace

            async def judged() -> bool:
                asked = [s for s in collector.spans if s.said.get("bandit.purpose") == "judge"]
                return len(asked) == len(traces)

            await until(judged)
            passed = [each["traceparent"].split("-") for each in provider.headers]
    spans = collector.within(traces[-1])
    (root,) = [span for span in spans if span.kind == _SERVER]
    assert (root.name, root.parent, root.id) == ("POST /v1/chat/completions", _PARENT, sent_parent)
    assert root.said["http.response.status_code"] == 200
    assert root.said["bandit.arm"] == "gamma"
    assert root.resource["service.name"] == "edge"
    assert root.said["bandit.policy"] == "epsilon_greedy"
    calls = [span for span in collector.spans if span.kind == _CLIENT]
    assert {span.id for span in calls} == {parent for _, _, parent, _ in passed}
    for trace in traces:
        within = {span.id: span for span in collector.within(trace)}
        (request,) = [span for span in within.values() if span.kind == _SERVER]
        stages = [span for span in within.values() if span.kind not in (_SERVER, _CLIENT)]
        attempts = [
            span for span in calls if span.trace == trace and "bandit.purpose" not in span.said
        ]
        assert sorted({span.name for span in stages}) == sorted(
            {"embed", "recall", "propose", "draw", "append"}
        )
        assert len([span for span in stages if span.name == "draw"]) == len(attempts)
        for span in (*stages, *attempts):
            assert span.parent == request.id
            assert request.begun <= span.begun + 1000  # what a float can tell apart
            assert span.begun <= span.ended <= request.ended + 1000
        for span in attempts:
            failed = span.said["bandit.arm"] not in ("gamma", CRITIC)
            assert span.failed == failed
            assert span.said.get("error.type") == ("429" if failed else None)
    assert any(span.failed for span in calls)
    answered = next(
        span for span in calls if span.said["bandit.arm"] == "gamma" and not span.failed
    )
    assert answered.name == "chat gamma"
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gamma",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "gamma",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "server.address": "127.0.0.1",
    }
    assert {name: answered.said.get(name) for name in wanted} == wanted
    for word in (_SECRET, "I am gamma"):
        assert word.encode() not in collector.raw


async def test_streams_failures_and_clients_that_leave_are_told(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with a_collector() as collector:
        environ = {"BANDIT_TRACING_ENDPOINT": collector.url}
        async with a_gateway(tmp_path, models, **environ) as (client, provider):
            await _ask(client, f"{1:032x}", model="alpha", stream=True)
            provider.behaviour = {"alpha": "half", "beta": "rejected", "gamma": "endless"}
            await _ask(client, f"{2:032x}", model="alpha", stream=True)
            await _ask(client, f"{3:032x}", model="beta")
            asked = {"model": "gamma", "messages": HELLO, "stream": True}
            traceparent = f"00-{4:032x}-{_PARENT}-01"
            async with (
                aiohttp.ClientSession() as leaving,
                leaving.post(
                    f"{client.url}/v1/chat/completions",
                    json=asked,
                    headers={"traceparent": traceparent},
                ) as answer,
            ):
                await answer.content.readany()
                answer.close()
            async with asyncio.timeout(60):
                await provider.cancelled.wait()
            # a caller that does not sample is followed
            unsampled = {"traceparent": f"00-{5:032x}-{_PARENT}-00"}
            url = f"{client.url}/v1/decide"
            async with client.session.post(
                url, json={"query": "Hello"}, headers=unsampled
            ) as answer:
                assert answer.status == 200
                assert answer.headers["traceparent"].endswith("-00")
        found = {
            i: next(s for s in collector.within(f"{i:032x}") if s.kind == _CLIENT)
            for i in range(1, 5)
        }
    assert found[1].said["gen_ai.request.stream"] is True
    assert 0.0 < found[1].said["gen_ai.response.time_to_first_chunk"] < 30.0
    assert found[1].said["gen_ai.usage.output_tokens"] == 100
    assert not found[1].failed
    errors = [found[i].said["error.type"] for i in (2, 3, 4)]
    assert errors == ["broken", "400", "client_left"]
    assert not collector.within(f"{5:032x}")


def test_without_an_endpoint_opentelemetry_is_not_imported() -> None:
    code = (
        "import sys; from bandit_service import settings; from bandit_service.app import assembly; "
        "assert assembly.open_tracer(settings.read(None, {})) is None; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(settings.BadSettings, match=r"tracing\.endpoint: must begin with http"):
        settings.read(None, {"BANDIT_TRACING_ENDPOINT": "localhost:4318"})
