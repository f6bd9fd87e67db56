"""A policy with its state, and what it is taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

import policies
from bandit_service.core import codec
from policies import ArmId, Compared, Policy, Rewarded


@dataclass(frozen=True, slots=True)
class Correction:
    """One outcome as it was learned, and as it should have been."""

    before: Rewarded
    after: Rewarded


@dataclass(frozen=True, slots=True)
class Recompared:
    """A comparison in the place of an earlier one, which policies cannot take back."""

    after: Compared


@dataclass(frozen=True, slots=True)
class Fading:
    """Of what was learned of one arm only the share `keep` counts from here on.

    drift: since the arm has changed, which a policy may have noticed by itself.
    """

    arm: ArmId
    keep: float
    drift: bool = True


Lesson: TypeAlias = Rewarded | Compared | Correction | Recompared | Fading


@dataclass
class Learner:
    """A policy with its state.

    failures: how many events it refused to learn from.
    uncorrected: how many corrections it could not take in, as its state is not a sum.
    queue: not None while the state up to a certain event is folded elsewhere: what it is to learn
    since then, in order. Such a learner is no part of the digest.
    name, key, parameters: what the policy is, where the log described it: a variant's, and one that
    learns beside the serving one. own: the variant ("…/…")
    whose outcomes alone it learns, "" for all; then `seeded` events are the past that it knows.
    """

    policy: Policy[Any]
    state: Any
    failures: int = 0
    uncorrected: int = 0
    queue: list[Lesson] | None = None
    name: str = ""
    key: str = ""
    parameters: bytes = b"{}"
    own: str = ""
    seeded: int = 0

    def kept(self) -> KeptLearner:
        """What of it is kept: all but the policy, which is made from its name."""
        state = codec.dump(self.state)
        described = (self.name, self.key, self.parameters, self.own, self.seeded)
        return KeptLearner(state, self.failures, self.uncorrected, *described)


@dataclass(frozen=True, slots=True)
class KeptLearner:
    """A `Learner` as it is kept, with its state in bytes."""

    state: bytes
    failures: int
    uncorrected: int
    name: str
    key: str
    parameters: bytes
    own: str
    seeded: int

    def with_policy(self, policy: Policy[Any]) -> Learner:
        """The learner, which goes on by this policy; one of codec.UNREADABLE for another's."""
        state = codec.load(self.state, type(policy.init()))
        described = (self.name, self.key, self.parameters, self.own, self.seeded)
        return Learner(policy, state, self.failures, self.uncorrected, None, *described)


class Learners(dict[str, Learner]):
    """Every policy that learns, by label.

    serving: the label of the one that decides. serving_key: what its state was folded for. Both are
    chosen by whoever opens the world, and are not folded. finished: a learner by the key of its
    policy, which was folded elsewhere and is to serve from the event on that says so.
    """

    def __init__(self, by_label: Mapping[str, Learner] | None = None) -> None:
        super().__init__(by_label or {})
        self.serving = self.serving_key = ""
        self.finished: dict[str, Learner] = {}

    def switch(self, name: str, key: str) -> None:
        """Let the policy of this key serve in the old one's place, where it is finished."""
        learner = self.finished.pop(key, None)
        if learner is not None:
            self.pop(self.serving, None)
            self[name] = learner
            self.serving, self.serving_key = name, key

    def folded(self) -> dict[str, KeptLearner]:
        """All but those whose past is folded elsewhere."""
        return {label: one.kept() for label, one in sorted(self.items()) if one.queue is None}

    @classmethod
    def unfolded(cls, kept: dict[str, KeptLearner]) -> Learners:
        """Those that the log described; `snapshot.restore` makes the others."""
        made = cls()
        for label, one in kept.items():
            if (one.own or one.name) and (learner := _described(one)) is not None:
                made[label] = learner
        return made


def _described(kept: KeptLearner) -> Learner | None:
    """A policy that the log described; None where there is none such any more."""
    try:
        policy = policies.load(kept.name, **msgspec.json.decode(kept.parameters))
        return kept.with_policy(policy)
    except (ValueError, TypeError, LookupError, ImportError, *codec.UNREADABLE):
        return None  # as for a fold of the whole log


def beside(policy: str) -> str:
    """The label of a policy that learns beside the serving one; no policy's name begins so."""
    return f"beside:{policy}"
