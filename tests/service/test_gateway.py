"""The gateway with real HTTP upstreams and the official OpenAI client, unmodified."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
from pydantic import BaseModel

from bandit_service import cli
from bandit_service.gateway.health import Health
from tests.service.provider import (
    ARMS,
    COST,
    HELLO,
    KEY,
    a_gateway,
    official_client,
    signals_of,
    until,
)


async def test_an_answer_is_routed_passed_on_and_rewarded(tmp_path: Path, models: Path) -> None:
    async with official_client(tmp_path, models) as (asking, client, provider):
        raw = await asking.chat.completions.with_raw_response.create(
            model="auto", messages=HELLO, seed=7, extra_body={"brand_new": {"deep": [1]}}
        )
        answer = raw.parse()
        arm = raw.headers["x-arm"]
        assert answer.choices[0].message.content == f"I am {arm}"
        assert answer.id == raw.headers["x-decision-id"]
        assert raw.headers["x-policy"] == "epsilon_greedy"
        assert float(raw.headers["x-cost-usd"]) == pytest.approx(COST)
        assert raw.headers["x-request-id"]
        assert answer.model_extra == {"x_new_field": {"kept": 1.5}}
        sent = provider.seen[-1]
        assert (sent["model"], sent["seed"], sent["brand_new"]) == (arm, 7, {"deep": [1]})
        assert provider.headers[-1]["Authorization"] == f"Bearer {KEY}"
        signals = await signals_of(client, answer.id)
        assert signals["cost_usd"] == pytest.approx(COST)
        assert 0.0 < signals["latency_s"] < 30.0
        assert await client.reward(answer.id, quality=0.9) == "accepted"


async def test_tools_structured_output_completions_embeddings_and_models(
    tmp_path: Path, models: Path
) -> None:
    class Capital(BaseModel):
        capital: str

    async with official_client(tmp_path, models) as (asking, _client, _):
        function: Any = {"type": "function", "function": {
            "name": "weather", "parameters": {"type": "object", "properties": {}}}}  # fmt: skip
        called = await asking.chat.completions.create(
            model="auto?max_cost_usd=1", messages=HELLO, tools=[function]
        )
        calls = called.choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].function.name == "weather"  # type: ignore[union-attr]
        parsed = await asking.chat.completions.parse(
            model="auto", messages=HELLO, response_format=Capital
        )
        assert parsed.choices[0].message.parsed == Capital(capital="Paris")
        completed = await asking.completions.create(model="auto", prompt="Once upon a time")
        assert completed.choices[0].text == "once"
        tokens = await asking.completions.create(model="beta", prompt=[[15, 16], [17]])
        assert tokens.choices[0].text == "once"
        with pytest.raises(openai.BadRequestError, match="belong to one model's tokenizer"):
            await asking.completions.create(model="auto", prompt=[15, 16])
        assert (await asking.models.retrieve("beta")).id == "beta"
        with pytest.raises(openai.NotFoundError, match="no 'nobody'"):
            await asking.models.retrieve("nobody")
        embedded = await asking.embeddings.create(model="beta", input="text")
        assert len(embedded.data) == 1
        listed = [model.id async for model in asking.models.list()]
        assert listed == ["auto", *ARMS]


async def test_a_stream_is_passed_on_with_its_usage_hidden_or_shown(
    tmp_path: Path, models: Path
) -> None:
    async with official_client(tmp_path, models) as (asking, client, _):
        for options in (None, {"include_usage": True}):
            extra: Any = {"stream_options": options} if options else {}
            stream = await asking.chat.completions.create(
                model="alpha", messages=HELLO, stream=True, **extra
            )
            chunks = [chunk async for chunk in stream]
            words = [each.choices[0].delta.content or "" for each in chunks if each.choices]
            assert "".join(words) == "I am alpha"
            assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == (
                [True] if options else []
            )
            assert len({chunk.id for chunk in chunks}) == 1
            signals = await signals_of(client, chunks[0].id)
            assert signals["cost_usd"] == pytest.approx(COST)


async def test_a_synchronous_client_works_the_same(tmp_path: Path, models: Path) -> None:
    async with a_gateway(tmp_path, models) as (client, _):

        def ask() -> tuple[str | None, str]:
            asking = openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0)
            with asking:
                plain = asking.chat.completions.create(model="gamma", messages=HELLO)
                stream = asking.chat.completions.create(model="gamma", messages=HELLO, stream=True)
                words = [each.choices[0].delta.content or "" for each in stream]
            return plain.choices[0].message.content, "".join(words)

        assert await asyncio.to_thread(ask) == ("I am gamma", "I am gamma")


@pytest.mark.parametrize(
    "how", ["401", "500", "429", "529", "reset", "never", "not json", "no choices"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_arm_that_fails_is_followed_by_another_and_taught(
    tmp_path: Path, models: Path, how: str, stream: bool
) -> None:
    if stream and how in ("not json", "no choices"):
        how = "error event"
    failing = {"alpha": how, "beta": how}
    async with official_client(tmp_path, models, hasty=failing) as (asking, client, provider):
        provider.behaviour = failing
        ids: list[str] = []
        while {each["model"] for each in provider.seen} != set(ARMS):
            raw = await asking.chat.completions.with_raw_response.create(
                model="auto", messages=HELLO, stream=stream
            )
            assert raw.headers["x-arm"] == "gamma"
            ids.append(raw.headers["x-decision-id"])
            if stream:
                answer: Any = raw.parse()
                assert [chunk async for chunk in answer]
        _, body = await client.get(f"/v1/decisions/{ids[-1]}")
        assert body["propensity"] == body["propensities"]["gamma"]
        # the failed arms have outcomes of their own
        _, state = await client.get("/v1/arms")
        failed = {arm["id"]: arm["observed"]["latencies"] for arm in state["arms"]}

        async def taught() -> bool:
            _, state = await client.get("/v1/arms")
            failed.update({arm["id"]: arm["observed"]["latencies"] for arm in state["arms"]})
            return all(failed[id] > 0 for id in ARMS)

        await until(taught)
        _, policies = await client.get("/v1/policies/epsilon_greedy/state")
        assert policies["rewards"] >= 3


async def test_when_every_arm_fails_the_clients_own_exception_is_raised(
    tmp_path: Path, models: Path
) -> None:
    async with official_client(tmp_path, models) as (asking, _client, provider):
        provider.behaviour = dict.fromkeys(ARMS, "429")
        with pytest.raises(openai.RateLimitError, match=r"arm '(alpha|beta|gamma)'") as limited:
            await asking.chat.completions.create(model="auto", messages=HELLO)
        assert limited.value.response.headers["Retry-After"] == "7"
        provider.behaviour = dict.fromkeys(ARMS, "rejected")
        with pytest.raises(openai.BadRequestError, match="bad tool") as rejected:
            await asking.chat.completions.create(model="alpha", messages=HELLO)
        assert rejected.value.body["arm"] == "alpha"  # type: ignore[index]
        assert rejected.value.response.headers["x-arm"] == "alpha"
        provider.behaviour = {"alpha": "reset"}
        with pytest.raises(openai.InternalServerError, match="alpha"):
            await asking.chat.completions.create(model="alpha", messages=HELLO)


@pytest.mark.parametrize("how", ["half", "broken"])
async def test_a_stream_that_breaks_off_ends_with_an_error_and_is_taught(
    tmp_path: Path, models: Path, how: str
) -> None:
    async with official_client(tmp_path, models) as (asking, client, provider):
        provider.behaviour = {"alpha": how}
        raw = await asking.chat.completions.with_raw_response.create(
            model="alpha", messages=HELLO, stream=True
        )
        words: list[str | None] = []

        async def read() -> None:
            async for chunk in raw.parse():
                words.append(chunk.choices[0].delta.content)

        with pytest.raises(openai.APIError, match="alpha"):
            await read()
        assert words == ["I ", "am "]
        signals = await signals_of(client, raw.headers["x-decision-id"])
        assert signals["quality"] == 0.0


async def test_a_client_that_leaves_cancels_the_upstream(tmp_path: Path, models: Path) -> None:
    async with official_client(tmp_path, models) as (asking, _client, provider):
        provider.behaviour = {"alpha": "endless"}
        stream = await asking.chat.completions.create(model="alpha", messages=HELLO, stream=True)
        await anext(stream)
        await stream.close()
        async with asyncio.timeout(60):
            await provider.cancelled.wait()


async def test_a_conversation_stays_where_its_prompt_is_cached(
    tmp_path: Path, models: Path
) -> None:
    sticky = {
        "BANDIT_POLICY_NAME": "uniform",
        "BANDIT_EXPLORATION_FLOOR": "0.0",
    }
    async with a_gateway(tmp_path, models, **sticky) as (client, provider):
        turns: list[Any] = [{"role": "system", "content": "Be brief"}, *HELLO]
        for _ in range(8):
            status, answer = await client.post(
                "/v1/chat/completions", {"model": "auto", "messages": turns}
            )
            assert status == 200
            turns.append(answer["choices"][0]["message"])
            turns.append({"role": "user", "content": f"And then, {len(turns)}?"})
        assert len({each["model"] for each in provider.seen}) == 1
        _, decided = await client.get(f"/v1/decisions/{answer['id']}")
        assert decided["propensity"] == 1.0
        others: set[str] = set()
        for i in itertools.count():  # other conversations go where the policy says
            if len(others) == len(ARMS):
                break
            assert i < 200, others  # by chance once in 1e35 times
            body = {"model": "auto", "messages": [{"role": "user", "content": f"Number {i}"}]}
            await client.post("/v1/chat/completions", body)
            others.add(provider.seen[-1]["model"])
        async with client.session.get(f"{client.url}/metrics") as exposed:
            text = await exposed.text()
        assert 'bandit_conversation_turns_total{reason="stayed",stayed="yes"} 7.0' in text
        saved = float(text.split("\nbandit_cached_prompt_saved_usd_total ")[1].split()[0])
        assert saved >= 8 * 400 * 0.5 / 1e6


async def test_a_hard_cap_holds_under_concurrency_and_through_a_restart(
    tmp_path: Path, models: Path
) -> None:
    limit = {"scope": "service", "per": "month", "usd": 0.02, "pace": False}
    capped = {"BANDIT_BUDGETS": json.dumps([limit])}
    body = {"model": "auto", "messages": HELLO, "max_tokens": 400}  # at most 0.0016, billed 0.0012
    async with a_gateway(tmp_path, models, **capped) as (client, _):
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", body) for _ in range(40))
        )
        statuses = [status for status, _ in answers]
        assert set(statuses) == {200, 429}
        refused = next(answer for status, answer in answers if status == 429)
        assert refused["error"]["code"] == "budget_exhausted"

        async def settled() -> bool:
            _, state = await client.get("/v1/budgets")
            return bool(state["budgets"][0]["held_usd"] == 0.0)

        await until(settled)
        while (await client.post("/v1/chat/completions", body))[0] == 200:
            await until(settled)
        _, state = await client.get("/v1/budgets")
        spent = state["budgets"][0]["spent_usd"]
        assert 0.02 - 2 * 0.0017 < spent <= 0.02
    async with a_gateway(tmp_path, models, **capped) as (client, _):
        assert (await client.post("/v1/chat/completions", body))[0] == 429
        _, state = await client.get("/v1/budgets")
        assert state["budgets"][0]["spent_usd"] == pytest.approx(spent)


async def test_try_shows_the_decision_each_arm_the_neighbours_and_the_answer(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with a_gateway(tmp_path, models, BANDIT_POLICY_NAME="metallm") as (client, provider):
        decided = await client.decide(query="What is the capital of France?")
        await client.reward(decided["decision_id"], quality=0.9)
        events = (await client.get("/readyz"))[1]["last"]
        asked = ["try", "What is the capital of France?", "--url", client.url]
        assert await asyncio.to_thread(cli.main, [*asked, "--no-answer", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)["arms"]
        assert {arm["id"] for arm in shown["arms"]} == set(ARMS)
        assert sum(arm["propensity"] for arm in shown["arms"]) == pytest.approx(1.0)
        assert all(arm["cost_usd"] > 0 for arm in shown["arms"])
        tried = {arm["id"]: arm["quality"] for arm in shown["arms"] if arm["quality"] is not None}
        assert list(tried) == [decided["arm"]]  # of the others nothing is known
        assert 0.0 <= tried[decided["arm"]] <= 1.0
        (near,) = shown["neighbours"]
        assert near["similarity"] > 0.99
        assert [one["arm"] for one in near["outcomes"]] == [decided["arm"]]
        assert (await client.get("/readyz"))[1]["last"] == events, "explaining wrote something"
        assert await asyncio.to_thread(cli.main, asked) == 0
        printed = capsys.readouterr().out
        assert f"I am {provider.seen[-1]['model']}" in printed
        assert "rests on 1 past queries" in printed
        assert await asyncio.to_thread(cli.main, [*asked, "--model", "nobody"]) == 1
        assert "no arm 'nobody'" in capsys.readouterr().err
        assert await asyncio.to_thread(cli.main, [*asked, "--key", "a\nb"]) == 1
        assert "--key: must be printable" in capsys.readouterr().err
        limited = {"query": "x", "max_cost_usd": 1e-9}
        status, refused = await client.post("/v1/explain", limited)
        assert (status, refused["error"]["code"]) == (422, "no_eligible_arm")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "auto"}, 400, "messages"),
        ({"messages": HELLO}, 400, "model"),
        ({"model": "nobody", "messages": HELLO}, 404, "model"),
        ({"model": "auto:eagle", "messages": HELLO}, 404, "model"),
        ({"model": "auto?unheard=1", "messages": HELLO}, 400, "model"),
        ({"model": "auto?max_cost_usd=x", "messages": HELLO}, 400, "model"),
        ({"model": "auto?willingness_to_pay=0", "messages": HELLO}, 400, "willingness_to_pay"),
        ({"model": "auto?arms=alpha,nobody", "messages": HELLO}, 404, "arms"),
        ({"model": "auto", "messages": HELLO, "stream": "no"}, 400, "stream"),
        ({"model": "auto", "messages": ["x"]}, 400, "messages"),
        ([], 400, None),
    ],
)
async def test_bad_input_is_named(
    tmp_path: Path, models: Path, body: Any, status: int, param: str | None
) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):
        found, answer = await client.post("/v1/chat/completions", body)
        assert (found, answer["error"]["param"]) == (status, param)
        assert not provider.seen


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
async def test_a_header_that_is_no_utf_8_is_named_and_not_an_error_of_ours(
    tmp_path: Path, models: Path, path: str
) -> None:
    body = json.dumps({"model": "alpha", "messages": HELLO, "input": "x"}).encode()
    async with a_gateway(tmp_path, models) as (client, provider):
        names = ("x-tenant",) if path == "embeddings" else ("x-tenant", "x-unit", "x-session")
        for name in names:
            host = client.url.removeprefix("http://")
            reader, writer = await asyncio.open_connection(*host.split(":"))
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            length = f"Content-Length: {len(body)}\r\n{name}: ".encode()
            writer.write(head.encode() + length + b"\xe9\r\n\r\n" + body)
            answer = await reader.read()
            writer.close()
            assert b" 400 " in answer.split(b"\r\n")[0], answer
            assert name.encode() + b": must be UTF-8" in answer
        assert not provider.seen


@pytest.mark.parametrize("name", ["session-id", "x-claude-code-agent-id", "traceparent"])
async def test_a_header_of_others_that_is_no_utf_8_does_no_harm(
    tmp_path: Path, models: Path, name: str
) -> None:
    body = json.dumps({"model": "alpha", "messages": HELLO}).encode()
    async with a_gateway(tmp_path, models) as (client, provider):
        host = client.url.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        lines = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"x-claude-code-session-id: s\r\nContent-Length: {len(body)}\r\n{name}: "
        )
        writer.write(lines.encode() + b"\xe9\r\n\r\n" + body)
        answer = await reader.read()
        writer.close()
        assert b" 200 " in answer.split(b"\r\n")[0], answer
        assert "traceparent" not in {each.lower() for each in provider.headers[0]}


async def test_the_upstreams_key_is_in_no_log_and_no_answer(
    tmp_path: Path, models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):
        provider.behaviour = {"alpha": "reset", "beta": "500"}
        for model in (*ARMS, "auto"):
            _, answer = await client.post(
                "/v1/chat/completions", {"model": model, "messages": HELLO}
            )
            assert KEY not in json.dumps(answer)
        async with client.session.get(f"{client.url}/metrics") as answer:
            assert KEY not in await answer.text()
    captured = capfd.readouterr()
    assert KEY not in captured.err + captured.out


def test_a_breaker_opens_probes_and_closes() -> None:
    """Three failures mask for 5 s, a failed probe for 10 s, one that succeeds for none."""
    health = Health(failures=3, cool_s=5.0)
    for _ in range(3):
        assert health.available("a", 0.0)
        health.begun("a")
        health.failed("a", 0.0)
    assert not health.available("a", 4.9)
    assert health.available("a", 5.0)
    health.begun("a")
    assert not health.available("a", 5.0), "one probe at a time"
    health.failed("a", 5.0)
    assert not health.available("a", 14.9)
    assert health.available("a", 15.0)
    health.begun("a")
    health.succeeded("a")
    assert health.state("a", 15.0) == "closed"
    health.begun("a")
    assert (health.full("a", 1), health.full("a", 2), health.full("a", 0)) == (True, False, False)
    health.failed("a", 15.0, retry_after_s=7.0)
    assert not health.available("a", 21.9)
    assert health.available("a", 22.0)


async def test_an_arm_of_any_name_can_be_among_those_that_may_answer(
    tmp_path: Path, models: Path
) -> None:
    """On 0e17ee51 no `arms=` could name an arm whose id has a comma: it was cut in two."""
    ids = ["a,b", "c+d", '["e"]', "g h", "i"]
    arms = [{"id": id, "upstream": "p", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
            for id in ids]  # fmt: skip
    async with a_gateway(tmp_path, models, BANDIT_ARMS=json.dumps(arms)) as (client, _):
        for id, listed in [*((id, json.dumps([id])) for id in ids), ("g h", "g h"), ("i", " i ")]:
            for model, headers in (
                (f"auto?arms={quote(listed)}", {}),
                ("auto", {"x-arms": listed}),
            ):
                async with client.session.post(
                    f"{client.url}/v1/chat/completions",
                    json={"model": model, "messages": HELLO},
                    headers=headers,
                ) as answer:
                    assert (answer.status, answer.headers.get("x-arm")) == (200, id)
        for wrong in ("[", '["i"', "[1]", '[["i"]]', "{"):
            asked = {"model": f"auto?arms={quote(wrong)}", "messages": HELLO}
            status, told = await client.post("/v1/chat/completions", asked)
            assert (status, told["error"]["param"]) in ((400, "arms"), (404, "arms"))
