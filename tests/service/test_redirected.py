"""Another model answers than was asked: it is billed and credited, and the arm asked is not."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.service.dialects import ARMS, COST, Provider, running

HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
BUDGET = {"BANDIT_BUDGETS": json.dumps([{"scope": "service", "per": "month", "usd": 99.0}])}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[tuple[str, Provider]]:
    with running(tmp_path_factory.mktemp("redirected"), models, **BUDGET) as made:
        arm = {
            "usd_per_mtok_in": 10.0, "usd_per_mtok_cached_in": 5.0, "usd_per_mtok_out": 40.0,
            "upstream": "openai", "model": "dear-2026-01-01",
        }  # fmt: skip
        _asked(made[0], "/v1/arms/dear", arm, "PUT")
        yield made


@pytest.fixture(autouse=True)
def redirects(service: tuple[str, Provider]) -> Iterator[dict[str, str]]:
    yield service[1].redirects
    service[1].redirects.clear()


def _asked(url: str, path: str, body: Any = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _arm(url: str, id: str) -> Any:
    return next(each for each in _asked(url, "/v1/arms")["arms"] if each["id"] == id)


def _ask(url: str, front: str, arm: str, stream: bool) -> tuple[str, dict[str, str]]:
    """The decision's id and the headers, by the real client of this front."""
    if front == "messages":
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
            ask = client.messages.with_raw_response
            raw: Any = ask.create(model=arm, max_tokens=99, messages=HELLO, stream=stream)
            if stream:
                list(raw.parse())
            return raw.headers["x-decision-id"], dict(raw.headers)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as chat:
        raw = (
            chat.chat.completions.with_raw_response.create(model=arm, messages=HELLO, stream=stream)
            if front == "chat"
            else chat.responses.with_raw_response.create(model=arm, input="Hello", stream=stream)
        )
        if stream:
            list(raw.parse())
        return raw.headers["x-decision-id"], dict(raw.headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arm", ARMS)
def test_the_model_that_answered_is_billed_and_credited(
    service: tuple[str, Provider], redirects: dict[str, str], arm: str, stream: bool
) -> None:
    url, front = service[0], {"chat": "chat", "claude": "messages", "resp": "responses"}[arm]
    redirects[f"{arm}-large"] = "dear-2026-01-01"
    before, dear = _arm(url, arm)["observed"], _arm(url, "dear")["observed"]
    id, headers = _ask(url, front, arm, stream)
    decided = _asked(url, f"/v1/decisions/{id}")
    assert decided["arm"] == arm
    assert decided["answered_by"] == "dear"
    assert decided["signals"]["cost_usd"] == decided["cost_usd"] == pytest.approx(10 * COST)
    if not stream:
        assert float(headers["x-cost-usd"]) == pytest.approx(10 * COST)
        assert headers["x-answered-model"] == "dear-2026-01-01"
    _asked(url, "/v1/rewards", {"decision_id": id, "quality": 0.9})
    assert _arm(url, arm)["observed"] == before
    assert _arm(url, "dear")["observed"] != dear


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("arm", ARMS)
def test_of_a_model_that_no_arm_has_nothing_is_learned_and_it_is_paid(
    service: tuple[str, Provider], redirects: dict[str, str], arm: str, stream: bool
) -> None:
    """On 0e17ee51 nothing told what the decision had cost, and budgets counted it."""
    url, front = service[0], {"chat": "chat", "claude": "messages", "resp": "responses"}[arm]
    redirects[f"{arm}-large"] = "quite-another"
    before = _arm(url, arm)["observed"]
    spent = _spent(url)
    id, headers = _ask(url, front, arm, stream)
    decided = _asked(url, f"/v1/decisions/{id}")
    assert decided["answered_by"] == ""
    assert decided["signals"] == {}
    assert decided["cost_usd"] == pytest.approx(COST)
    _asked(url, "/v1/rewards", {"decision_id": id, "quality": 0.9})
    assert _arm(url, arm)["observed"] == before
    assert _spent(url) == pytest.approx(spent + COST)
    text = _text(url, "/metrics")
    assert f'bandit_answered_by_other_model_total{{arm="{arm}",known="no"}}' in text
    assert bool(headers.get("x-answered-model")) is not stream


@pytest.mark.parametrize("said", ["chat-large-2026-01-01", "openai/Chat-Large", "eu-chat"])
def test_a_dated_version_and_an_alias_are_the_same_model(
    service: tuple[str, Provider], redirects: dict[str, str], said: str
) -> None:
    url = service[0]
    arm = _arm(url, "chat")
    spec = {
        name: arm[name] for name in ("usd_per_mtok_in", "usd_per_mtok_out", "upstream", "model")
    }
    spec |= {"usd_per_mtok_cached_in": 0.5, "capabilities": arm["capabilities"]}
    _asked(url, "/v1/arms/chat", spec | {"aliases": ["eu-chat"]}, "PUT")
    redirects["chat-large"] = said
    id, headers = _ask(url, "chat", "chat", False)
    decided = _asked(url, f"/v1/decisions/{id}")
    assert "answered_by" not in decided
    assert decided["signals"]["cost_usd"] == pytest.approx(COST)
    assert "x-answered-model" not in headers


def _text(url: str, path: str) -> str:
    with urllib.request.urlopen(f"{url}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def _spent(url: str) -> float:
    rows = _asked(url, "/v1/budgets")["budgets"]
    return float(rows[0]["spent_usd"])
