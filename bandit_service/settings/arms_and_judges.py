"""Checks of arms that are offered together, and of judges among them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from bandit_service.core.arm_kinds import grades_itself, mixed
from bandit_service.core.events import ArmSpec
from bandit_service.settings.judges import JudgeSpec


def arm_and_judge_mistakes(arms: Collection[ArmSpec], judges: Sequence[JudgeSpec]) -> list[str]:
    """Each mistake as a sentence with its place; arms: those that are not retired.

    A judge whose arm is not there judges nothing until it is.
    """
    mistakes = [f"arms: {wrong}"] if (wrong := mixed(arms)) else []
    return mistakes + [f"judges[{i}].arm: {wrong}" for i, wrong in _wrong_judges(arms, judges)]


def check_arm_among(arms: Collection[ArmSpec], judges: Sequence[JudgeSpec]) -> None:
    """ValueError "field: why" for an arm's record that these arms and judges cannot be with."""
    if wrong := mixed(arms):
        raise ValueError(f"dimensions: {wrong}")
    for i, wrong in _wrong_judges(arms, judges):
        raise ValueError(f"kind: the judge {judges[i].id!r}: {wrong}")


def _wrong_judges(
    arms: Collection[ArmSpec], judges: Sequence[JudgeSpec]
) -> Iterator[tuple[int, str]]:
    by_id = {str(arm.id): arm for arm in arms}
    for i, judge in enumerate(judges):
        if judge.arm in by_id and (wrong := grades_itself(by_id[judge.arm], arms)):
            yield i, wrong
