"""Whatever a provider sends is an answer or its failure, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.gateway.failures import Failed, Rejected, raise_for_error
from bandit_service.gateway.judges import answer_text
from bandit_service.gateway.providers import provider_of
from bandit_service.gateway.streamed_answer import StreamedAnswer, rewritten
from bandit_service.gateway.translation import answer_of, chunks_of
from bandit_service.gateway.usage import answer_bytes
from bandit_service.settings.upstreams import KINDS

_NAMES = ("id", "type", "index", "choices", "delta", "message", "content", "text", "finish_reason",
          "usage", "error", "model", "content_block", "stop_reason", "input", "tool_calls",
          "input_tokens", "thinking", "partial_json", "role")  # fmt: skip
_WORDS = ("message_start", "content_block_start", "content_block_delta", "content_block_stop",
          "message_delta", "message_stop", "error", "text_delta", "input_json_delta", "tool_use",
          "text", "stop", "x")  # fmt: skip
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(_WORDS) | st.just(10**30),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)
_EVENT = st.fixed_dictionaries(
    {"type": st.sampled_from(_WORDS)},
    optional=dict.fromkeys(("index", "delta", "message", "content_block", "usage"), _ANY),
)


@given(st.lists(_ANY | st.fixed_dictionaries({"choices": st.lists(_ANY, max_size=2)}), max_size=4))
def test_no_event_of_openais_does_anything_else(events: list[Any]) -> None:
    passed = StreamedAnswer(hide_usage=True, text=[])
    with suppress(Failed, Rejected):
        for each in events:
            for told in rewritten([json.dumps(each).encode()], "id", passed).split(b"\n\n"):
                assert told.removeprefix(b"data: ")[:1] in (b"", b"{")
        passed.whole_text()


@settings(deadline=None)
@given(st.lists(_EVENT, max_size=5))
def test_no_event_of_anthropics_does_anything_else(events: list[Any]) -> None:
    async def pieces() -> AsyncIterator[list[bytes]]:
        for each in events:
            yield [json.dumps(each).encode()]

    async def read() -> None:
        passed = StreamedAnswer(text=[])
        async for piece in chunks_of(provider_of("anthropic"), pieces()):
            rewritten(piece, "id", passed)

    with suppress(Failed, Rejected):
        asyncio.run(read())


@given(st.dictionaries(st.sampled_from(_NAMES), _ANY), st.sampled_from(KINDS))
def test_no_whole_answer_does_anything_else(answer: dict[str, Any], kind: str) -> None:
    with suppress(Failed, Rejected):
        raise_for_error(answer)
        told = answer_of(provider_of(kind), answer)
        choices = told.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            answer_bytes(choices)
            answer_text(told)
