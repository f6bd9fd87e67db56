"""What is checked of a decoded request beyond the types of its fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bandit_service.core.errors import Refused, TooLarge
from bandit_service.core.sessions import group_of
from bandit_service.embedding import check_embedding, check_embeddings, text_of_messages
from bandit_service.parsing.validation import Bound, bounds_of
from bandit_service.wire.requests import (
    CompareRequest,
    DecideRequest,
    ExplainRequest,
    Query,
    RewardRequest,
)
from policies import ArmId, Vector


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


def embeddings_of(requests: Sequence[Query], dim: int) -> Sequence[Vector | Refused]:
    """The embeddings of requests that have them, or what is wrong with each."""
    packed = [each for one in requests if isinstance(each := one.embedding, bytes)]
    if 1 < len(packed) == len(requests):
        together = check_embeddings(packed, dim)
        if together is not None:
            return list(together)
    found: list[Vector | Refused] = []
    for one in requests:
        try:
            found.append(embedding_of(one, dim))
        except Refused as error:
            found.append(error)
    return found


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


class Session(NamedTuple):
    """What a reward is of. name: the field with its value, for messages."""

    group: str
    name: str


def session_of(request: RewardRequest) -> Session:
    """The session or the conversation of a reward.

    Raises Refused if it names more or less than one.
    """
    if request.decision_id is not None or (request.session and request.conversation):
        raise Refused("session: send one of decision_id, session and conversation", param="session")
    names = ("query", "messages", "embedding", "arm", "willingness_to_pay", "unit")
    for name in names:
        if getattr(request, name) not in (None, ""):
            raise Refused(
                f"{name}: belongs to a self-contained outcome; leave it or session out", param=name
            )
    for name in ("cost_usd", "latency_s", "reward"):
        if getattr(request, name) is not None:
            raise Refused(
                f"{name}: is of one answer; send decision_id, or quality or metrics of the session",
                param=name,
            )
    kind = "session" if request.session else "conversation"
    named = request.session or request.conversation
    group = group_of(request.tenant, kind, named)
    return Session(group, f"{kind}: no {kind} {named!r}")


def refuse_more(request: ExplainRequest) -> None:
    """Raise Refused if a decision must be explained again and something else is named too."""
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
