"""Requests as they come over HTTP and the stream: parsed, checked, and named when wrong.

The same structs serve JSON and MessagePack, so a field means the same thing everywhere.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import Any, TypeVar

import msgspec
import numpy as np

from bandit_service.core import events as ev
from bandit_service.core.errors import Malformed, Refused, TooLarge, field_of, in_words
from bandit_service.core.explanation import belief
from bandit_service.core.outcomes import Reported, Signals, check_signals, digest
from bandit_service.embedding import check_embedding, text_of_messages
from bandit_service.parsing.inputs import json_of
from bandit_service.parsing.validation import unknown
from policies import ArmId, Vector

R = TypeVar("R", bound=msgspec.Struct)
MAX_NAME = 256
MAX_DEPTH = 32
"""Lists and maps in each other; a request of ours needs five."""
MAX_DEPTH_PASSED = 128
"""The same of what is passed on: the schemas of tools and answers."""
_LONG = re.compile(rb"\d{19}")
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A query in one of its three forms; `embedding` is numbers, or float32 bytes."""

    query: str | None = None
    messages: list[dict[str, Any]] | None = None
    embedding: list[float] | bytes | None = None


class DecideRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/decide."""

    unit: str = ""
    tenant: str = ""
    session: str = ""
    conversation: str = ""
    arms: list[str] | None = None
    max_cost_usd: float | None = None
    max_latency_s: float | None = None
    willingness_to_pay: float | None = None
    requires: list[str] = []
    policy: str = ""
    explain: bool = False


class ExplainRequest(DecideRequest, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/explain: as for a decision, or `decision_id` alone for the query of that one."""

    decision_id: str | None = None


class RewardRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/rewards: for a decision, or self-contained with a query and an arm."""

    decision_id: str | None = None
    arm: str | None = None
    quality: float | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    reward: float | None = None
    willingness_to_pay: float | None = None
    idempotency_key: str = ""
    correction: bool = False
    metrics: dict[str, float] = {}
    unit: str = ""
    tenant: str = ""

    def reported(self) -> Reported:
        """The signals, and the digest by which a resend is recognised; checks their ranges."""
        signals = Signals(self.quality, self.cost_usd, self.latency_s, self.reward, self.metrics)
        check_signals(signals)
        _check_name("idempotency_key", self.idempotency_key)
        return Reported(
            signals,
            self.idempotency_key,
            digest("reward", self.decision_id, self.arm, signals.said()),
            self.correction,
        )


class CompareRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/comparisons: for a decision, or self-contained with a query."""

    winner: str
    loser: str
    tie: bool = False
    decision_id: str | None = None
    willingness_to_pay: float | None = None
    idempotency_key: str = ""
    correction: bool = False
    unit: str = ""
    tenant: str = ""

    def digested(self) -> str:
        """What a resend under the same idempotency key must agree with."""
        _check_name("idempotency_key", self.idempotency_key)
        return digest("comparison", self.decision_id, self.winner, self.loser, self.tie)


class ExperimentPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """PATCH /v1/experiments/{id}: what changes, and why."""

    share: float | None = None
    weights: dict[str, float] | None = None
    release: str | None = None
    why: str = ""


class ExperimentMove(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/experiments/{id}/start and /pause."""

    why: str = ""


class ExperimentStop(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/experiments/{id}/stop. winner: the variant to keep, else what the numbers say."""

    why: str = ""
    winner: str = ""
    ship: bool = False


class PolicyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """PUT /v1/policy."""

    name: str
    parameters: dict[str, Any] = {}


class WhatIfRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/experiments/{id}/whatif: candidates, and on which decisions they are judged.

    on: "experiment" for the decisions of its units, "service" for all. since, until: UTC seconds.
    frozen: the candidates learn up to `since`, or half of the log. last: only the newest so many.
    metric: reward, quality, cost_usd or latency_s. clip: the largest weight of clipped IPS and
    Switch-DR. anyway: figures also where they are refused.
    """

    policies: list[PolicyRequest]
    on: str = "experiment"
    since: float | None = None
    until: float | None = None
    frozen: bool = False
    last: int = 20_000
    metric: str = "reward"
    alpha: float = 0.05
    clip: float = 10.0
    anyway: bool = False


def convert(value: Any, kind: type[R]) -> R:
    """The request that a decoded JSON or MessagePack value holds; Refused names the field.

    A field of null is absent, as those mean it who write out all of their fields.
    """
    if isinstance(value, dict) and None in value.values():
        known = {each.encode_name for each in msgspec.structs.fields(kind)}
        value = {
            name: each for name, each in value.items() if each is not None or name not in known
        }
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        param, what = field_of(error)
        if param is not None and param == str(error).partition("unknown field `")[2].rstrip("`"):
            what = unknown(param, kind)
        raise Refused(f"{param}: {what}" if param else what, param=param) from None


def decode_json(body: bytes) -> Any:
    """JSON, with or without a byte-order mark; Malformed says where it stops being so."""
    body = body.removeprefix(BOM_UTF8)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        half = _HALF.search(body) if isinstance(error, msgspec.DecodeError) else None
        if half is not None:
            raise Malformed(
                f"the body is not text: {half[0].decode()} (byte {half.start()}) is half a "
                "character, a surrogate without the other one"
            ) from None
        raise Malformed(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def decode_passed(body: bytes) -> Any:
    """JSON that is passed on: what its sender's own tools write, and a provider would not read.

    NaN is null, half a character is U+FFFD, and a schema of a tool may be nested deep.
    """
    try:
        value = json_of(body)
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH_PASSED:
        _check_depth(value, MAX_DEPTH_PASSED)
    return value


def decode_request(body: bytes) -> Any:
    """JSON of a request of ours, in which no whole number is beyond 64 bits; Refused names it."""
    value = decode_json(body)
    if _LONG.search(body) is not None:
        _check_whole("", value)
    return value


def _check_whole(at: str, value: Any) -> None:
    if type(value) is int and not -(2**63) <= value < 2**64:
        where = at or "body"
        raise Refused(f"{where}: integers must fit in 64 bits", param=where.partition(".")[0])
    if type(value) is dict:
        for key, inner in value.items():
            _check_whole(f"{at}.{key}" if at else key, inner)
    elif type(value) is list:
        for i, inner in enumerate(value):
            _check_whole(f"{at}[{i}]", inner)


def decode_msgpack(body: bytes) -> Any:
    """MessagePack, or Malformed saying what is wrong with it."""
    try:
        value = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"the message is not MessagePack: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    return value


def _check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Raise Malformed where lists and maps are nested deeper than this."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if type(outer) is list or type(outer) is dict
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is list or type(inner) is dict
        ]
        if not level:
            return
    raise _too_deep(most)


def _too_deep(most: int = MAX_DEPTH) -> Malformed:
    return Malformed(f"nested too deeply; at most {most} lists and maps in each other")


def text_and_size(request: Query, max_chars: int | None) -> tuple[str | None, int]:
    """The text to embed (None when the client embedded it) and the characters of the whole query.

    max_chars: the most that are allowed, None for any number.

    Exactly one of `query`, `messages` and `embedding` must be there.
    """
    given = [
        name for name in ("query", "messages", "embedding") if getattr(request, name) is not None
    ]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise Refused(
            f"query: send exactly one of query, messages and embedding, got {found}", param="query"
        )
    if request.embedding is not None:
        return None, 0
    if request.query is not None:
        text, size, param = request.query, len(request.query), "query"
    else:
        assert request.messages is not None
        try:
            text = text_of_messages(request.messages)
        except ValueError as error:
            raise Refused(f"messages: {error}", param="messages") from None
        size, param = len(msgspec.json.encode(request.messages)), "messages"
    if not text.strip():
        raise Refused(f"{param}: is empty", param=param)
    if max_chars is not None and size > max_chars:
        raise TooLarge(f"{param}: {size} characters, at most {max_chars} are allowed", param=param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(f"{param}: holds a lone surrogate, which is not text", param=param) from None
    return text, size


def embedding_of(request: Query, dim: int) -> Vector:
    """The client's own embedding, checked for length, finiteness and norm."""
    values = request.embedding
    assert values is not None
    if isinstance(values, bytes):
        if len(values) != 4 * dim:
            raise Refused(
                f"embedding: must be {dim} float32, {4 * dim} bytes, got {len(values)}",
                param="embedding",
            )
        values = np.frombuffer(values, "<f4")  # type: ignore[assignment]
    try:
        return check_embedding(values, dim)
    except ValueError as error:
        message = str(error)
        if not message.startswith("embedding"):
            message = f"embedding: {message}"
        raise Refused(message, param="embedding") from None


def check_constraints(request: DecideRequest) -> None:
    """Raise Refused for a limit that is not a positive number, or a name that is too long."""
    for name in ("max_cost_usd", "max_latency_s"):
        check_positive(name, getattr(request, name))
    check_positive("willingness_to_pay", request.willingness_to_pay, least=1e-9, most=1e6)
    check_names(request.unit, request.tenant)
    _check_name("session", request.session)
    _check_name("conversation", request.conversation)
    if request.arms is not None and not request.arms:
        raise Refused("arms: the list is empty; leave it out to allow every arm", param="arms")


def check_names(unit: str, tenant: str) -> None:
    """Raise Refused for a name that is too long."""
    _check_name("unit", unit)
    _check_name("tenant", tenant)


def check_positive(name: str, value: float | None, least: float = 0.0, most: float = 1e9) -> None:
    """Raise Refused unless `value` is None or a number from `least` to `most`."""
    if value is not None and not least <= value <= most:  # nor is what is no number
        told = f"must be a number from {least:g} to {most:g}, got {in_words(value)}"
        raise Refused(f"{name}: {told}", param=name)


def refuse_subject(request: RewardRequest | CompareRequest) -> None:
    """Raise Refused when an outcome names both a decision and a query of its own."""
    for name in ("query", "messages", "embedding", "arm", "willingness_to_pay", "unit", "tenant"):
        if getattr(request, name, None) not in (None, ""):
            raise Refused(
                f"{name}: belongs to a self-contained outcome; leave it or decision_id out",
                param=name,
            )


def refuse_more(request: ExplainRequest) -> None:
    """Raise Refused when a decision is to be weighed again and something else is named too."""
    for field in msgspec.structs.fields(request):
        name, default = field.name, field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if name not in ("decision_id", "explain") and getattr(request, name) != default:
            raise Refused(
                f"{name}: the query of decision_id is weighed as it was; leave {name} or "
                "decision_id out",
                param=name,
            )


def required(request: RewardRequest, name: str) -> str:
    """The field that a self-contained reward must have."""
    value: str | None = getattr(request, name)
    if value is None:
        raise Refused(f"{name}: send decision_id, or a query and {name}", param=name)
    return value


def arm_ids(names: list[str] | None) -> tuple[ArmId, ...] | None:
    """An allow-list as arm ids."""
    return None if names is None else tuple(ArmId(name) for name in names)


def decided_body(decided: ev.Decided) -> dict[str, Any]:
    """The answer to a decide."""
    expected: dict[str, Any] = {"cost_usd": decided.expected_cost_usd}
    n = decided.expected_count
    if n is not None:
        expected["n"] = n
    if n == 0.0:  # what the policy believed was its prior, which nothing speaks for
        expected["untried"] = True
    elif decided.expected_quality is not None:
        expected["quality"] = decided.expected_quality
    if decided.expected_latency_s is not None:
        expected["latency_s"] = decided.expected_latency_s
    body: dict[str, Any] = {
        "decision_id": decided.id,
        "arm": decided.arm,
        "propensity": decided.propensity,
        "policy": decided.policy,
        "expected": expected,
    }
    if decided.experiment:
        body |= {"experiment": decided.experiment, "variant": decided.variant}
    if decided.fallback:
        body["fallback"] = decided.fallback
    return body


def explained_body(decided: ev.Decided) -> dict[str, Any]:
    """Why this arm: scores, propensities, neighbours recalled, and what constraints took out."""
    value, deviation = decided.expected_quality, decided.expected_deviation
    expected = {"expected": decided_body(decided)["expected"]}
    told = belief(value, deviation, decided.expected_count)
    expected["expected"] |= {name: told[name] for name in ("prior", "low", "high") if name in told}
    return expected | {
        "steps": list(decided.steps),
        "scores": dict(zip(decided.arms, decided.scores, strict=True)),
        "propensities": dict(zip(decided.arms, decided.propensities, strict=True)),
        "neighbours": [
            {"id": id, "similarity": similarity}
            for id, similarity in zip(decided.neighbours, decided.similarities, strict=True)
        ],
        "excluded": decided.excluded,
        "untried": [decided.arms[k] for k in decided.untried],
    }


def _check_name(name: str, value: str) -> None:
    if len(value) > MAX_NAME:
        raise Refused(f"{name}: at most {MAX_NAME} characters, got {len(value)}", param=name)
