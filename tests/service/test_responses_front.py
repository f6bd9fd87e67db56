"""OpenAI's own client asks by the Responses API; providers of every dialect answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from tests.service.dialects import (
    ANSWER,
    ARMS,
    CACHED,
    COST,
    PROMPT,
    REASONED,
    SIGNED,
    THOUGHT,
    Provider,
)

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PNG = "data:image/png;base64,iVBORw0KGgo="


class Capital(BaseModel):
    capital: str


@pytest.fixture
def client(dialects: tuple[str, Provider]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{dialects[0]}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("arm", ARMS)
def test_a_whole_answer(client: openai.OpenAI, provider: Provider, arm: str) -> None:
    raw = client.responses.with_raw_response.create(
        model=arm, input="Hello there", instructions="Be brief.", max_output_tokens=300
    )
    response = raw.parse()
    assert response.output_text == f"Hello from {arm}-large, ☃"
    assert (response.status, response.id) == ("completed", raw.headers["x-decision-id"])
    assert response.usage is not None
    assert response.usage.input_tokens == PROMPT
    assert response.usage.input_tokens_details.cached_tokens == CACHED
    assert response.usage.output_tokens == ANSWER
    if arm != "claude":
        assert response.usage.output_tokens_details.reasoning_tokens == REASONED
    assert response.instructions == "Be brief."
    assert raw.headers["x-arm"] == arm
    assert float(raw.headers["x-cost-usd"]) == pytest.approx(COST)
    assert "Be brief." in json.dumps(provider.last()[1])


@pytest.mark.parametrize("arm", ARMS)
def test_a_stream_has_every_event_in_order(client: openai.OpenAI, arm: str) -> None:
    seen = [*client.responses.create(model=arm, input="Hello there", stream=True)]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    kinds = [event.type for event in seen]
    assert [each for each in kinds if each != "response.output_text.delta"] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    text = "".join(each.delta for each in seen if each.type == "response.output_text.delta")
    last = seen[-1]
    assert last.type == "response.completed"
    assert text == last.response.output_text == f"Hello from {arm}-large, ☃"
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == PROMPT + ANSWER
    with client.responses.stream(model=arm, input="Hello there") as stream:
        assert stream.get_final_response().output_text == text


@pytest.mark.parametrize("arm", [*ARMS, "auto"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop_with_parallel_calls(client: openai.OpenAI, arm: str, streamed: bool) -> None:
    items: list[Any] = [{"role": "user", "content": "How is the weather?"}]

    def asked() -> Response:
        if not streamed:
            return client.responses.create(
                model=arm, input=items, tools=[WEATHER], store=False, instructions="Rules."
            )
        with client.responses.stream(
            model=arm, input=items, tools=[WEATHER], store=False, instructions="Rules."
        ) as stream:
            return stream.get_final_response()

    for _ in range(8 if arm == "auto" else 2):  # another arm may answer each turn
        response = asked()
        calls = [item for item in response.output if item.type == "function_call"]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [
            ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"}),
        ]  # fmt: skip
        items += response.output
        items += [
            {"type": "function_call_output", "call_id": call.call_id, "output": call.arguments}
            for call in calls
        ]
        response = asked()
        assert "Oslo" in response.output_text
        assert "Rome" in response.output_text
        items += [*response.output, {"role": "user", "content": "And now?"}]


@pytest.mark.parametrize("arm", ARMS)
def test_images_also_those_of_a_tool(client: openai.OpenAI, provider: Provider, arm: str) -> None:
    image: Any = {"type": "input_image", "image_url": PNG, "detail": "high"}
    text: Any = {"type": "input_text", "text": "What is it?"}
    items: list[Any] = [
        {"role": "user", "content": [image, text]},
        {"type": "function_call", "call_id": "c1", "name": "shot", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [image]},
    ]
    client.responses.create(model=arm, input=items)
    assert json.dumps(provider.last()[1]).count("iVBORw0KGgo=") == 2


@pytest.mark.parametrize("arm", ARMS)
def test_structured_output(client: openai.OpenAI, provider: Provider, arm: str) -> None:
    parsed = client.responses.parse(model=arm, input="Of France?", text_format=Capital)
    assert parsed.output_parsed == Capital(capital="Paris")
    assert "capital" in json.dumps(provider.last()[1])


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_comes_back_and_goes_to_nobody_else(
    client: openai.OpenAI, provider: Provider, streamed: bool
) -> None:
    asked: dict[str, Any] = {
        "model": "resp", "input": "Hello", "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }  # fmt: skip
    if streamed:
        with client.responses.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            response: Response = stream.get_final_response()
        assert "response.reasoning_summary_text.delta" in kinds
    else:
        response = client.responses.create(**asked)
    item = response.output[0]
    assert item.type == "reasoning"
    assert (item.encrypted_content, item.summary[0].text) == (SIGNED, THOUGHT)
    items: list[Any] = [{"role": "user", "content": "Hello"}, *response.output,
                        {"role": "user", "content": "Go on"}]  # fmt: skip
    for _ in range(8):  # the other arms are masked
        raw = client.responses.with_raw_response.create(model="auto", input=items)
        assert raw.headers["x-arm"] == "resp"
    assert provider.last()[1]["input"][1]["encrypted_content"] == SIGNED
    with pytest.raises(openai.BadRequestError, match="only its own provider can read"):
        client.responses.create(model="chat", input=items)


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_in_plain_words_goes_back_to_who_said_it(
    client: openai.OpenAI, provider: Provider, streamed: bool
) -> None:
    if streamed:
        with client.responses.stream(model="chat", input="think") as stream:
            kinds = [event.type for event in stream]
            response: Response = stream.get_final_response()
        assert "response.reasoning_text.delta" in kinds
    else:
        response = client.responses.create(model="chat", input="think")
    item = response.output[0]
    assert item.type == "reasoning"
    assert item.content is not None
    assert item.content[0].text == THOUGHT
    items: list[Any] = [*response.output, {"role": "user", "content": "Go on"}]
    client.responses.create(model="chat", input=items)
    assert provider.last()[1]["messages"][0]["reasoning_content"] == THOUGHT
    client.responses.create(model="resp", input=items)  # which does not know this item
    assert THOUGHT not in json.dumps(provider.last()[1])
    assert "bandit" not in json.dumps(provider.last()[1])


def test_what_came_for_its_own_dialect_is_passed_through(
    client: openai.OpenAI, provider: Provider
) -> None:
    asked: dict[str, Any] = {
        "input": "Hello", "store": True, "prompt_cache_key": "k", "metadata": {"a": "b"},
        "truncation": "auto", "service_tier": "flex",
    }  # fmt: skip
    raw = client.responses.with_raw_response.create(model="resp", **asked)
    assert provider.last()[1] == {"model": "resp-large", **asked}
    assert raw.http_response.json()["x_new_field"] == {"kept": 1.5}
    told = httpx.post(
        f"{client.base_url}responses", json={"model": "resp", "input": "x", "stream": True}
    ).text
    assert '"x_new_field":{"kept":1.5}' in told
    assert told.count("event: response.completed") == 1


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "background"])
def test_what_would_need_a_kept_response_is_refused_by_name(
    client: openai.OpenAI, name: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="keeps no response") as refused:
        client.responses.create(model="resp", input="x", extra_body={name: "resp_1"})
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"model": "nobody"}, "model"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(
    client: openai.OpenAI, wrong: dict[str, Any], field: str
) -> None:
    asked: dict[str, Any] = {"model": "chat", "input": "x"} | wrong
    with pytest.raises(openai.APIStatusError) as refused:
        client.responses.create(**asked)
    assert refused.value.param == field


@pytest.mark.parametrize("arm", ARMS)
def test_a_providers_errors_and_broken_streams(
    client: openai.OpenAI, provider: Provider, arm: str
) -> None:
    provider.how = "overloaded"
    with pytest.raises(openai.APIStatusError, match=arm) as failed:
        client.responses.create(model=arm, input="x")
    assert failed.value.status_code == 529
    provider.how = "cut"
    with pytest.raises(openai.APIError, match=r"reason|stream ended"):
        [*client.responses.create(model=arm, input="x", stream=True)]


def test_what_only_openai_has_masks_the_others(client: openai.OpenAI) -> None:
    search: Any = {"type": "web_search"}
    for _ in range(6):
        raw = client.responses.with_raw_response.create(model="auto", input="x", tools=[search])
        assert raw.headers["x-arm"] == "resp"
    with pytest.raises(openai.BadRequestError, match="only the Responses API has 'web_search'"):
        client.responses.create(model="claude", input="x", tools=[search])


@pytest.mark.parametrize("arm", ["auto", *ARMS])
def test_tokens_are_counted(client: openai.OpenAI, arm: str) -> None:
    raw = client.responses.input_tokens.with_raw_response.count(
        model=arm, input="Hello there", instructions="Be brief.", tools=[WEATHER]
    )
    told = raw.parse()
    assert told.object == "response.input_tokens"
    if arm == "resp":
        assert (told.input_tokens, raw.headers["x-token-count"]) == (654, "provider")
    else:
        assert 20 < told.input_tokens < 200
        assert raw.headers["x-token-count"] == "estimated"


def test_what_cannot_be_counted_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no arm 'nobody'"):
        client.responses.input_tokens.count(model="nobody", input="x")
    with pytest.raises(openai.BadRequestError, match="input: must be a text, or a list"):
        client.responses.input_tokens.count(model="auto")


async def test_asynchronously(dialects: tuple[str, Provider]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{dialects[0]}/v1", api_key="x") as asking:
        response = await asking.responses.create(model="auto", input="Hello")
        assert response.output_text.startswith("Hello from")
        async with asking.responses.stream(model="auto", input="Hello") as stream:
            assert (await stream.get_final_response()).output_text.startswith("Hello from")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_chat_is_answered_by_a_provider_of_the_responses_api(
    client: openai.OpenAI, provider: Provider, streamed: bool
) -> None:
    function = {name: each for name, each in WEATHER.items() if name != "type"}
    turns: list[Any] = [
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": [
            {"type": "text", "text": "Weather?"},
            {"type": "image_url", "image_url": {"url": PNG}},
        ]},
    ]  # fmt: skip
    asked: dict[str, Any] = {
        "model": "resp", "tools": [{"type": "function", "function": function}], "max_tokens": 90,
        "reasoning_effort": "low",
    }  # fmt: skip

    def answered() -> Any:
        if not streamed:
            return client.chat.completions.create(messages=turns, **asked)
        with client.chat.completions.stream(messages=turns, **asked) as stream:
            return stream.get_final_completion()

    choice = answered().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments)["city"] for call in choice.message.tool_calls] == [
        "Oslo", "Rome",
    ]  # fmt: skip
    assert choice.message.reasoning_content == THOUGHT
    assert provider.last()[1]["max_output_tokens"] == 90
    turns.append(choice.message.model_dump(include={"role", "content", "tool_calls"}))
    turns += [{"role": "tool", "tool_call_id": call.id, "content": call.function.arguments}
              for call in choice.message.tool_calls]  # fmt: skip
    said = answered()
    assert "Oslo" in said.choices[0].message.content
    assert said.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="stop: this provider does not support it"):
        client.chat.completions.create(model="resp", messages=turns, stop="x")
