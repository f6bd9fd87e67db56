"""The usual outcome is taken in by one function, in a third of the time.

It is the first of a decision, and settles it. It concerns no experiment, route, session, named
metric or call of a provider. Nearly every outcome of a log is one if clients report them, and most
features find nothing in it. So what the others do with it stands here in a row, in the order of the
fields of `World`, without `Resolved` and what is looked up for it. Other outcomes, and all that a
running service applies, go the general way (`core.apply`). Both come to the same world, bit for bit
(`tests/property/test_usual_outcomes.py`).
"""

from __future__ import annotations

import policies
from bandit_service.core import events as ev
from bandit_service.core.lessons import context_with
from bandit_service.core.pending import settle
from bandit_service.core.resolved import Pending, owner_of_subject
from bandit_service.core.world import World


def settled_by(world: World, event: ev.Rewarded) -> Pending | None:
    """The decision of which this is the usual outcome; None where it is another one."""
    if event.reward is None or event.correction or event.metrics or event.revoked or event.weighed:
        return None
    if event.session or event.idempotency_key or event.prompt_tokens or event.deployment:
        return None
    pending = world.pending.decisions.find(event.decision_id)
    if pending is None or pending.signals or pending.learned or pending.guessed_usd:
        return None
    decided = pending.decided
    if pending.redirected is not None or decided.experiment or decided.route:
        return None
    if decided.prompt_tokens or not decided.whole:
        return None
    if world.experiments.trials or event.decision_id in world.judging.scored:
        return None
    if decided.arm not in world.catalogue.arms or world.learners.read_neighbours():
        return None
    return pending


def take_in(world: World, event: ev.Rewarded, pending: Pending) -> None:
    """What the features do with this outcome of a decision."""
    decided, number, reward = pending.decided, world.events, event.reward
    assert reward is not None
    arm, cost_usd = decided.arm, event.cost_usd
    lesson = policies.Rewarded(
        context_with(decided, ()),
        arm,
        decided.propensity,
        decided.price,
        decided.expected_cost_usd,
        event.quality,
        cost_usd,
        event.latency_s,
        reward,
    )
    world.counts.rewards += 1
    world.catalogue.arms[arm].had(event, decided.list_cost_usd)
    settle(pending, event, number)
    if cost_usd is not None:
        world.spend.pay(decided, cost_usd)
    world.drift.settled(decided, reward, number)
    world.history.taught(lesson, owner_of_subject(decided), (number, ""))
    world.learners.taught(lesson)
