"""One event with everything that it refers to, as the features of the world take it in.

Each feature (`core.world`) sees the event and these values, and no other feature. So the order of
the features does not matter, and listeners (`runtime.writer`) see the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.learner import Learner, Lesson
from policies import ArmId

Subject: TypeAlias = ev.Decided | ev.Subject


class _Nothing(dict[Any, Any]):
    """An empty dict that many share, and that stays empty: four for each decision took as long as
    the rest of it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("this dict is shared: replace it instead of writing into it")

    def __hash__(self) -> int:  # type: ignore[override]  # a dataclass takes it as a default
        return id(self)


NOTHING = _Nothing()


@dataclass(slots=True)
class Pending:
    """A decision that may still be rewarded, and the signals that already came back.

    learned: what the policies and the history were taught when it was settled: `reward`, and
    `quality` and `cost_usd` and `latency_s` as far as they were known; and `revoked` where these
    are what was expected, since what came was taken back, or `weighed` where the quality is that of
    named metrics, with the cost and the latency of the reward (`pending.PAID`), or `credited` where
    it is that of a session. Empty until then. taught: the number of the event that settled it, 0 if
    none did, or if it is not known.
    provisional: its quality is a judge's. guessed_usd: what is booked in the place of a cost that
    was not reported. compared: how the arm did against each other one, 1 won, 1/2 a tie, 0 lost,
    and whether a judge said so. redirected: the arm whose model answered in the place of the
    decision's, "" if no arm has it; None if its own did. deployment: the one of the arm's that
    answered, "" if it has none.
    """

    decided: ev.Decided
    signals: dict[str, float] = NOTHING
    keys: dict[str, str] = NOTHING
    learned: dict[str, float] = NOTHING
    provisional: bool = False
    guessed_usd: float = 0.0
    compared: dict[str, tuple[float, bool]] = NOTHING
    redirected: ArmId | None = None
    deployment: str = field(default="", metadata=codec.IF_ANY)
    taught: int = field(default=0, metadata=codec.IF_ANY)

    @property
    def arm(self) -> ArmId:
        """The arm that the decision's outcomes are about."""
        if self.redirected is not None:
            return self.redirected
        decided = self.decided
        return decided.arms[decided.drawn]

    @property
    def propensity(self) -> float:
        """The probability with which that arm was drawn; 1 if it was not drawn."""
        if self.redirected is not None:
            return 1.0
        decided = self.decided
        return decided.propensities[decided.drawn]

    @property
    def settled(self) -> bool:
        """Whether the policies were taught a scalar reward."""
        return "reward" in self.learned

    @property
    def revoked(self) -> bool:
        """Whether its grade was taken back, and none came since."""
        return "revoked" in self.learned

    @property
    def weighed(self) -> bool:
        """Whether its quality is what its named metrics come to."""
        return "weighed" in self.learned

    @property
    def credited(self) -> bool:
        """Whether its quality is a session's."""
        return "credited" in self.learned

    @property
    def own(self) -> bool:
        """Whether the user rated this decision itself."""
        return not (self.provisional or self.weighed or self.credited)

    @property
    def reward(self) -> float | None:
        """Its scalar reward; None if it has none, or if it was withdrawn."""
        return None if self.revoked else self.learned.get("reward")


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """One event with everything that it refers to.

    number: how many events there are with this one. pending: the decision that it makes, or that it
    is about while that may be rewarded. subject: that decision, or else the query that the event
    itself carries. before, settled: the signals and the scalar reward that were known before.
    revoked: there was a reward, which was taken back.

    The rest is known when the event is applied (`lessons.parts`). part: which of the decisions
    that one event lets leave this is about. ts: the latest time of any event. after: the signals
    with those of the event. known: whether the arm of a reward is in the catalogue. listed_usd: the
    cost of its query by list price. guessed_usd: what is booked for the decision in the place of
    its cost. lessons: what the event teaches every policy; own: what it teaches those that learn
    for themselves, by `Learner.own`. joining: the policy that begins with it.
    """

    event: ev.AnyEvent
    number: int
    pending: Pending | None = None
    subject: Subject | None = None
    before: Mapping[str, float] = NOTHING
    settled: float | None = None
    revoked: bool = False
    part: int = 0
    ts: float = 0.0
    after: dict[str, float] = NOTHING
    known: bool = False
    listed_usd: float = 0.0
    guessed_usd: float = 0.0
    lessons: tuple[Lesson, ...] = ()
    own: Mapping[str, Lesson] = NOTHING
    joining: Learner | None = None

    @property
    def decided(self) -> ev.Decided | None:
        """The decision, None if there is none or it has expired."""
        return None if self.pending is None else self.pending.decided

    @property
    def arm(self) -> ArmId:
        """The arm that a decision or a reward is of, "" of another event."""
        if self.pending is not None:
            return self.pending.arm
        return self.event.arm if isinstance(self.event, ev.Rewarded) else ArmId("")

    @property
    def propensity(self) -> float:
        """The probability with which that arm was drawn; 1 if it was not drawn here."""
        return 1.0 if self.pending is None else self.pending.propensity

    @property
    def tenant(self) -> str:
        """The tenant of the subject, "" without one."""
        return "" if self.subject is None else self.subject.tenant

    @property
    def owner(self) -> str:
        """Whose data it is, "" if it is nobody's."""
        return owner_of_subject(self.subject)

    @property
    def replaced(self) -> Mapping[str, float]:
        """The signals whose place those of a correction take, none for another event."""
        corrects = isinstance(self.event, ev.Rewarded) and self.event.correction
        return self.before if corrects and self.pending is not None else NOTHING

    @property
    def prior(self) -> bool:
        """Whether it is taught beforehand, by a warm start."""
        match self.event:
            case ev.Rewarded():
                corrects = self.event.correction and self.pending is not None
                return self.event.prior and not corrects
            case ev.Compared():
                return self.event.prior
            case _:
                return False

    @property
    def variant(self) -> str:
        """What the decision is of: its route's label, "experiment/variant", or the one within the
        other; "" of neither.
        """
        subject = self.subject
        if not isinstance(subject, ev.Decided):
            return ""
        if subject.experiment:
            variant = label_of(subject.experiment, subject.variant)
            return ev.within_route(subject.route, variant)
        return ev.label_of_route(subject.route) if subject.route else ""


def owner_of_subject(subject: Subject | None) -> str:
    """Whose data a query is, "" without one."""
    if subject is None or not subject.unit:
        return ""
    return ev.owner_of(subject.tenant, subject.unit)
