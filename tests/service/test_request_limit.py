"""A request ends when its time is over, in the words of its client, also within a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bandit_service import cli
from tests.service.provider import HELLO, a_gateway, signals_of

OVER = "arm 'alpha' failed: the request has taken 0.3 s (gateway.request_s)"
FRONTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello there"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 50},
    "/v1/responses": {"input": "Hello there"},
}


async def test_a_call_under_way_is_cut_off_and_the_arm_that_had_all_of_the_time_has_failed(
    tmp_path: Path, models: Path
) -> None:
    environ = {"BANDIT_GATEWAY_REQUEST_S": "0.3", "BANDIT_GATEWAY_BREAKER_FAILURES": "1000"}
    async with a_gateway(tmp_path, models, **environ) as (client, provider):
        for path, body in FRONTS.items():
            for stream in (False, True):
                provider.behaviour["alpha"] = "endless" if stream else "never"
                asked = body | {"model": "alpha", "stream": stream}
                async with client.session.post(client.url + path, json=asked) as answer:
                    said, id = (await answer.read()).decode(), answer.headers["x-decision-id"]
                    assert answer.status == (200 if stream else 504), (path, said)
                error = _last_event(said) if stream else json.loads(said)
                if path == "/v1/responses" and stream:
                    assert error["type"] == "response.failed", said
                    assert OVER in error["response"]["error"]["message"]
                else:
                    assert error["error"]["message"] == OVER, said
                if path == "/v1/messages":
                    assert error["type"] == "error"
                signals = await signals_of(client, id, most=2)
                assert signals["quality"] == 0.0
                # of the request's 0.3 s, what the decision before the call left of it
                assert signals["latency_s"] > 0.0
        async with client.session.get(client.url + "/metrics") as exposed:
            text = await exposed.text()
        assert 'bandit_upstream_failures_total{arm="alpha",kind="timeout"} 8.0' in text


def _last_event(said: str) -> dict[str, Any]:
    data = [line[6:] for line in said.splitlines() if line.startswith("data: {")]
    found: dict[str, Any] = json.loads(data[-1])
    return found


def test_config_check_notes_calls_that_their_request_would_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upstreams = [
        {"id": "p", "base_url": "http://127.0.0.1:1/v1"},
        {"id": "long", "base_url": "http://127.0.0.1:1/v1", "total_s": 1800},
    ]
    arms = [{"id": "a", "upstream": "long", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}]
    monkeypatch.setenv("BANDIT_UPSTREAMS", json.dumps(upstreams))
    monkeypatch.setenv("BANDIT_ARMS", json.dumps(arms))
    assert cli.main(["config", "check"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "request_s" in line]
    assert notes == [
        "note: upstreams[1].total_s: no call of 'long' gets 1800 s, since a whole request may "
        "take 600 s (gateway.request_s)"
    ]
