"""Kinds of arms: who may be asked for what, by real clients in front of a real provider."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from bandit_service import cli, settings
from tests.service.provider import HELLO, Provider, a_gateway, a_provider
from tests.service.running import Client, serving

_PRICES = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0}


def _arm(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, **_PRICES, "upstream": "p", **more}


_EMBEDDERS = [
    _arm("dear", kind="embedding", dimensions=2, usd_per_mtok_in=3.0),
    _arm("cheap", kind="embedding", dimensions=2, usd_per_mtok_in=0.5),
    _arm("own", kind="embedding", dimensions=7, routed=False),
]
_POOL = [_arm("alpha"), _arm("shy", routed=False), _arm("critic", kind="judge"), *_EMBEDDERS]


def _pool(*arms: dict[str, Any], **more: str) -> dict[str, str]:
    return {"BANDIT_ARMS": json.dumps(arms or _POOL), **more}


async def _embedded(client: Client, model: str, **more: Any) -> tuple[int, Any, str]:
    asked = {"model": model, "input": "text", **more}
    async with client.session.post(f"{client.url}/v1/embeddings", json=asked) as answer:
        return answer.status, await answer.json(), answer.headers.get("x-arm", "")


async def test_only_routed_arms_for_chat_are_chosen(tmp_path: Path, models: Path) -> None:
    more = {"BANDIT_EXPLORATION_SHARE": "1.0", "BANDIT_DUELS_SHARE": "1.0"}
    async with a_gateway(tmp_path, models, **_pool(**more)) as (client, provider):
        arms = {(await client.decide(query=f"question {i}"))["arm"] for i in range(20)}
        assert arms == {"alpha"}
        async with openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none") as asking:
            for _ in range(10):
                await asking.chat.completions.create(model="auto", messages=HELLO)
                await asking.responses.create(model="auto", input="Hello there")
        async with anthropic.AsyncAnthropic(base_url=client.url, api_key="none") as claude:
            message: Any = {"max_tokens": 9, "messages": HELLO}
            for _ in range(5):
                await claude.messages.create(model="auto", **message)
        assert {each["model"] for each in provider.seen} == {"alpha"}
        _, explained = await client.post("/v1/explain", {"query": "Hello there"})
        assert [row["id"] for row in explained["arms"]] == ["alpha"]


async def test_an_arm_that_is_not_routed_answers_who_names_it(tmp_path: Path, models: Path) -> None:
    async with (
        a_gateway(tmp_path, models, **_pool(_arm("alpha"), _arm("shy", routed=False))) as (
            client,
            _,
        ),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as asking,
    ):
        for stream in (False, True):
            raw = await asking.chat.completions.with_raw_response.create(
                model="shy", messages=HELLO, stream=stream
            )
            assert (raw.headers["x-arm"], raw.headers["x-bandit-reason"]) == ("shy", "direct")
        id = raw.headers["x-decision-id"]
        assert await client.reward(id, quality=1.0) == "accepted"
        assert (await client.decide(query="x", arms=["shy"]))["arm"] == "shy"
        with pytest.raises(openai.BadRequestError, match="'shy' is chosen by no policy"):
            await asking.chat.completions.create(model="auto?arms=shy,alpha", messages=HELLO)
        status, body = await client.post("/v1/decide", {"query": "x", "arms": ["shy", "alpha"]})
        assert (status, body["arm"]) == (200, "alpha")
        chosen = {"key": "b", "arm": "shy", "weight": 0.5}
        trial = {"variants": [{"key": "a", "arm": "alpha", "weight": 0.5}, chosen]}
        status, body = await client.call("PUT", "/v1/experiments/t", trial)
        assert status == 400
        assert "no arm 'shy' is offered; expected one of alpha" in body["error"]["message"]


@pytest.mark.parametrize(
    ("arm", "answers"), [("dear", "POST /v1/embeddings"), ("critic", "judges")]
)
async def test_naming_an_arm_of_another_kind_for_chat_is_an_error_in_the_clients_dialect(
    tmp_path: Path, models: Path, arm: str, answers: str
) -> None:
    async with (
        a_gateway(tmp_path, models, **_pool()) as (client, provider),
        openai.AsyncOpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as asking,
        anthropic.AsyncAnthropic(base_url=client.url, api_key="none", max_retries=0) as claude,
    ):
        says = f"{arm}' is of kind .*, which answers .*{answers}"
        with pytest.raises(openai.BadRequestError, match=says) as chat:
            await asking.chat.completions.create(model=arm, messages=HELLO, stream=True)
        assert chat.value.param == "model"
        with pytest.raises(openai.BadRequestError, match=says):
            await asking.responses.create(model=arm, input="x")
        with pytest.raises(anthropic.BadRequestError, match=says) as refused:
            await claude.messages.create(model=arm, max_tokens=9, messages=HELLO)
        assert refused.value.body["type"] == "error"  # type: ignore[index]
        with pytest.raises(anthropic.BadRequestError, match=says):
            await claude.messages.count_tokens(model=arm, messages=HELLO)
        status, body = await client.post("/v1/decide", {"query": "x", "arms": [arm]})
        assert (status, body["error"]["param"]) == (400, "arms")
        assert not provider.seen


async def test_the_list_of_models_says_their_kinds(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models, **_pool()) as (client, _):
        _, body = await client.get("/v1/models")
        kinds = {each["id"]: each["kind"] for each in body["data"]}
        assert kinds == {
            "auto": "chat",
            "alpha": "chat",
            "shy": "chat",
            **{each["id"]: "embedding" for each in _EMBEDDERS},
        }
        assert [each.get("dimensions") for each in body["data"] if each["id"] == "own"] == [7]
        async with anthropic.AsyncAnthropic(base_url=client.url, api_key="none") as claude:
            assert [each.id async for each in claude.models.list()] == ["auto", "alpha", "shy"]
        _, arms = await client.get("/v1/arms")
        kinds = {
            each["id"]: (each.get("kind", "chat"), each.get("routed", True))
            for each in arms["arms"]
        }
        assert (kinds["critic"], kinds["shy"]) == (("judge", True), ("chat", False))


async def test_try_explains_the_arms_that_could_answer(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_gateway(tmp_path, models, **_pool()) as (client, _):
        asked = ["try", "Hello there", "--url", client.url, "--json"]
        assert await asyncio.to_thread(cli.main, asked) == 0
        shown = json.loads(capsys.readouterr().out)
        assert [row["id"] for row in shown["arms"]["arms"]] == ["alpha"]


async def test_embeddings_go_to_the_cheapest_arm_that_answers(tmp_path: Path, models: Path) -> None:
    fast = {"BANDIT_GATEWAY_BREAKER_FAILURES": "1", "BANDIT_GATEWAY_BREAKER_COOL_S": "60"}
    async with a_gateway(tmp_path, models, **_pool(**fast)) as (client, provider):
        status, body, arm = await _embedded(client, "auto")
        assert (status, arm, len(body["data"][0]["embedding"])) == (200, "cheap", 2)
        assert (await _embedded(client, "dear"))[2] == "dear"
        provider.behaviour["cheap"] = "500"
        seen = len(provider.seen)
        assert (await _embedded(client, "auto"))[2] == "dear"
        assert [each["model"] for each in provider.seen[seen:]] == ["cheap", "dear"]
        assert (await _embedded(client, "auto"))[2] == "dear"
        assert [each["model"] for each in provider.seen[seen:]] == ["cheap", "dear", "dear"]
        provider.behaviour["dear"] = "rejected"
        status, body, arm = await _embedded(client, "auto")
        assert (status, body["error"]["message"], arm) == (400, "bad tool", "dear")
        _, world = await client.get("/v1/policies/epsilon_greedy/state")
        assert (world["rewards"], world["failures"]) == (0, 0)


async def test_a_vector_of_another_length_is_no_answer(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models, **_pool()) as (client, provider):
        status, body, _ = await _embedded(client, "own")
        assert status == 502
        assert (
            "a vector of it has 2 numbers, and its arm has dimensions = 7"
            in (body["error"]["message"])
        )
        assert (await _embedded(client, "own", dimensions=2))[0] == 200
        provider.behaviour["cheap"] = "long vector"
        assert (await _embedded(client, "auto"))[2] == "dear"


async def test_a_refusal_or_an_answer_without_vectors_is_followed_by_another_arm(
    tmp_path: Path, models: Path
) -> None:
    """Seen on e98ba34: a refusal without a known reason ended `auto`; `data: []` was an answer."""
    async with a_gateway(tmp_path, models, **_pool()) as (client, provider):
        for how in ("rejected", "403", "no vectors", "half of the vectors"):
            provider.behaviour["cheap"] = how
            status, _, arm = await _embedded(client, "auto", input=["one", "two"])
            assert (status, arm) == (200, "dear"), how
        status, body, _ = await _embedded(client, "cheap", input=["one", "two"])
        assert (status, body["error"]["code"]) == (502, "upstream_failed")
        assert "the answer has 1 of 2 vectors" in body["error"]["message"]


async def test_what_embeds_nothing_is_refused(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models, **_pool()) as (client, _):
        for model, says in (
            ("critic", "'critic' is of kind 'judge', which answers [[judges]] alone"),
            ("auto:eagle", "send auto, or name an arm"),
            ("auto?max_cost_usd=1", "send auto, or name an arm"),
        ):
            status, body, _ = await _embedded(client, model)
            assert status == 400
            assert says in body["error"]["message"]
        assert (await _embedded(client, "nobody"))[0] == 404
        assert (await _embedded(client, "alpha"))[0] == 200, "as an arm without a kind was"


async def test_embeddings_without_an_arm_for_them_need_a_name(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models) as (client, _):
        status, body, _ = await _embedded(client, "auto")
        assert status == 400
        assert "name an arm, or configure arms with kind" in body["error"]["message"]


_GRADER = {"id": "grader", "kind": "llm", "arm": "g"}
_WRONG: list[tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = [
    ([_arm("g")], [_GRADER], "judges[0].arm: 'g' is one of the arms that it grades"),
    (
        [_arm("a", model="m"), _arm("g", kind="judge", model="m")],
        [{"id": "form", "kind": "exact"}, _GRADER],
        "judges[1].arm: 'g' is the model 'm' of 'p', which is an arm that it grades ('a')",
    ),
    ([_arm("a"), _arm("g", kind="embedding")], [_GRADER], "judges[0].arm: 'g' is of kind 'embed"),
    (
        [_arm("a"), _arm("e", kind="embedding", dimensions=3), _arm("f", kind="embedding")],
        [],
        "arms: arms of kind 'embedding' that are routed must have the same dimensions, got 'e' 3, "
        "'f' none",
    ),
    ([_arm("a", kind="chatt")], [], "arms[0].kind: must be one of chat, embedding, judge, got"),
    ([_arm("a", dimensions=3)], [], "arms[0].dimensions: is of arms of kind 'embedding' alone"),
    ([_arm("e", kind="embedding", dimensions=0)], [], "arms[0].dimensions: must be from 1"),
    ([_arm("e", kind="judge", family="f")], [], "arms[0].family: nothing is learned of an arm"),
]


@pytest.mark.parametrize(("arms", "judges", "says"), _WRONG)
def test_a_pool_that_cannot_be_is_refused_by_config_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arms: list[dict[str, Any]],
    judges: list[dict[str, Any]],
    says: str,
) -> None:
    monkeypatch.setenv("BANDIT_ARMS", json.dumps(arms))
    monkeypatch.setenv("BANDIT_JUDGES", json.dumps(judges))
    monkeypatch.setenv("BANDIT_UPSTREAMS", '[{"id": "p", "base_url": "http://127.0.0.1:9"}]')
    assert cli.main(["config", "check"]) == 2
    assert says in capsys.readouterr().err


async def test_a_judge_may_be_an_arm_that_nobody_chooses(tmp_path: Path) -> None:
    for more in ({"kind": "judge"}, {"routed": False}, {"kind": "judge", "model": "other"}):
        environ = _pool(_arm("a"), _arm("g", **more), BANDIT_JUDGES=json.dumps([_GRADER]))
        upstreams = '[{"id": "p", "base_url": "http://127.0.0.1:9"}]'
        assert settings.read(None, {**environ, "BANDIT_UPSTREAMS": upstreams}).judges


async def test_put_refuses_what_the_pool_cannot_be_with(tmp_path: Path, models: Path) -> None:
    judges = {"BANDIT_JUDGES": json.dumps([_GRADER])}
    pool = _pool(_arm("a"), _arm("g", kind="judge"), *_EMBEDDERS, **judges)
    async with a_gateway(tmp_path, models, **pool) as (client, _):
        wrong: list[tuple[dict[str, Any], str, str]] = [
            (_arm("g"), "kind", "the judge 'grader': 'g' is one of the arms that it grades"),
            (_arm("b", model="g"), "kind", "'g' is the model 'g' of 'p'"),
            (_arm("own", kind="embedding", dimensions=7), "dimensions", "'own' 7"),
            (_arm("c", kind="embedding"), "dimensions", "'c' none"),
            (_arm("c", kind="sing"), "kind", "must be one of chat, embedding, judge"),
        ]
        for arm, param, says in wrong:
            status, body = await client.call("PUT", f"/v1/arms/{arm['id']}", arm)
            assert (status, body["error"]["param"]) == (400, param)
            assert says in body["error"]["message"]
        _, arms = await client.get("/v1/arms")
        assert [each["id"] for each in arms["arms"]] == ["a", "cheap", "dear", "g", "own"]
        right = _arm("c", kind="embedding", dimensions=2)
        assert (await client.call("PUT", "/v1/arms/c", right))[0] == 201
        assert (await client.call("PUT", "/v1/arms/b", _arm("b", model="g", routed=False)))[
            0
        ] == 201


async def test_a_start_refuses_a_judge_that_the_log_made_a_candidate(
    tmp_path: Path, models: Path
) -> None:
    async with a_provider() as provider:
        upstreams = json.dumps([{"id": "p", "base_url": provider.url}])
        environ = _pool(_arm("a"), BANDIT_UPSTREAMS=upstreams)
        async with serving(tmp_path / "var", models, **environ) as client:
            assert (await client.call("PUT", "/v1/arms/g", _arm("g")))[0] == 201
        judged = environ | {"BANDIT_JUDGES": json.dumps([_GRADER])}
        with pytest.raises(settings.BadSettings, match=r"judges\[0\]\.arm: 'g' is one of the arms"):
            async with serving(tmp_path / "var", models, **judged):
                pass
        async with serving(tmp_path / "var", models, **environ) as client:
            _, arms = await client.get("/v1/arms")
            assert [each["id"] for each in arms["arms"]] == ["a", "g"]
        mended = json.dumps([_arm("a"), _arm("g", kind="judge")])
        async with serving(tmp_path / "var", models, **judged | {"BANDIT_ARMS": mended}) as client:
            assert await _asked_by(client, provider)


async def _asked_by(client: Client, provider: Provider) -> bool:
    status, _ = await client.post("/v1/chat/completions", {"model": "auto", "messages": HELLO})
    return status == 200 and provider.seen[0]["model"] == "a"
