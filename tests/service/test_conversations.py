"""Conversations keep their model: sessions, tool loops, signed thinking, with real clients."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from bandit_service.core.conversations import Conversations, Turn
from tests.service.dialects import SIGNED, Provider, running
from tests.service.provider import ARMS, HELLO, a_gateway

CALM = {"BANDIT_EXPLORATION_SHARE": "0", "BANDIT_POLICY_NAME": "uniform"}
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "parameters": {}}}
SAID: Any = {"role": "assistant", "content": "Hi"}
MORE: Any = {"role": "user", "content": "And then?"}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[tuple[str, Provider]]:
    with running(tmp_path_factory.mktemp("conversations"), models, **CALM) as made:
        yield made


@pytest.fixture
def chat(service: tuple[str, Provider]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service[0]}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def messages(service: tuple[str, Provider]) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=service[0], api_key="none", max_retries=0) as made:
        yield made


TOOL: Any = [{"name": "weather", "input_schema": {"type": "object"}}]


def _asked(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}{path}", timeout=60) as answer:
        return json.load(answer)


def _completion(client: openai.OpenAI, turns: list[Any], **more: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model="auto", messages=turns, **more)


def _arms(ask: Callable[[str], Any], names: list[str]) -> list[str]:
    return [ask(name).headers["x-arm"] for name in names]


def test_a_conversation_stays_on_every_front(
    chat: openai.OpenAI, messages: anthropic.Anthropic
) -> None:
    """By chance alone seven turns of three conversations would do so once in 10^9 times."""

    def completed(name: str) -> Any:
        return _completion(chat, [{"role": "user", "content": f"{name} c"}, SAID, MORE])

    def responded(name: str) -> Any:
        first = {"role": "user", "content": f"{name} r"}
        items: Any = [first, {"role": "assistant", "content": "Hi"}, MORE]
        return chat.responses.with_raw_response.create(model="auto", input=items)

    def told(name: str) -> Any:
        turns: Any = [{"role": "user", "content": f"{name} m"}, SAID, MORE]
        return messages.messages.with_raw_response.create(
            model="auto", max_tokens=9, messages=turns
        )

    for ask in (completed, responded, told):
        seen = {name: _arms(ask, [name] * 7) for name in ("one", "two", "three")}
        assert all(len(set(arms)) == 1 for arms in seen.values()), (ask.__name__, seen)
        answer = ask("one")
        assert answer.headers["x-bandit-reason"] == "stayed"


def test_agents_sessions_are_told_apart_and_kept(chat: openai.OpenAI, service: Any) -> None:
    """Other texts of the system each time, as agents send them, and the same first message."""
    turns: list[Any] = [{"role": "user", "content": "Fix the bug"}, SAID, MORE]

    def asked(headers: dict[str, str], **body: Any) -> str:
        system = {"role": "system", "content": f"It is {len(seen)}"}
        seen.append(1)
        answer = _completion(chat, [system, *turns], extra_headers=headers, **body)
        return str(_asked(service[0], f"/v1/decisions/{answer.parse().id}")["conversation"])

    seen: list[int] = []
    names: list[dict[str, Any]] = [
        {"headers": {"x-conversation": "1"}},
        {"headers": {"x-claude-code-session-id": "1"}},
        {"headers": {"x-claude-code-session-id": "1", "x-claude-code-agent-id": "2"}},
        {"headers": {"session-id": "1"}},
        {"headers": {"session_id": "1"}},
        {"headers": {"x-opencode-session": "1"}},
        {"headers": {}, "prompt_cache_key": "1"},
        {"headers": {}, "metadata": {"session_id": "1"}},
        {"headers": {}, "user": "someone"},
    ]
    first, again = [asked(**name) for name in names], [asked(**name) for name in names]
    assert first == again
    assert len({*first}) == len(names)
    assert asked({}) != asked({}), "the text of the system tells those apart that have no name"


def test_off_by_a_header_and_a_wrong_word_is_refused(chat: openai.OpenAI, service: Any) -> None:
    turns: list[Any] = [{"role": "user", "content": "Not this one"}, SAID, MORE]
    arms = set()
    for _ in range(60):  # by chance one arm alone once in 10^28 times
        answer = _completion(chat, turns, extra_headers={"x-keep-model": "off"})
        arms.add(answer.headers["x-arm"])
        assert answer.headers["x-bandit-reason"] == "drawn"
        if len(arms) == 3:
            break
    assert len(arms) == 3
    decided = _asked(service[0], f"/v1/decisions/{answer.parse().id}")
    assert "conversation" not in decided
    with pytest.raises(openai.BadRequestError, match="x-keep-model: must be on or off") as refused:
        _completion(chat, turns, extra_headers={"x-keep-model": "perhaps"})
    assert refused.value.param == "x-keep-model"


def test_what_begins_is_drawn_anew_though_it_was_asked_before(chat: openai.OpenAI) -> None:
    seen = set()
    for _ in range(60):
        seen.add(_completion(chat, [{"role": "user", "content": "What is new?"}]).headers["x-arm"])
        if len(seen) == 3:
            break
    assert len(seen) == 3


def test_a_tool_loop_is_never_switched(chat: openai.OpenAI, service: Any) -> None:
    for name in ("o", "p", "q"):
        turns: list[Any] = [{"role": "user", "content": f"Weather in {name}?"}]
        answer = _completion(chat, turns, tools=[FUNCTION])
        arm, message = answer.headers["x-arm"], answer.parse().choices[0].message
        turns.append(message.model_dump(exclude_none=True))
        turns += [
            {"role": "tool", "tool_call_id": call.id, "content": "rain"}
            for call in message.tool_calls
        ]
        for _ in range(4):
            answer = _completion(chat, turns, tools=[FUNCTION])
            assert answer.headers["x-arm"] == arm
            assert answer.headers["x-bandit-reason"] == "tool_loop"
        decided = _asked(service[0], f"/v1/decisions/{answer.parse().id}")
        assert (decided["reason"], decided["stayed"], decided["before"]) == ("tool_loop", True, arm)
        assert decided["propensities"] == {arm: 1.0}
        assert set(decided["excluded"]) == {"chat", "claude", "resp"} - {arm}
        assert all("tool's result" in why for why in decided["excluded"].values())


@pytest.mark.parametrize("stream", [False, True])
def test_loops_that_opened_alike_go_on_each_where_its_tool_was_called(
    chat: openai.OpenAI, messages: anthropic.Anthropic, stream: bool
) -> None:
    """As sub-agents of one task do, all of whose first messages are the same."""

    def completed(turns: list[Any]) -> tuple[str, list[Any]]:
        answer = _completion(chat, turns, tools=[FUNCTION], stream=stream)
        if not stream:
            message = answer.parse().choices[0].message.model_dump(exclude_none=True)
        else:
            deltas = [chunk.choices[0].delta for chunk in answer.parse() if chunk.choices]
            calls: dict[int, Any] = {}
            for each in (call for delta in deltas for call in delta.tool_calls or ()):
                call = calls.setdefault(each.index, each)
                if call is not each:
                    call.function.arguments += each.function.arguments
            message = {"role": "assistant", "tool_calls": [
                call.model_dump(exclude={"index"}) for call in calls.values()]}  # fmt: skip
        told = [{"role": "tool", "tool_call_id": call["id"], "content": "rain"}
                for call in message["tool_calls"]]  # fmt: skip
        return answer.headers["x-arm"], [*turns, message, *told]

    def told(turns: list[Any]) -> tuple[str, list[Any]]:
        asked: Any = {
            "model": "auto", "max_tokens": 100, "messages": turns,
            "tools": TOOL,
        }  # fmt: skip
        if stream:
            with messages.messages.stream(**asked) as events:
                message, arm = events.get_final_message(), events.response.headers["x-arm"]
        else:
            answer = messages.messages.with_raw_response.create(**asked)
            message, arm = answer.parse(), answer.headers["x-arm"]
        content = [
            block.model_dump(exclude_none=True, exclude={"caller"}) for block in message.content
        ]
        results = [{"type": "tool_result", "tool_use_id": block["id"], "content": "rain"}
                   for block in content if block["type"] == "tool_use"]  # fmt: skip
        said = [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
        return arm, [*turns, *said]

    for front in (completed, told):
        start = [{"role": "user", "content": f"Which weather, by {front.__name__} {stream}?"}]
        loops: dict[str, list[Any]] = {}
        for _ in range(60):  # by chance one arm alone once in 10^28 times
            arm, turns = front(start)
            loops.setdefault(arm, turns)
            if len(loops) == 3:
                break
        assert len(loops) == 3
        for arm, turns in [*loops.items(), *loops.items()]:
            if front is completed:
                answer = _completion(chat, turns, tools=[FUNCTION])
            else:
                answer = messages.messages.with_raw_response.create(
                    model="auto", max_tokens=100, messages=turns,
                    tools=TOOL,
                )  # fmt: skip
            assert (answer.headers["x-arm"], answer.headers["x-bandit-reason"]) == (
                arm, "tool_loop"
            )  # fmt: skip


def test_a_tool_loop_goes_on_elsewhere_only_where_its_arm_failed(
    chat: openai.OpenAI, service: Any
) -> None:
    turns: list[Any] = [{"role": "user", "content": "Weather in a storm?"}]
    answer = _completion(chat, turns, tools=[FUNCTION])
    arm, message = answer.headers["x-arm"], answer.parse().choices[0].message
    turns.append(message.model_dump(exclude_none=True))
    turns += [
        {"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls
    ]
    provider = service[1]
    provider.overloaded = {f"{arm}-large"}
    try:
        answer = _completion(chat, turns, tools=[FUNCTION])
    finally:
        provider.overloaded = set()
    assert answer.headers["x-arm"] != arm
    assert answer.headers["x-bandit-reason"] == "fallback"


def test_a_tool_loop_goes_on_elsewhere_where_its_arm_may_no_longer_be_drawn(
    chat: openai.OpenAI, service: Any
) -> None:
    turns: list[Any] = [{"role": "user", "content": "Weather in the fog?"}]
    answer = _completion(chat, turns, tools=[FUNCTION])
    arm, message = answer.headers["x-arm"], answer.parse().choices[0].message
    turns.append(message.model_dump(exclude_none=True))
    turns += [
        {"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls
    ]
    url = service[0]
    known = next(each for each in _asked(url, "/v1/arms")["arms"] if each["id"] == arm)
    names = ("usd_per_mtok_in", "usd_per_mtok_out", "upstream", "model", "usd_per_mtok_cached_in")
    spec = {name: known[name] for name in (*names, "context_window", "capabilities")}
    _put(url, f"/v1/arms/{arm}", spec | {"capabilities": []})
    try:
        answer = _completion(chat, turns, tools=[FUNCTION])
    finally:
        _put(url, f"/v1/arms/{arm}", spec)
    assert answer.headers["x-arm"] != arm
    decided = _asked(url, f"/v1/decisions/{answer.parse().id}")
    assert decided["excluded"][arm] == "requires tools"


def _put(url: str, path: str, body: Any) -> None:
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


def test_signed_thinking_goes_to_no_other_vendor(
    messages: anthropic.Anthropic, service: Any
) -> None:
    thought: Any = {"type": "thinking", "thinking": "Hm.", "signature": SIGNED}
    first: Any = {"role": "user", "content": "Think first"}
    asked: Any = messages.messages.with_raw_response.create(
        model="claude", max_tokens=9, messages=[first]
    )
    assert asked.headers["x-bandit-reason"] == "direct"
    said = [thought, {"type": "text", "text": "Hi"}]
    turns: list[Any] = [first, {"role": "assistant", "content": said}, MORE]
    for _ in range(4):
        answer = messages.messages.with_raw_response.create(
            model="auto", max_tokens=9, messages=turns
        )
        assert answer.headers["x-arm"] == "claude"


def test_a_conversation_that_began_alike_takes_no_signed_thinking_to_another_vendor(
    chat: openai.OpenAI, messages: anthropic.Anthropic
) -> None:
    """Two users greet in the same words, and the later answer was by an arm of another dialect."""
    first: Any = {"role": "user", "content": "Good morning"}
    ask = messages.messages.with_raw_response.create
    ask(model="claude", max_tokens=9, messages=[first])
    for other in ("resp", "chat"):
        ask(model=other, max_tokens=9, messages=[first])
        thought: Any = {"type": "thinking", "thinking": "Hm.", "signature": SIGNED}
        said: Any = [thought, {"type": "text", "text": "Hi"}]
        turns: Any = [first, {"role": "assistant", "content": said}, MORE]
        answer = ask(model="auto", max_tokens=9, messages=turns)
        assert answer.headers["x-arm"] == "claude"
    item: Any = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SIGNED}
    chat.responses.create(model="resp", input=[first])
    ask(model="claude", max_tokens=9, messages=[first])
    raw = chat.responses.with_raw_response.create(model="auto", input=[first, item, SAID, MORE])
    assert raw.headers["x-arm"] == "resp"


def test_unsigned_thinking_goes_back_only_to_a_provider_that_may_have_thought_it(
    chat: openai.OpenAI, messages: anthropic.Anthropic, service: Any
) -> None:
    _, provider = service
    thought: Any = {"type": "thinking", "thinking": "Hm, well.", "signature": ""}
    item: Any = {"type": "reasoning", "id": "rs_1", "summary": [],
                 "content": [{"type": "reasoning_text", "text": "Hm, well."}]}  # fmt: skip

    def told(name: str, arm: str, front: str) -> str:
        first: Any = {"role": "user", "content": f"{name} {front}"}
        if front == "messages":
            said = [thought, {"type": "text", "text": "Hi"}]
            turns: Any = [first, {"role": "assistant", "content": said}, MORE]
            messages.messages.create(model=arm, max_tokens=9, messages=turns)
        else:
            chat.responses.create(model=arm, input=[first, item, SAID, MORE])
        return str(provider.last()[1]["messages"][1].get("reasoning_content", ""))

    for front in ("messages", "responses"):
        assert told("Nobody knows", "chat", front) == "Hm, well."
        assert told("Nobody knows", "chat", front) == "Hm, well.", "it answered itself"
        begun: Any = [{"role": "user", "content": f"Claude thought {front}"}]
        messages.messages.create(model="claude", max_tokens=9, messages=begun)
        assert told("Claude thought", "chat", front) == ""


@pytest.mark.parametrize("silent", [False, True])
def test_a_signature_binds_however_long_the_conversation_was_silent(
    chat: openai.OpenAI, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn: Any = Conversations.turn

    def anew(self: Conversations, *what: Any, **more: Any) -> Turn:
        made: Turn = turn(self, *what[:4], -1.0, **more)
        return made

    if silent:
        monkeypatch.setattr(Conversations, "turn", anew)
    turns: list[Any] = [{"role": "user", "content": f"Reason first {silent}"}]
    chat.chat.completions.create(model="chat", messages=turns)
    turns += [SAID | {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, MORE]
    for _ in range(2):
        answer = _completion(chat, turns)
        told = answer.headers["x-arm"], answer.headers["x-bandit-reason"]
        assert told == ("chat", "signed_thinking")


async def test_it_survives_a_restart_and_costs_are_part_of_the_score(
    tmp_path: Path, models: Path
) -> None:
    body: dict[str, Any] = {"model": "auto", "messages": [*HELLO, SAID, MORE]}
    async with a_gateway(tmp_path, models, **CALM) as (client, provider):
        status, first = await client.post("/v1/chat/completions", body)
        assert status == 200
    async with a_gateway(tmp_path, models, **CALM) as (client, provider):
        for _ in range(6):
            _, answer = await client.post("/v1/chat/completions", body)
            assert provider.seen[-1]["model"] == first["model"]
        _, decided = await client.get(f"/v1/decisions/{answer['id']}")
        others = set(ARMS) - {first["model"]}
        assert decided["reason"] == "stayed"
        assert all(decided["switch_usd"][arm] > 0.0 for arm in others)
        assert decided["switch_usd"][first["model"]] == 0.0
        assert decided["propensities"] == {first["model"]: 1.0, **dict.fromkeys(others, 0.0)}
        _, why = await client.post("/v1/explain", {"decision_id": answer["id"]})
        switches = {arm["id"]: arm["switch_usd"] for arm in why["arms"]}
        assert switches.keys() == set(ARMS)
        assert all(switches[arm] > 0.0 for arm in others)
        async with client.session.get(f"{client.url}/metrics") as exposed:
            text = await exposed.text()
        assert 'bandit_conversation_turns_total{reason="stayed",stayed="yes"} 6.0' in text
    files = b"".join(each.read_bytes() for each in (tmp_path / "var").rglob("*") if each.is_file())
    assert b"Hello there" not in files
