"""Providers' requests and answers, which are passed on: the fields that the document names."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bandit_service.core.fields import doc


class Anything(msgspec.Struct):
    """An answer of the provider, passed on as it came."""


class _Passed(msgspec.Struct, kw_only=True):
    model: Annotated[str, doc("`auto`, `auto:POLICY` or the id of an arm.", "auto")]


class _Asked(_Passed, kw_only=True):
    stream: Annotated[bool | None, doc("Answer with server-sent events.", False)] = None
    stream_options: Annotated[
        dict[str, Any] | None, doc("As for OpenAI.", {"include_usage": True})
    ] = None
    tools: Annotated[
        list[dict[str, Any]] | None, doc("Only arms with the capability get these.", [])
    ] = None
    functions: Annotated[list[dict[str, Any]] | None, doc("The older form of `tools`.", [])] = None
    response_format: Annotated[dict[str, Any] | None, doc("As for OpenAI.", {"type": "text"})] = (
        None
    )
    tool_choice: Annotated[str | dict[str, Any] | None, doc("As for OpenAI.", "auto")] = None
    n: Annotated[float | None, doc("How many answers.", 1)] = None
    max_tokens: Annotated[float | None, doc("Most tokens of the answer.", 256)] = None
    max_completion_tokens: Annotated[float | None, doc("Most tokens of the answer.", 256)] = None
    temperature: Annotated[float | None, doc("As for OpenAI.", 0.7)] = None
    stop: Annotated[str | list[str] | None, doc("Texts at which the answer ends.", ["\n\n"])] = None


class Chat(_Asked, kw_only=True):
    """A chat completion. Other fields of OpenAI's are passed on."""

    messages: Annotated[
        list[dict[str, Any]],
        doc("The conversation.", [{"role": "user", "content": "Capital of France?"}], minItems=1),
    ]


class Completion(_Asked, kw_only=True):
    """A completion. Other fields of OpenAI's are passed on."""

    prompt: Annotated[Any, doc("The text to continue.", "The capital of France is")]


class Embeddings(_Passed, kw_only=True):
    """An embedding of texts, by the arm that is named, or `auto`. Other fields are passed on."""

    input: Annotated[Any, doc("The texts.", ["Capital of France?"])]


class TokenCount(msgspec.Struct, kw_only=True):
    """How many tokens a request has."""

    input_tokens: Annotated[int, doc("Tokens of the prompt.", 14)]


class InputTokens(TokenCount, kw_only=True):
    """The same, as the Responses API tells it."""

    object: Annotated[str, doc("What this is.", "response.input_tokens")]


class Counted(_Passed, kw_only=True):
    """A request of Anthropic's Messages API, to be counted. Other fields are passed on."""

    messages: Annotated[
        list[dict[str, Any]],
        doc("The turns.", [{"role": "user", "content": "Capital of France?"}], minItems=1),
    ]
    system: Annotated[str | list[dict[str, Any]] | None, doc("The system prompt.", "Be brief.")] = (
        None
    )
    tools: Annotated[
        list[dict[str, Any]] | None,
        doc(
            "Only arms with the capability get these; only Anthropic's models get tools that are "
            "not functions.",
            [{"name": "weather", "input_schema": {"type": "object"}}],
        ),
    ] = None
    tool_choice: Annotated[dict[str, Any] | None, doc("As for Anthropic.", {"type": "auto"})] = None


class Message(Counted, kw_only=True):
    """A request of Anthropic's Messages API. Other fields are passed on to its own providers."""

    max_tokens: Annotated[int, doc("Most tokens of the answer.", 256, minimum=1)]
    stream: Annotated[bool | None, doc("Answer with server-sent events.", False)] = None
    stop_sequences: Annotated[list[str] | None, doc("Texts at which the answer ends.", ["END"])] = (
        None
    )
    temperature: Annotated[float | None, doc("As for Anthropic.", 0.7)] = None
    top_p: Annotated[float | None, doc("As for Anthropic.", 0.9)] = None
    metadata: Annotated[
        dict[str, Any] | None,
        doc("`user_id` is the unit if no other is named.", {"user_id": "user-17"}),
    ] = None


class Responses(_Passed, kw_only=True):
    """A request of OpenAI's Responses API. Other fields are passed on to its own providers."""

    input: Annotated[
        str | list[dict[str, Any]], doc("A text, or the items so far.", "Capital of France?")
    ]
    instructions: Annotated[str | None, doc("The system prompt.", "Be brief.")] = None
    stream: Annotated[bool | None, doc("Answer with server-sent events.", False)] = None
    tools: Annotated[
        list[dict[str, Any]] | None,
        doc(
            "Only arms with the capability get these; only OpenAI's models get tools that are not "
            "functions.",
            [],
        ),
    ] = None
    tool_choice: Annotated[str | dict[str, Any] | None, doc("As for OpenAI.", "auto")] = None
    max_output_tokens: Annotated[int | None, doc("Most tokens of the answer.", 256, minimum=1)] = (
        None
    )
    temperature: Annotated[float | None, doc("As for OpenAI.", 0.7)] = None
    top_p: Annotated[float | None, doc("As for OpenAI.", 0.9)] = None
    text: Annotated[
        dict[str, Any] | None, doc("The form of the answer.", {"format": {"type": "text"}})
    ] = None
    reasoning: Annotated[dict[str, Any] | None, doc("How much to reason.", {"effort": "low"})] = (
        None
    )
    store: Annotated[
        bool | None, doc("Passed on to OpenAI; this service keeps no response.", False)
    ] = None
