"""What an arm is for, and what arms of one pool must be to each other. Pure.

A policy chooses among arms for chat that are routed. Another arm for chat answers who names it, an
embedding arm `/v1/embeddings`, and a judge only `[[judges]]`.
"""

from __future__ import annotations

from collections.abc import Iterable

from bandit_service.core.deployments import calls_of
from bandit_service.core.events import ARM_KINDS, ArmSpec

CHAT, EMBEDDING, JUDGE = ARM_KINDS
_ANSWERS = {EMBEDDING: "POST /v1/embeddings", JUDGE: "[[judges]]"}


def is_routed(spec: ArmSpec) -> bool:
    """Whether a policy may choose the arm."""
    return spec.kind == CHAT and spec.routed


def is_named_only(spec: ArmSpec) -> bool:
    """Whether it is for chat, and answers only who names it."""
    return spec.kind == CHAT and not spec.routed


def not_for_chat(spec: ArmSpec) -> str:
    """Why the arm cannot be asked for chat; "" if it can."""
    if spec.kind == CHAT:
        return ""
    return f"{spec.id!r} is of kind {spec.kind!r}, which answers {_ANSWERS[spec.kind]} alone"


def misconfigured(spec: ArmSpec) -> str:
    """What of an arm does not fit its kind, "field: why"; "" if all of it does."""
    if spec.dimensions is not None and spec.kind != EMBEDDING:
        return "dimensions: is of arms of kind 'embedding' alone"
    if spec.family and spec.kind != CHAT:
        return f"family: nothing is learned of an arm of kind {spec.kind!r}; leave it out"
    return ""


def embedders(arms: Iterable[ArmSpec]) -> list[ArmSpec]:
    """The arms that requests for embeddings are routed among."""
    return [each for each in arms if each.kind == EMBEDDING and each.routed]


def mixed(arms: Iterable[ArmSpec]) -> str:
    """Why embeddings cannot be routed among these arms; "" if they can.

    >>> arm = ArmSpec(id="a", usd_per_mtok_in=0, usd_per_mtok_out=0, kind="embedding", dimensions=2)
    >>> mixed([arm]), mixed([arm, ArmSpec(id="b", usd_per_mtok_in=0, usd_per_mtok_out=0)])
    ('', '')
    """
    routed = embedders(arms)
    if len(routed) < 2 or (len({each.dimensions for each in routed}) == 1 and routed[0].dimensions):
        return ""
    each_has = ", ".join(f"{each.id!r} {each.dimensions or 'none'}" for each in routed)
    return (
        "arms of kind 'embedding' that are routed must have the same dimensions, got "
        f"{each_has}; set routed = false for those that clients name"
    )


def grades_itself(judge: ArmSpec, arms: Iterable[ArmSpec]) -> str:
    """Why this arm cannot judge the answers of these arms; "" if it can.

    A model prefers its own answers, so it may be none of those that it grades.
    """
    if judge.kind == EMBEDDING:
        return f"{judge.id!r} is of kind 'embedding', and grades nothing"
    if is_routed(judge):
        return (
            f"{judge.id!r} is one of the arms that it grades, and a model prefers its own answers; "
            'name an arm with kind = "judge", or with routed = false'
        )
    called = _called(judge)
    for each in arms:
        if is_routed(each) and (same := called & _called(each)):
            upstream, model = min(same)
            return (
                f"{judge.id!r} is the model {model!r} of {upstream!r}, which is an arm that it "
                f"grades ({each.id!r}), and a model prefers its own answers; name another model, "
                f"or set routed = false for {each.id!r}"
            )
    return ""


def _called(spec: ArmSpec) -> set[tuple[str, str]]:
    """Upstream and model's name there; nothing of an arm that is not called."""
    return {(each.upstream, each.model or each.id) for each in calls_of(spec)}
