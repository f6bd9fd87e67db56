"""Reads worlds of earlier versions, so that an upgrade can continue from them.

A new version applies a complete log again. It cannot do so for a trimmed log: only a snapshot
contains what the deleted events taught. So a change of `snapshot.VERSION` needs a step from the
version before, which moves the parts of the world to their new places. New parts start empty.

A policy's state is read as it is. If that fails because its fields changed, or if its `fold` is
another one (`policies.fold_of`), the policy learns again from the outcomes in the history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec
import numpy as np

import policies
from bandit_service.core import codec
from bandit_service.core.arm_record import relative_price
from bandit_service.core.history import History, OutsideRoutes, View
from bandit_service.core.learner import KeptLearner, Learner, teach
from bandit_service.core.learners import Learners
from bandit_service.core.world import World
from policies import ArmId, Context, Policy

Parts: TypeAlias = dict[str, Any]
_parts = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_COUNTS = ("decisions", "rewards", "comparisons")


def _from_9(world: Parts) -> Parts:
    """Version 10 keeps what belongs together in one place, where 9 had it side by side."""
    places = {
        "counts": {name: name for name in _COUNTS},
        "policy": {
            "name": "policy",
            "key": "policy_key",
            "parameters": "parameters",
            "configured": "configured_policy",
        },
        "catalogue": {"arms": "arms", "configured": "configured"},
        "pending": {"decisions": "pending", "keys": "keys"},
        "calibrations": {"policies": "calibration"},
        "experiments": {
            "specs": "experiments",
            "trials": "trials",
            "configured": "configured_experiments",
            "rules": "rules",
            "configured_rules": "configured_rules",
        },
        "erasures": {"owners": "erasing"},
    }
    moved = {part: {to: world[was] for to, was in of.items()} for part, of in places.items()}
    same = ("spend", "drift", "history", "learners", "ts", "events", "unapplied")
    return moved | {name: world[name] for name in same}


def _from_10(world: Parts) -> Parts:
    """Version 11 keeps the fold of each policy, 0 where none was kept, what calls of the gateway
    cost of an arm by all that was sent, and which model answered a decision.
    """
    catalogue, pending = (msgspec.msgpack.decode(world[name]) for name in ("catalogue", "pending"))
    for record in catalogue["arms"].values():
        record |= {"prompt_listed_usd": 0.0, "prompt_usd": 0.0}
    for one in pending["decisions"].values():
        one |= {"redirected": None}
    return world | {"catalogue": catalogue, "pending": pending}


def _from_11(world: Parts) -> Parts:
    """Version 12 keeps which deployment answered a decision; that of earlier answers is unknown."""
    return world


def _from_12(world: Parts) -> Parts:
    """Version 13 keeps which event taught an outcome, and what a policy was not taught."""
    return world


STEPS: dict[int, Callable[[Parts], Parts]] = {
    9: _from_9,
    10: _from_10,
    11: _from_11,
    12: _from_12,
}
"""By version: from the parts of its world to those of the next version's."""


def parts(world: bytes | msgspec.Raw, version: int, to: int) -> bytes:
    """A world of `version` in the encoding of version `to`. Raises KeyError without a step."""
    found: Parts = dict(_parts.decode(world))
    for each in range(version, to):
        found = _parts.decode(msgspec.msgpack.encode(STEPS[each](found)))
    return msgspec.msgpack.encode(_empty() | found)


def _empty() -> Parts:
    """The defaults of a world, without the required arguments."""
    new = World(history=History(0), learners=Learners())
    given = ("history", "learners")
    whole = _parts.decode(codec.dump(new))
    return {name: part for name, part in whole.items() if name not in given}


class Reading:
    """Makes the learners of an earlier version's world.

    anew: the labels of those whose state cannot be read; `teach` them when the world exists.
    """

    def __init__(self, by_label: Mapping[str, Policy[Any]], serving: str) -> None:
        self._by_label, self._serving = by_label, serving
        self.anew: list[str] = []

    def learners(self, kept: dict[str, KeptLearner]) -> Learners:
        """These policies, and those that the log described, with what they know."""
        made = Learners()
        made.serving = self._serving
        for label, policy in self._by_label.items():
            known = kept.get(label)
            made[label] = (
                Learner(policy, policy.init()) if known is None else self._one(label, known, policy)
            )
        for label, known in kept.items():
            if label in made or not (known.own or known.name):
                continue
            try:
                policy = policies.load(known.name, **msgspec.json.decode(known.parameters))
            except (ValueError, TypeError, LookupError, ImportError):
                continue  # as for a fold of the whole log
            made[label] = self._one(label, known, policy)
        return made

    def teach(self, world: World) -> None:
        """The learners that start again learn the outcomes in the history, in their order."""
        for label in self.anew:
            for lesson in _remembered(world, world.learners[label].own):
                teach(world.learners[label], lesson)

    def _one(self, label: str, known: KeptLearner, policy: Policy[Any]) -> Learner:
        try:
            known.check(policy)
            return known.with_policy(policy)
        except (ValueError, TypeError, *codec.UNREADABLE):
            self.anew.append(label)
            nothing = memoryview(codec.dump(policy.init()))
            fold = policies.fold_of(policy)
            return replace(known, state=nothing, fold=fold).with_policy(policy)


def _remembered(world: World, own: str) -> list[policies.Rewarded | policies.Compared]:
    """What came back for the remembered queries, of the variant or the route `own` alone.

    Where none is named, all that came by no route, as `Learners` teaches it.

    The history has no tokens, surfaces, costs or propensities, so they are as if unknown.
    """
    history, dearest = world.history, world.catalogue.dearest_price()
    price = {id: relative_price(one.spec, dearest) for id, one in world.arms.items()}
    learned = View(own, 0).shows if own else OutsideRoutes().shows
    found: list[tuple[int, policies.Rewarded | policies.Compared]] = []
    for id, item in history.items.items():
        context = Context(np.array(history.vector(id)), tokens=1, willingness_to_pay=1.0)
        for outcome, origin in zip(item.outcomes, item.origins, strict=True):
            if learned(origin) and origin[0] > history.faded.get(outcome.arm, -1):
                found.append((origin[0], _outcome(context, outcome, price)))
        for one, origin in zip(item.comparisons, item.compared_in, strict=True):
            if learned(origin):
                found.append(
                    (origin[0], policies.Compared(context, one.winner, one.loser, one.tie))
                )
    found.sort(key=lambda each: each[0])
    return [lesson for _, lesson in found]


def _outcome(
    context: Context, outcome: policies.Outcome, price: Mapping[ArmId, float]
) -> policies.Rewarded:
    return policies.Rewarded(
        context=context,
        arm=outcome.arm,
        propensity=1.0,
        price=price.get(outcome.arm, 0.0),
        expected_cost_usd=0.0,
        quality=outcome.quality,
        reward=outcome.reward,
    )
