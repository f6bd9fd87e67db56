"""Every policy that learns: the serving one, those that learn beside it, and variants' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

import policies
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.feature import takes, takes_lessons
from bandit_service.core.learner import Fading, KeptLearner, Learner, beside, teach
from bandit_service.core.resolved import Resolved
from policies import Rewarded


class Learners(dict[str, Learner]):
    """Learners by label.

    The following is not folded, but set by the code that opens the world. serving: the label of the
    one that decides. serving_key: what its state was folded for. awaited: the names of policies
    that are to learn beside it once their past is folded. elsewhere: how many policies, not among
    these, are to be taught what is taught here.
    """

    def __init__(self, by_label: Mapping[str, Learner] | None = None) -> None:
        super().__init__(by_label or {})
        self.serving = self.serving_key = ""
        self.awaited: set[str] = set()
        self.elsewhere = 0

    def serve(self, name: str, key: str, learner: Learner) -> None:
        """Let a learner decide in the place of the one that does."""
        self.pop(self.serving, None)
        self[name] = learner
        self.serving, self.serving_key = name, key

    def read_neighbours(self) -> bool:
        """Whether any learner may read the neighbours of its lessons."""
        if self.elsewhere:
            return True
        for one in self.values():  # noqa: SIM110 - for every outcome; a generator takes longer
            if one.reads_neighbours:
                return True
        return False

    @contextmanager
    def in_blocks(self) -> Iterator[None]:
        """While a log is folded, those that can learn many outcomes at once do so.

        What waits when an error ends the fold is not learned: the world is of no use any more.
        """
        for learner in self.values():
            learner.learn_in_blocks()
        yield
        for learner in self.values():
            learner.learn_at_once()

    def folded(self) -> dict[str, KeptLearner]:
        """All of them, as they are kept."""
        return {label: one.kept() for label, one in sorted(self.items())}

    @classmethod
    def unfolded(cls, kept: dict[str, KeptLearner]) -> Learners:
        """Those that the log described; `snapshot.restore` makes the others."""
        made = cls()
        for label, one in kept.items():
            if (one.own or one.name) and (learner := _described(one)) is not None:
                made[label] = learner
        return made

    @takes(ev.PolicyJoined)
    def _join(self, event: ev.PolicyJoined, what: Resolved) -> None:
        if what.joining is not None:
            self[beside(event.policy)] = what.joining

    @takes(ev.PolicyLeft)
    def _leave(self, event: ev.PolicyLeft, _: Resolved) -> None:
        self.pop(beside(event.policy), None)

    @takes(ev.RouteChanged)
    def _route(self, event: ev.RouteChanged, what: Resolved) -> None:
        if what.joining is not None:
            self[ev.label_of_route(event.route.id)] = what.joining

    @takes(ev.RouteRemoved)
    def _unroute(self, event: ev.RouteRemoved, _: Resolved) -> None:
        self.pop(ev.label_of_route(event.id), None)

    @takes(ev.VariantSeeded)
    def _seed(self, event: ev.VariantSeeded, what: Resolved) -> None:
        if what.joining is not None:
            self[label_of(event.experiment, event.variant)] = what.joining

    @takes(ev.ExperimentChanged)
    def _stop(self, event: ev.ExperimentChanged, _: Resolved) -> None:
        if event.status == "stopped":
            self._unseed(event.experiment.id)

    @takes(ev.ExperimentDeleted)
    def _delete(self, event: ev.ExperimentDeleted, _: Resolved) -> None:
        self._unseed(event.id)

    @takes_lessons
    def _teach(self, _: object, what: Resolved) -> None:
        """Every policy learns; an isolated variant only from its own decisions, and of drift.

        So does a route's policy, and of a route's decisions no policy of another route learns.
        """
        variant, lessons = what.variant, what.lessons
        of_route = bool(variant) and ev.is_of_route(variant)
        for learner in self.values():
            if not learner.own:
                if of_route:
                    continue
                for lesson in lessons:
                    teach(learner, lesson)
            elif learner.own in what.own:
                teach(learner, what.own[learner.own])
            else:
                for lesson in lessons:
                    if isinstance(lesson, Fading) and lesson.drift:
                        teach(learner, lesson)

    def taught(self, lesson: Rewarded) -> None:
        """Every policy learns an outcome of a decision by no route and of no variant."""
        for learner in self.values():
            if not learner.own:
                teach(learner, lesson)

    def _unseed(self, experiment: str) -> None:
        """The policies of an experiment's variants no longer decide."""
        for label in [one for one in self if one.startswith(f"{experiment}/")]:
            del self[label]


def loaded(name: str, parameters: bytes, state: bytes) -> Learner | None:
    """A policy that an event describes, with its state; None if this version has no such policy."""
    try:
        policy = policies.load(name, **msgspec.json.decode(parameters))
        known = codec.load(state, type(policy.init())) if state else policy.init()
    except (ValueError, TypeError, LookupError, ImportError, *codec.UNREADABLE):
        return None
    return Learner(policy, known, name=name, parameters=parameters)


def policies_key(name: str, parameters: bytes) -> str:
    """What a variant's policy is called in its decisions."""
    return f"{name}-{codec.sha256(parameters)[:12]}"


def _described(kept: KeptLearner) -> Learner | None:
    """A policy that the log described; None if it no longer exists."""
    try:
        policy = policies.load(kept.name, **msgspec.json.decode(kept.parameters))
    except (ValueError, TypeError, LookupError, ImportError, msgspec.DecodeError):
        return None  # as for a fold of the whole log
    kept.check(policy)
    try:
        return kept.with_policy(policy)
    except (ValueError, TypeError, LookupError, ImportError, *codec.UNREADABLE):
        return None  # as for a fold of the whole log
