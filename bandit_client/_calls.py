"""Every request of the API as a value: what is sent, how the answer is read, what a resend does.

Nothing here does input or output, so that both clients, the embedded mode and the tests share it.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

import msgspec

from bandit_client.answers.catalogue import (
    Arm,
    Arms,
    Erased,
    Policies,
    PolicyState,
    Snapshot,
    Status,
)
from bandit_client.answers.decisions import (
    Decision,
    DecisionList,
    Explanation,
    Result,
    Results,
    Vote,
)
from bandit_client.answers.experiments import Experiment, Experiments, Rules
from bandit_client.answers.operating import (
    Configuration,
    History,
    JudgeRow,
    Judges,
    Keys,
    NewKey,
)
from bandit_client.answers.results import ExperimentResults
from bandit_client.answers.texts import DecisionText, Topics

T = TypeVar("T")
_WEIGHED = frozenset(("/v1/decide", "/v1/explain"))


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. harmless: whether nothing happens by a second time. key: by which the service
    knows a resend, where the body has none.

    timed: whether the service is told how long the client waits, so that it gives up first. match:
    the revision that is changed, as `If-Match` has it.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    body: Any = None
    harmless: bool = True
    timed: bool = False
    key: str = ""
    match: str = ""

    @property
    def shows_learned(self) -> bool:
        """Whether its answer depends on what was learned: a read or a decide, not an outcome."""
        return self.path in _WEIGHED or (self.method == "GET" and self.path.startswith("/v1/"))


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """What reads an answer of this kind."""
    return msgspec.json.Decoder(kind).decode


_decision, _explanation = reader(Decision), reader(Explanation)
_results, _status, _arms, _arm = reader(Results), reader(Status), reader(Arms), reader(Arm)
_policies, _state = reader(Policies), reader(PolicyState)
_experiment, _experiments = reader(Experiment), reader(Experiments)
_concluded, _rules = reader(ExperimentResults), reader(Rules)
_snapshot, _erased = reader(Snapshot), reader(Erased)
_configuration, _keys, _new_key = reader(Configuration), reader(Keys), reader(NewKey)
_history, _judges = reader(History), reader(Judges)
_vote, _decisions = reader(Vote), reader(DecisionList)
_text, _topics = reader(DecisionText), reader(Topics)


# --- deciding and learning -------------------------------------------------------------------
def decide(query: str | None, fields: Mapping[str, Any]) -> Call[Decision]:
    """A decision. A resend has the same idempotency key, and gets the same decision."""
    body = asked(query, fields)
    key = "" if body.get("idempotency_key") else uuid4().hex
    return Call("POST", "/v1/decide", _decision, body, timed=True, key=key)


def explain(
    query: str | None, decision: str | Decision | None, fields: Mapping[str, Any]
) -> Call[Explanation]:
    """What would be decided; nothing is."""
    body = asked(query, fields)
    if decision is not None:
        body["decision_id"] = id_of(decision)
    return Call("POST", "/v1/explain", _explanation, body)


def decision(id: str) -> Call[Decision]:
    """The record of a decision."""
    return Call("GET", f"/v1/decisions/{_part('decision_id', id)}", _decision)


def text(id: str) -> Call[DecisionText]:
    """Question and answer of a decision, if they are kept."""
    return Call("GET", f"/v1/decisions/{_part('decision_id', id)}/text", _text)


def topics() -> Call[Topics]:
    """Topics of the questions that are kept."""
    return Call("GET", "/v1/topics", _topics)


def decisions(
    tags: Sequence[str],
    arm: str | None,
    route: str | None,
    before: str | None,
    limit: int | None,
) -> Call[DecisionList]:
    """The newest decisions, or those older than one."""
    if isinstance(tags, str):
        raise ValueError("tags: must be a list of tags, got one text")
    given = {"arm": arm, "route": route, "before": before, "limit": limit}
    query = [("tag", tag) for tag in tags]
    query += [(name, str(value)) for name, value in given.items() if value is not None]
    return Call("GET", "/v1/decisions" + (f"?{urlencode(query)}" if query else ""), _decisions)


def reward(decision: str | Decision | None, fields: Mapping[str, Any]) -> Call[Result]:
    """One reward; the service recognizes a resend."""
    return Call("POST", "/v1/rewards", _first, rewarded(decision, fields))


def rewards(items: Iterable[Mapping[str, Any]]) -> Call[list[Result]]:
    """A list of rewards; the service recognizes a resend."""
    return Call("POST", "/v1/rewards", _each, [keyed(plain_fields(item)) for item in items])


def compare(winner: str, loser: str, fields: Mapping[str, Any]) -> Call[Result]:
    """One comparison; the service recognizes a resend."""
    return Call("POST", "/v1/comparisons", _first, compared(winner, loser, fields))


def comparisons(items: Iterable[Mapping[str, Any]]) -> Call[list[Result]]:
    """A list of comparisons; the service recognizes a resend."""
    return Call("POST", "/v1/comparisons", _each, [keyed(plain_fields(item)) for item in items])


def vote(token: str | Decision, vote: str | None) -> Call[Vote]:
    """A user's vote by its token, safe to resend; None reads the present vote."""
    if isinstance(token, Decision):
        if token.feedback_token is None:
            raise ValueError("token: this decision has no feedback token")
        token = token.feedback_token
    path = f"/v1/feedback/{_part('token', token)}"
    return Call("GET", path, _vote) if vote is None else Call("POST", path, _vote, {"vote": vote})


def asked(query: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a decide, as they are sent."""
    body = plain_fields(fields)
    if query is not None:
        body["query"] = query
    return body


def rewarded(decision: str | Decision | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a reward, as they are sent."""
    body = plain_fields(fields)
    if decision is not None:
        body["decision_id"] = id_of(decision)
    return keyed(body)


def compared(winner: str, loser: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a comparison, as they are sent."""
    return keyed(plain_fields(fields) | {"winner": winner, "loser": loser})


def keyed(body: dict[str, Any]) -> dict[str, Any]:
    """The same with an idempotency key if the service would not recognize a resend without one.

    The service knows the signals of a decision by their values, so that only an outcome without
    one, or a correction, needs a key.
    """
    if not body.get("idempotency_key") and (
        body.get("decision_id") is None or body.get("correction")
    ):
        body["idempotency_key"] = uuid4().hex
    return body


def id_of(decision: str | Decision) -> str:
    """The id of a decision."""
    return decision.decision_id if isinstance(decision, Decision) else decision


# --- arms and policies -----------------------------------------------------------------------
def arms() -> Call[list[Arm]]:
    """The catalogue."""
    return Call("GET", "/v1/arms", lambda raw: _arms(raw).arms)


def put_arm(id: str, fields: Mapping[str, Any]) -> Call[Arm]:
    """Add or replace an arm."""
    return Call("PUT", f"/v1/arms/{_part('id', id)}", _arm, plain_fields(fields))


def retire_arm(id: str) -> Call[Arm]:
    """Retire an arm."""
    return Call("DELETE", f"/v1/arms/{_part('id', id)}", _arm)


def policies() -> Call[Policies]:
    """All policies, and the one that decides."""
    return Call("GET", "/v1/policies", _policies)


def put_policy(name: str, parameters: Mapping[str, Any]) -> Call[Policies]:
    """Fold the past for another policy."""
    body = {"name": name, "parameters": plain("parameters", parameters)}
    return Call("PUT", "/v1/policy", _policies, body, harmless=False)


def policy_state(name: str) -> Call[PolicyState]:
    """Size and hash of a policy's state."""
    return Call("GET", f"/v1/policies/{_part('name', name)}/state", _state)


# --- experiments -----------------------------------------------------------------------------
def experiments() -> Call[Experiments]:
    """Every experiment, and the rules over all."""
    return Call("GET", "/v1/experiments", _experiments)


def experiment(id: str) -> Call[Experiment]:
    """One experiment."""
    return Call("GET", _of(id), _experiment)


def put_experiment(id: str, spec: Mapping[str, Any] | msgspec.Struct, why: str) -> Call[Experiment]:
    """Make a draft, or change an experiment."""
    fields = msgspec.to_builtins(spec) if isinstance(spec, msgspec.Struct) else spec
    body = plain_fields(fields)
    return Call("PUT", _of(id), _experiment, body | _reason(why))


def change_experiment(
    id: str,
    share: float | None,
    weights: Mapping[str, float] | None,
    release: str | None,
    why: str,
) -> Call[Experiment]:
    """Ramp, change the weights, or release a held variant."""
    body = plain_fields({"share": share, "weights": weights, "release": release})
    return Call("PATCH", _of(id), _experiment, body | _reason(why), harmless=False)


def move_experiment(id: str, move: str, why: str) -> Call[Experiment]:
    """Start or pause it."""
    return Call("POST", _of(id, f"/{move}"), _experiment, _reason(why), harmless=False)


def stop_experiment(id: str, winner: str, ship: bool, why: str) -> Call[Experiment]:
    """End it, with a winner."""
    body = {"winner": winner, "ship": ship} | _reason(why)
    return Call("POST", _of(id, "/stop"), _experiment, body, harmless=False)


def delete_experiment(id: str, why: str) -> Call[Experiment]:
    """Delete a draft or a finished one."""
    query = f"?{urlencode({'why': why})}" if why else ""
    return Call("DELETE", _of(id) + query, _experiment, harmless=False)


def experiment_results(id: str) -> Call[ExperimentResults]:
    """The conclusions so far."""
    return Call("GET", _of(id, "/results"), _concluded)


def rules() -> Call[Rules]:
    """The kill switch and the hold-out."""
    return Call("GET", "/v1/experiment-rules", _rules)


def put_rules(fields: Mapping[str, Any], why: str) -> Call[Rules]:
    """Set them; absent fields keep their values."""
    return Call("PUT", "/v1/experiment-rules", _rules, plain_fields(fields) | _reason(why))


# --- configuration and keys ------------------------------------------------------------------
def configuration() -> Call[Configuration]:
    """What is in force, and the newest changes."""
    return Call("GET", "/v1/configuration", _configuration)


def put_configuration(
    revision: int | None, fields: Mapping[str, Any], why: str
) -> Call[Configuration]:
    """Other sections in the place of those in force."""
    body = plain_fields(fields) | _reason(why)
    return Call(
        "PUT", "/v1/configuration", _configuration, body, harmless=False, match=_match(revision)
    )


def rollback_configuration(
    to: int, revision: int | None, forget: Sequence[str], why: str
) -> Call[Configuration]:
    """The sections as they were after a revision."""
    body = {"to": to, "forget": list(forget)} | _reason(why)
    path, match = "/v1/configuration/rollback", _match(revision)
    return Call("POST", path, _configuration, body, harmless=False, match=match)


def keys() -> Call[Keys]:
    """Every API key, without its hash."""
    return Call("GET", "/v1/keys", _keys)


def make_key(id: str, fields: Mapping[str, Any], why: str) -> Call[NewKey]:
    """A new key; a resend would be another one."""
    body = plain_fields(fields) | {"id": id} | _reason(why)
    return Call("POST", "/v1/keys", _new_key, body, harmless=False)


def rotate_key(id: str, grace_s: float, why: str) -> Call[NewKey]:
    """A new key under the same id."""
    body = {"grace_s": plain("grace_s", grace_s)} | _reason(why)
    return Call("POST", f"/v1/keys/{_part('id', id)}/rotate", _new_key, body, harmless=False)


def revoke_key(id: str, why: str) -> Call[Keys]:
    """Good no more; the keys that are left."""
    query = f"?{urlencode({'why': why})}" if why else ""
    return Call("DELETE", f"/v1/keys/{_part('id', id)}{query}", _keys, harmless=False)


def _match(revision: int | None) -> str:
    return "*" if revision is None else f'"{revision}"'


# --- the service -----------------------------------------------------------------------------
def health() -> Call[Status]:
    """Alive."""
    return Call("GET", "/healthz", _status)


def ready() -> Call[Status]:
    """Recovered and taking traffic."""
    return Call("GET", "/readyz", _status)


def snapshot() -> Call[Snapshot]:
    """Make a snapshot now."""
    return Call("POST", "/v1/snapshots", _snapshot, harmless=False)


def history(
    per: str, by: str, since: float | None, until: float | None, groups: int | None
) -> Call[History]:
    """Figures by period and group."""
    given = {"per": per, "by": by, "since": since, "until": until, "groups": groups}
    query = {name: plain(name, value) for name, value in given.items() if value is not None}
    return Call("GET", "/v1/history" + f"?{urlencode(query)}", _history)


def judges() -> Call[list[JudgeRow]]:
    """How far each judge agrees with people."""
    return Call("GET", "/v1/judges", lambda raw: _judges(raw).judges)


def forget_unit(unit: str, tenant: str) -> Call[Erased]:
    """Erase all that is kept of a unit."""
    query = f"?{urlencode({'tenant': tenant})}" if tenant else ""
    return Call("DELETE", f"/v1/units/{_part('unit', unit)}{query}", _erased)


# --- what is sent ----------------------------------------------------------------------------
def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as JSON and MessagePack have them, without those that are None.

    >>> plain_fields({"quality": 1, "cost_usd": None})
    {'quality': 1}
    """
    return {
        name: packed(value) if name == "embedding" else plain(name, value)
        for name, value in fields.items()
        if value is not None
    }


def plain(field: str, value: Any) -> Any:
    """A value that JSON and MessagePack can hold; otherwise ValueError names the field.

    A number that is not finite would go out as null, which counts as absent.

    >>> plain("quality", float("nan"))
    Traceback (most recent call last):
        ...
    ValueError: quality: must be a finite number, got nan
    """
    if value is None or isinstance(value, str | int | bytes):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{field}: must be a finite number, got {float(value)}")
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(f"{field}.{key}", each) for key, each in value.items()}
    if isinstance(value, msgspec.Struct):
        return plain(field, msgspec.to_builtins(value))
    if isinstance(value, Sequence | set | frozenset | tuple):
        return [plain(f"{field}[{i}]", each) for i, each in enumerate(value)]
    single = getattr(value, "item", None)  # of an array library
    if callable(single) and getattr(value, "ndim", None) == 0:
        return plain(field, single())
    raise ValueError(f"{field}: must be what JSON has, got {type(value).__name__}")


def packed(embedding: Any) -> bytes:
    """An embedding as little-endian float32.

    >>> packed([0.6, 0.8]).hex()
    '9a99193fcdcc4c3f'
    """
    if isinstance(embedding, bytes | bytearray | memoryview):
        return bytes(embedding)
    try:
        if isinstance(embedding, str):
            raise TypeError("text")
        values = array("f", iter(embedding))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"embedding: must be numbers, or bytes of little-endian float32 ({error})"
        ) from None
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def encoded(body: Any) -> bytes:
    """The body as JSON; ValueError where text has half a character in it."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise ValueError(f"body: holds a lone surrogate, which is not text ({error})") from None


def _first(raw: bytes) -> Result:
    return _results(raw).results[0]


def _each(raw: bytes) -> list[Result]:
    return _results(raw).results


def _reason(why: str) -> dict[str, Any]:
    return {"why": why} if why else {}


def _of(id: str, rest: str = "") -> str:
    return f"/v1/experiments/{_part('id', id)}{rest}"


def _part(name: str, value: str) -> str:
    """A part of a path; ValueError where it is empty or no text."""
    if not value:
        raise ValueError(f"{name}: must not be empty")
    return quote(value, safe="")
