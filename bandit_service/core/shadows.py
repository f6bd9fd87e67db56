"""The decisions that shadows would have made, computed separately from the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from bandit_service.core import events as ev
from bandit_service.core.batch_deciding import proper
from bandit_service.core.decide import proposed
from bandit_service.core.experiments.assignment import invited, running
from bandit_service.core.experiments.spec import label_of
from bandit_service.core.exploration import Exploration
from bandit_service.core.learner import Learner
from bandit_service.core.lessons import context_of
from bandit_service.core.resolved import Pending
from bandit_service.core.switching_cost import then
from bandit_service.core.world import World
from policies import ArmId, Arms, Context, Contexts, ManyAtOnce, Proposal, Proposals


def seen(world: World, decided: ev.Decided) -> bool:
    """Whether any shadow of a running experiment looks at the decision."""
    if not world.experiments.trials or world.experiments.rules.stopped:
        return False
    if decided.duel_of or decided.steps == ("outside",):
        return False
    return any(spec.shadows and invited(spec, decided) for spec, _ in running(world))


def cast(
    world: World, some: Sequence[Pending], explore: Exploration
) -> list[tuple[ev.Shadow, ...]]:
    """What each shadow would do with each decision now; it knows all outcomes up to now."""
    found: list[list[ev.Shadow]] = [[] for _ in some]
    posed = [then(world.catalogue, one.decided) for one in some]
    offered = [arms if stay is None else replace(arms, cost_usd=stay.warm) for arms, stay in posed]
    for experiment, variant, learner, looks in _shadows(world, some):
        pairs = [(context_of(world, some[i].decided, learner), offered[i]) for i in looks]
        for i, proposal in zip(looks, _proposed(learner, pairs), strict=True):
            arms, stay = posed[i]
            _, p = explore.settled(proposal, stay, some[i].decided.willingness_to_pay)
            shadow = ev.Shadow(
                experiment=experiment,
                variant=variant,
                propensities=tuple(p.tolist()),
                expected_cost_usd=float(p @ arms.cost_usd),
            )
            found[i].append(shadow)
    return [tuple(each) for each in found]


def _shadows(
    world: World, some: Sequence[Pending]
) -> Iterator[tuple[str, str, Learner, list[int]]]:
    """Experiment, variant and learner of each shadow, and which of the decisions it looks at."""
    for spec, _ in running(world):
        if not spec.shadows:
            continue
        looks = [i for i, one in enumerate(some) if invited(spec, one.decided)]
        for variant in spec.shadows if looks else ():
            learner = world.learners.get(label_of(spec.id, variant.key))
            if learner is not None:
                yield spec.id, variant.key, learner, looks


def _proposed(learner: Learner, some: Sequence[tuple[Context, Arms]]) -> list[Proposal]:
    """The policy's proposal for each; those over the same arms together, if it can."""
    found: dict[int, Proposal] = {}
    if isinstance(learner.policy, ManyAtOnce):
        alike: dict[tuple[tuple[ArmId, ...], int], list[int]] = {}
        for i, (context, arms) in enumerate(some):
            alike.setdefault((arms.ids, len(context.embedding)), []).append(i)
        for rows in alike.values():
            with suppress(Exception):  # who fails alone is to get a fallback alone
                together = _together(learner.policy, learner.state, [some[i] for i in rows])
                found.update(zip(rows, together, strict=True))
    return [
        found[i] if i in found else proposed(learner, context, arms, "")[0]
        for i, (context, arms) in enumerate(some)
    ]


def _together(
    policy: ManyAtOnce[object], state: object, some: Sequence[tuple[Context, Arms]]
) -> Proposals:
    arms = some[0][1]
    contexts = Contexts.of([context for context, _ in some])
    costs = [offered.cost_usd for _, offered in some]
    proposals = policy.propose_many(state, contexts, arms.rows(costs))
    proper(proposals, len(some), len(arms))
    return proposals
