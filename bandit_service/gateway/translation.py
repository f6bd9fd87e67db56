"""Calls of a dialect; every error of a translation becomes Refused or Failed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from bandit_service import clock
from bandit_service.core.arm_request import NOTHING, ArmRequest, unsayable
from bandit_service.core.errors import Refused
from bandit_service.gateway.failures import Failed, Rejected
from bandit_service.gateway.providers import Front, Heard, HttpRequest, Provider, provider_of
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

WRONG_TYPE = (TypeError, AttributeError, ValueError, KeyError, OverflowError)
"""The exceptions of reading an answer whose value has another type than the API's."""


def refusal(provider: Provider, path: str, body: Mapping[str, Any]) -> Refused | None:
    """Why this dialect cannot carry a request, naming the field; None if it can."""
    try:
        provider.check(path, body)
    except Refused as refused:
        return refused
    except Exception as error:  # noqa: BLE001 - it concerns this dialect, and no other
        return _unsayable(error)
    return None


def request_of(
    provider: Provider, upstream: Upstream, path: str, body: Mapping[str, Any]
) -> HttpRequest:
    """The request in the provider's dialect; Refused if the dialect cannot carry it."""
    try:
        return provider.request(upstream, path, body)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - it concerns this dialect, and no other
        raise _unsayable(error) from None


def configured(
    upstream: UpstreamSpec, path: str, body: Mapping[str, Any], request: ArmRequest
) -> Mapping[str, Any]:
    """A request of the upstream's dialect as an arm asks it;

    Refused if the dialect cannot express it.
    """
    if request == NOTHING:
        return body
    if wrong := unsayable(request, upstream.kind):
        raise Refused(wrong, param=wrong.partition(":")[0])
    try:
        return provider_of(upstream.kind).configured(upstream, path, body, request)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise _unsayable(error) from None


def _unsayable(error: Exception) -> Refused:
    return Refused(f"the request cannot be translated for this provider ({type(error).__name__})")


def heard_of(front: Front, own: dict[str, Any]) -> Heard:
    """A client's request as a chat completion; Refused if it is none."""
    try:
        return front.heard(own)
    except WRONG_TYPE as error:
        raise Refused(f"the body has an unexpected form ({type(error).__name__})") from None


def told_of(front: Front, answer: dict[str, Any], asked: dict[str, Any], id: str) -> dict[str, Any]:
    """A whole chat completion in the client's dialect. Raises Failed if it cannot be said there."""
    try:
        return front.told(answer, asked, id)
    except WRONG_TYPE as error:
        raise Failed(f"the answer has an unexpected form ({type(error).__name__})") from None


def answer_of(provider: Provider, answer: dict[str, Any]) -> dict[str, Any]:
    """A provider's whole answer in OpenAI's shape. Raises Failed if it is no answer."""
    try:
        return provider.answer(answer, int(clock.now()))
    except WRONG_TYPE as error:
        raise Failed(f"the answer has an unexpected form ({type(error).__name__})") from None


class Own(bytes):
    """The data of an event for a client of the same dialect; chunks: what OpenAI's would be."""

    chunks: Sequence[bytes] = ()

    @classmethod
    def of(cls, data: bytes, chunks: Sequence[bytes]) -> Own:
        """An event, and its content."""
        own = cls(data)
        own.chunks = chunks
        return own


async def chunks_of(
    provider: Provider, pieces: AsyncIterator[list[bytes]], own: bool = False
) -> AsyncGenerator[list[bytes], None]:
    """The data of a provider's events as OpenAI's chunks, those that came together. Raises Failed.

    own: or each as it is, an `Own`, of which the last may be without data. After the finish reason,
    an event that cannot be read is no failure.
    """
    decoder = provider.decoder(int(clock.now()))
    try:
        async for piece in pieces:
            chunks: list[bytes] = []
            try:
                for data in piece:
                    fed = decoder.feed(data)
                    chunks += [Own.of(data, fed)] if own else fed
            except (Failed, Rejected):
                if chunks:
                    yield chunks
                raise
            except WRONG_TYPE as error:
                raise Failed(f"an event has an unexpected form ({type(error).__name__})") from None
            yield chunks
    except Failed as failed:
        last = [] if failed.reported else decoder.end()
        if not last:
            raise
        yield [Own.of(b"", last)] if own else last
        return
    if last := decoder.end():
        yield [Own.of(b"", last)] if own else last
