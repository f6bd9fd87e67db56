"""OpenAI's requests and answers, which are passed on: the fields that the document names."""

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
    stop: Annotated[str | list[str] | None, doc("Where the answer is to end.", ["\n\n"])] = None


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
    """An embedding of texts, by the arm that is named. Other fields are passed on."""

    input: Annotated[Any, doc("The texts.", ["Capital of France?"])]
