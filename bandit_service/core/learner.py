"""A policy with its state, and how it learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

import policies
from bandit_service.core import codec
from policies import ArmId, Compared, Policy, Rewarded


@dataclass(frozen=True, slots=True)
class Correction:
    """One outcome as it was learned, and as it should have been.

    taught: the number of the event that taught it first, 0 if that is not known.
    """

    before: Rewarded
    after: Rewarded
    taught: int = 0


@dataclass(frozen=True, slots=True)
class Recompared:
    """A comparison in the place of an earlier one, which policies cannot take back."""

    after: Compared


@dataclass(frozen=True, slots=True)
class Fading:
    """From now on only the share `keep` of the knowledge about one arm counts.

    drift: because the arm has changed, which a policy may have noticed by itself.
    """

    arm: ArmId
    keep: float
    drift: bool = True


BLOCK = 64
"""How many lessons are learned at once where the log is folded, at most."""
_OUTCOMES = (Rewarded, Compared)
_STRICT: dict[str, Any] = {"over": "raise", "invalid": "raise", "divide": "raise"}

Lesson: TypeAlias = Rewarded | Compared | Correction | Recompared | Fading


@dataclass
class Learner:
    """A policy with its state.

    failures: how many events it refused to learn from.
    uncorrected: how many corrections it could not take in, as its state is not a sum.
    name, key, parameters: what the policy is, where the log described it: a variant's, and one that
    learns beside the serving one. own: the variant ("…/…")
    whose outcomes alone it learns, "" for all; then `seeded` events are the past that it knows.
    missed: it was taught none of the events after the first and before the second of these.
    """

    policy: Policy[Any]
    state: Any
    failures: int = 0
    uncorrected: int = 0
    name: str = ""
    key: str = ""
    parameters: bytes = b"{}"
    own: str = ""
    seeded: int = 0
    missed: tuple[int, int] = (0, 0)
    reads_neighbours: bool = field(init=False, compare=False, repr=False)
    _waiting: list[Rewarded | Compared] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.reads_neighbours = policies.reads_neighbours(self.policy)

    def kept(self) -> KeptLearner:
        """What of it is kept: all but the policy, which is made from its name."""
        self.catch_up()
        state = memoryview(codec.dump(self.state))
        described = (self.name, self.key, self.parameters, self.own, self.seeded)
        fold = policies.fold_of(self.policy)
        missed = self.missed if any(self.missed) else ()
        return KeptLearner(state, self.failures, self.uncorrected, *described, fold, missed)

    def learned(self, correction: Correction) -> bool:
        """Whether it was taught what the correction takes back."""
        after, before = self.missed
        return not after < correction.taught < before

    def learn_in_blocks(self) -> None:
        """From here on `state` is right after `catch_up` only, where the policy can learn many."""
        if isinstance(self.policy, policies.LearnsMany):
            self._waiting = []

    def catch_up(self) -> None:
        """Learn what waits: all of it at once, or one by one where the policy refuses any of it."""
        waiting = self._waiting
        if not waiting:
            return
        self._waiting = []
        many: Any = self.policy
        try:
            with np.errstate(**_STRICT):
                self.state = many.learn_many(self.state, waiting)
        except OF_THE_MACHINE:
            raise
        except Exception:  # noqa: BLE001 - each is to be refused alone
            for lesson in waiting:
                _teach(self, lesson)

    def learn_at_once(self) -> None:
        """Catch up, and from here on learn each lesson as it comes."""
        self.catch_up()
        self._waiting = None

    def put_off(self, lesson: Lesson) -> bool:
        """Whether a lesson waits to be learned with others; if not, none waits any more."""
        waiting = self._waiting
        if waiting is None:
            return False
        if not isinstance(lesson, _OUTCOMES):
            self.catch_up()
            return False
        waiting.append(lesson)
        if len(waiting) >= BLOCK:
            self.catch_up()
        return True


@dataclass(frozen=True, slots=True)
class KeptLearner:
    """A `Learner` as it is kept. fold: `policies.fold_of` its policy. state: its bytes, which lie
    in what they were read from.

    missed: as `Learner` has it, () for nothing.
    """

    state: memoryview
    failures: int
    uncorrected: int
    name: str
    key: str
    parameters: bytes
    own: str
    seeded: int
    fold: int = field(default=0, metadata=codec.IF_ANY)
    missed: tuple[int, ...] = field(default=(), metadata=codec.IF_ANY)

    def check(self, policy: Policy[Any]) -> None:
        """ValueError unless the policy would have made this state of the same events."""
        fold = policies.fold_of(policy)
        if fold != self.fold:
            raise ValueError(
                f"the state of {type(policy).__name__} is of its fold {self.fold}, "
                f"and the policy's fold is {fold} now"
            )

    def with_policy(self, policy: Policy[Any]) -> Learner:
        """The learner, which continues with this policy.

        Raises one of codec.UNREADABLE for another policy's state.
        """
        state = codec.load(self.state, type(policy.init()))
        described = (self.name, self.key, self.parameters, self.own, self.seeded)
        after, before = self.missed or (0, 0)
        missed = after, before
        return Learner(policy, state, self.failures, self.uncorrected, *described, missed)


OF_THE_MACHINE = (MemoryError, OSError)
"""What another machine, or this one tomorrow, would not meet with the same event."""


def teach(learner: Learner, lesson: Lesson) -> None:
    """Let one policy learn.

    A policy that refuses an event has left its state as it was (a law); one bad policy must
    neither stop the log nor the others, and on replay it refuses the same event again.
    """
    if not learner.put_off(lesson):
        _teach(learner, lesson)


def _teach(learner: Learner, lesson: Lesson) -> None:
    policy = learner.policy
    try:
        with np.errstate(**_STRICT):
            if isinstance(lesson, Fading):
                # one that watches its arms itself has reacted to drift, or sees no change
                noticed = lesson.drift and policies.watches_arms(policy)
                if isinstance(policy, policies.Forgetful) and not noticed:
                    learner.state = policy.forget(learner.state, lesson.arm, lesson.keep)
            elif isinstance(lesson, Recompared):
                learner.state = policy.learn(learner.state, lesson.after)
                learner.uncorrected += 1
            elif not isinstance(lesson, Correction):
                learner.state = policy.learn(learner.state, lesson)
            elif isinstance(policy, policies.Correctable) and learner.learned(lesson):
                learner.state = policy.correct(learner.state, lesson.before, lesson.after)
            else:
                learner.uncorrected += 1
    except OF_THE_MACHINE:
        raise
    except Exception:  # noqa: BLE001 - a policy may be anybody's, and fail in any way
        learner.failures += 1


def beside(policy: str) -> str:
    """The label of a policy that learns beside the serving one; no policy's name begins so."""
    return f"beside:{policy}"
