"""Requests as they come over HTTP and the stream: parsed, checked, and named when wrong.

The same structs serve JSON and MessagePack, so a field means the same thing everywhere.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from bandit_service.core.errors import Malformed, Refused, TooLarge, field_of
from bandit_service.core.experiments.spec import LEAST_ALPHA, METRICS
from bandit_service.core.fields import Limit, Name, Reward, Seconds, Share, Usd, Worth, doc
from bandit_service.core.outcomes import Reported, Signals, check_signals, digest
from bandit_service.embedding import check_embedding, text_of_messages
from bandit_service.parsing.inputs import json_of
from bandit_service.parsing.validation import Bound, bounds_of, first_outside, unknown
from policies import ArmId, Vector

R = TypeVar("R", bound=msgspec.Struct)
MAX_DEPTH = 32
"""Lists and maps in each other; a request needs five."""
MAX_DEPTH_PASSED = 128
"""The same of what is passed on: the schemas of tools and answers."""
_LONG = re.compile(rb"\d{19}")
_BOUND = re.compile(r"^Expected `\w+`(?: \| null)? (?:of length )?[<>]=|of length <=")
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


_ID = "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"
_WORTH = "USD that one unit of quality is worth; the service's setting if left out."
_UNIT = "Who asks, such as a user; recorded, and what an experiment keeps together."
_TENANT = "The tenant that asks; a key of one tenant acts for that one."
_KEY = "A resend with the same key is applied once."
_WHY = "The reason, recorded in the log; at most 1,000 characters."


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A query in one of its three forms; `embedding` is numbers, or float32 bytes."""

    query: Annotated[str | None, doc("The text.", "What is the capital of France?")] = None
    messages: Annotated[
        list[dict[str, Any]] | None,
        doc(
            "The conversation, as OpenAI's; the user's turns are embedded, newest first.",
            [{"role": "user", "content": "What is the capital of France?"}],
        ),
    ] = None
    embedding: Annotated[
        list[float] | bytes | None,
        doc("A unit vector of the model's length: numbers, or base64 of float32.", [0.6, 0.8]),
    ] = None


class DecideRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """A query to be decided: exactly one of `query`, `messages` and `embedding`."""

    unit: Annotated[Name, doc(_UNIT, "user-17")] = ""
    tenant: Annotated[Name, doc(_TENANT, "acme")] = ""
    session: Annotated[Name, doc("Another unit of experiments.", "session-3")] = ""
    conversation: Annotated[Name, doc("Another unit of experiments.", "conversation-9")] = ""
    arms: Annotated[list[str] | None, doc("Only these arms; all if left out.", ["gpt-5-mini"])] = (
        None
    )
    max_cost_usd: Annotated[
        Limit | None, doc("Most that the answer is expected to cost, USD.", 0.01)
    ] = None
    max_latency_s: Annotated[
        Limit | None, doc("Longest that the answer is expected to take, seconds.", 5.0)
    ] = None
    willingness_to_pay: Annotated[Worth | None, doc(_WORTH, 0.1)] = None
    requires: Annotated[list[str], doc("Capabilities that the arm must have.", ["json"])] = []
    policy: Annotated[
        str, doc("The policy that decides, of those that learn; the serving one if empty.", "")
    ] = ""
    explain: Annotated[bool, doc("Also say why: scores, propensities, neighbours.", True)] = False


class ExplainRequest(DecideRequest, kw_only=True, forbid_unknown_fields=True):
    """As for a decision, or `decision_id` alone for the query of that one."""

    decision_id: Annotated[
        str | None, doc("Explain the query of this decision again, and nothing else.", _ID)
    ] = None


class RewardRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """What an answer was worth: for a decision, or self-contained with a query and an arm."""

    decision_id: Annotated[str | None, doc("The decision that it is for.", _ID)] = None
    arm: Annotated[str | None, doc("Without a decision: the arm that answered.", "o3")] = None
    quality: Annotated[Share | None, doc("How good the answer was.", 0.9)] = None
    cost_usd: Annotated[Usd | None, doc("What it cost, USD.", 0.0007)] = None
    latency_s: Annotated[Seconds | None, doc("How long it took, seconds.", 1.3)] = None
    reward: Annotated[
        Reward | None, doc("The reward itself, in place of the service's formula.", 0.85)
    ] = None
    willingness_to_pay: Annotated[Worth | None, doc("Without a decision: " + _WORTH, 0.1)] = None
    idempotency_key: Annotated[Name, doc(_KEY, "order-4711")] = ""
    correction: Annotated[bool, doc("Replace the signals reported before.", False)] = False
    metrics: Annotated[
        dict[str, float],
        doc("Metrics of your own, for experiments; at most 8.", {"thumbs": 1.0}, maxProperties=8),
    ] = {}
    unit: Annotated[Name, doc("Without a decision: " + _UNIT, "user-17")] = ""
    tenant: Annotated[Name, doc("Without a decision: " + _TENANT, "acme")] = ""

    def reported(self) -> Reported:
        """The signals, and the digest by which a resend is recognised; checks their ranges."""
        signals = Signals(self.quality, self.cost_usd, self.latency_s, self.reward, self.metrics)
        check_signals(signals)
        return Reported(
            signals,
            self.idempotency_key,
            digest("reward", self.decision_id, self.arm, signals.said()),
            self.correction,
        )


class CompareRequest(Query, kw_only=True, forbid_unknown_fields=True):
    """Which of two arms did better: for a decision, or self-contained with a query."""

    winner: Annotated[str, doc("The arm that did better.", "gpt-5-mini")]
    loser: Annotated[str, doc("The arm that did worse.", "o3")]
    tie: Annotated[bool, doc("Neither did better.", False)] = False
    decision_id: Annotated[str | None, doc("The decision that it is for.", _ID)] = None
    willingness_to_pay: Annotated[Worth | None, doc("Without a decision: " + _WORTH, 0.1)] = None
    idempotency_key: Annotated[Name, doc(_KEY, "duel-42")] = ""
    correction: Annotated[bool, doc("Replace the comparison reported before.", False)] = False
    unit: Annotated[Name, doc("Without a decision: " + _UNIT, "user-17")] = ""
    tenant: Annotated[Name, doc("Without a decision: " + _TENANT, "acme")] = ""

    def digested(self) -> str:
        """What a resend under the same idempotency key must agree with."""
        return digest("comparison", self.decision_id, self.winner, self.loser, self.tie)


class ExperimentPatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What of an experiment changes: at least one of `share`, `weights` and `release`."""

    share: Annotated[
        float | None, doc("Share of the units that takes part.", 0.5, minimum=0, maximum=1)
    ] = None
    weights: Annotated[
        dict[str, float] | None,
        doc("The variants' weights; they sum to 1.", {"control": 0.5, "treatment": 0.5}),
    ] = None
    release: Annotated[
        str | None, doc("A variant stopped by a guardrail, to be served again.", "treatment")
    ] = None
    why: Annotated[str, doc(_WHY, "the first week is fine")] = ""


class ExperimentMove(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Start or pause an experiment."""

    why: Annotated[str, doc(_WHY, "reviewed by the team")] = ""


class ExperimentStop(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Stop an experiment."""

    why: Annotated[str, doc(_WHY, "treatment is better")] = ""
    winner: Annotated[
        str, doc("The variant to keep; if empty, what the results say.", "treatment")
    ] = ""
    ship: Annotated[bool, doc("Let the winner's policy serve from now on.", False)] = False


class PolicyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A policy with its parameters."""

    name: Annotated[str, doc("Its name; GET /v1/policies lists all.", "eagle")]
    parameters: Annotated[
        dict[str, Any], doc("Its parameters; defaults where left out.", {"explore": 0.1})
    ] = {}


class WhatIfRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Candidates, and on which decisions they are judged."""

    policies: Annotated[list[PolicyRequest], doc("The candidates, 1 to 8.")]
    on: Annotated[
        str,
        doc(
            "`experiment`: decisions of its units; `service`: all.",
            "experiment",
            enum=["experiment", "service", None],
        ),
    ] = "experiment"
    since: Annotated[
        float | None, doc("Only decisions from here on, UTC seconds.", 1764000000.0)
    ] = None
    until: Annotated[float | None, doc("Only decisions up to here, UTC seconds.", 1764345600.0)] = (
        None
    )
    frozen: Annotated[
        bool, doc("Candidates learn only up to `since`, or from half of the log.", False)
    ] = False
    last: Annotated[
        int, doc("Only the newest so many decisions.", 20_000, minimum=1, maximum=50_000)
    ] = 20_000
    metric: Annotated[str, doc("The metric to estimate.", "reward", enum=[*METRICS, None])] = (
        "reward"
    )
    alpha: Annotated[
        float,
        doc("1 less the confidence of the intervals.", 0.05, minimum=LEAST_ALPHA, maximum=0.5),
    ] = 0.05
    clip: Annotated[
        float,
        doc("The largest weight of clipped IPS and Switch-DR.", 10.0, minimum=1, maximum=1e9),
    ] = 10.0
    anyway: Annotated[bool, doc("Give figures also where they are refused.", False)] = False


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
        elif param in bounds_of(kind) and _BOUND.search(what):
            param, what = first_outside(value, kind) or (param, what)
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
    """JSON of a request, in which no whole number is beyond 64 bits; Refused names it."""
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
    """Raise Refused for a limit out of range, or a name that is too long.

    What was decoded is checked by its types already; what the gateway reads from headers is not.
    """
    for name, bound in bounds_of(type(request)).items():
        value = getattr(request, name)
        if value is not None and value != "":  # most are left out
            _check(name, bound, value)
    if request.arms is not None and not request.arms:
        raise Refused("arms: the list is empty; leave it out to allow every arm", param="arms")


def check_names(unit: str, tenant: str) -> None:
    """Raise Refused for a name that is too long."""
    bounds = bounds_of(DecideRequest)
    _check("unit", bounds["unit"], unit)
    _check("tenant", bounds["tenant"], tenant)


def check_worth(worth: float | None) -> None:
    """Raise Refused unless a willingness to pay is None or within its bounds."""
    name = "willingness_to_pay"
    _check(name, bounds_of(DecideRequest)[name], worth)


def _check(name: str, bound: Bound, value: Any) -> None:
    wrong = bound.wrong(value)
    if wrong:
        raise Refused(f"{name}: {wrong}", param=name)


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
