"""Policies with one mistake each, and the law that must catch it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from policies import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Floats,
    Proposal,
    Proposals,
    Rewarded,
)


@dataclass
class Sums:
    """Per arm: sum of rewards and number of them. What begins with an underscore is a cache."""

    total: dict[ArmId, float] = field(default_factory=dict)
    count: dict[ArmId, float] = field(default_factory=dict)
    seen: list[float] = field(default_factory=list)
    _cache: dict[ArmId, float] = field(default_factory=dict)
    _last: float = 1.0


@dataclass(frozen=True)
class Honest:
    """The arm with the best mean reward, and now and then any arm. It breaks no law.

    epsilon: in [0, 1], the probability of any arm.
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon: must be from 0 to 1, got {self.epsilon}")

    def init(self) -> Sums:
        return Sums()

    def means(self, state: Sums, ids: tuple[ArmId, ...]) -> Floats:
        sums = ((state.total.get(arm, 0.0), state.count.get(arm, 0.0)) for arm in ids)
        return np.array([(1.0 + total) / (1.0 + count) for total, count in sums])

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        if not len(arms):
            raise ValueError("arms: no eligible arm")
        means = self.means(state, arms.ids)
        best = means == means.max()
        p = (1.0 - self.epsilon) * best / best.sum() + self.epsilon / len(arms)
        return Proposal(means, p)

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Rewarded) and event.reward is not None:
            if not math.isfinite(event.reward):
                raise ValueError("reward: must be a finite number")
            self.add(state, event.arm, event.reward)
        if isinstance(event, Compared):
            if event.winner == event.loser:
                raise ValueError("loser: must be another arm than the winner")
            self.add(state, event.winner, 0.5 if event.tie else 1.0)
            self.add(state, event.loser, 0.5 if event.tie else 0.0)
        return state

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        state.total[arm] = state.total.get(arm, 0.0) + weight * value
        state.count[arm] = state.count.get(arm, 0.0) + weight


class SumsToLess(Honest):
    """Zeroes what is small and does not give it back."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        p = proposal.propensities
        return Proposal(proposal.scores, np.where(p < 0.05, 0.0, p))


class KeepsSomeForOthers(Honest):
    """Counts the arms it knows, not those that are eligible."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        if len(arms) > 1:
            return proposal
        return Proposal(proposal.scores, proposal.propensities * 0.9)


class AnswersFromNothing(Honest):
    """An empty answer where there is no arm."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        if not len(arms):
            return Proposal(np.zeros(0), np.zeros(0))
        return super().propose(state, context, arms)


class DividesByTheNorm(Honest):
    """Normalises the embedding once more."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        with np.errstate(invalid="ignore", divide="ignore"):
            x = context.embedding / np.linalg.norm(context.embedding)
        return Proposal(proposal.scores + float(x.sum()), proposal.propensities)


class CountsItsProposals(Honest):
    """Writes into the state while proposing."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        for arm in arms.ids:
            state.count[arm] = state.count.get(arm, 0.0) + 0.01
        return super().propose(state, context, arms)


class DrawsByItself(Honest):
    """A generator of its own, so that no answer can be had twice."""

    generator: ClassVar[np.random.Generator] = np.random.default_rng(0)

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        drawn = self.generator.dirichlet(np.ones(len(arms)))
        return Proposal(proposal.scores, 0.9 * proposal.propensities + 0.1 * drawn)


class TakesOneForAll(Honest):
    """Where many ask together, it looks at the costs of the first alone."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        cost = arms.cost_usd / context.willingness_to_pay
        return Proposal(proposal.scores - cost, proposal.propensities)

    def propose_many(self, state: Sums, contexts: Contexts, arms: Arms) -> Proposals:
        k = len(arms)
        if not k:
            raise ValueError("arms: no eligible arm")
        means = self.means(state, arms.ids)
        best = means == means.max()
        p = (1.0 - self.epsilon) * best / best.sum() + self.epsilon / k
        cost = arms.cost_usd[0] / contexts.willingness_to_pay[0]
        n = len(contexts)
        return Proposals(np.tile(means - cost, (n, 1)), np.tile(p, (n, 1)))


class SaysItIsAlone(Honest):
    """Looks at neighbours, though it says that it does not."""

    reads_neighbours: ClassVar[bool] = False

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        return Proposal(proposal.scores + len(context.neighbours), proposal.propensities)


class FirstBestWins(Honest):
    """Breaks ties by position."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        p = np.zeros(len(arms))
        p[int(proposal.scores.argmax())] = 1.0
        return Proposal(proposal.scores, p)


class TrustsTheLastNeighbour(Honest):
    """Takes the order of neighbours for their distance."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        if not context.neighbours:
            return proposal
        liked = context.neighbours[-1].similarity
        return Proposal(proposal.scores + liked, proposal.propensities)


class PrefersEarlyNames(Honest):
    """Gives newcomers a head start by the alphabet."""

    def means(self, state: Sums, ids: tuple[ArmId, ...]) -> Floats:
        early: Floats = np.array([0.01 * sorted(ids).index(arm) for arm in ids])
        return np.asarray(super().means(state, ids) - early)


class ForgetsWhoIsAway(Honest):
    """Drops the sums of every arm that has not been heard of for a while."""

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        super().add(state, arm, value, weight)
        state.seen.append(float(sum(arm.encode())))
        del state.seen[:-10]
        for other in list(state.total):
            if float(sum(other.encode())) not in state.seen:
                state.total[other] = -state.count[other]


class WritesBeforeItChecks(Honest):
    """Counts first and refuses then."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Rewarded):
            state.count[event.arm] = state.count.get(event.arm, 0.0) + 1.0
        return super().learn(state, event)


class BeatsItself(Honest):
    """Takes an arm that is compared with itself for a winner and for a loser."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Compared) and event.winner == event.loser:
            self.add(state, event.winner, 1.0)
            self.add(state, event.loser, 0.0)
            return state
        return super().learn(state, event)


class SumsSquares(Honest):
    """Checks the value, and not what it makes of it."""

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        state.seen[:] = [sum(state.seen) + value * value]
        super().add(state, arm, value, weight)


class TrustsTheSurface(Honest):
    """Adds up the surface features without a look at them."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Rewarded) and event.reward is not None:
            self.add(state, event.arm, float(event.context.surface[:1].sum()))
        return super().learn(state, event)


class CutsNaN(Honest):
    """Cuts rewards into their range in an order that lets NaN pass for 0."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Rewarded) and event.reward is not None:
            self.add(state, event.arm, min(1.0, max(0.0, event.reward)))
            return state
        return super().learn(state, event)


class NeedsEverySignal(Honest):
    """Takes it for granted that a cost is known."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Rewarded) and event.reward is not None:
            if event.cost_usd is None:
                raise TypeError("cost_usd: must be a number, got None")
            self.add(state, event.arm, event.reward - event.cost_usd)
            return state
        return super().learn(state, event)


class KnowsItsArms(Honest):
    """Comparisons are looked up, not got."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Compared):
            state.total[event.winner] += 1.0
            state.count[event.winner] += 1.0
            return state
        return super().learn(state, event)


class FirstOfATieWins(Honest):
    """Does not look whether it was a tie."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        if isinstance(event, Compared):
            self.add(state, event.winner, 1.0)
            self.add(state, event.loser, 0.0)
            return state
        return super().learn(state, event)


class RemembersItsLastPropensity(Honest):
    """Weighs a reward by what it last proposed instead of by what the event carries."""

    def propose(self, state: Sums, context: Context, arms: Arms) -> Proposal:
        proposal = super().propose(state, context, arms)
        state._last = float(proposal.propensities.max())
        return proposal

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        super().add(state, arm, value, weight / state._last)


class CountsInItsClass(Honest):
    """A schedule that runs in the class, not in the state."""

    steps: ClassVar[list[int]] = [0]

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        self.steps[0] += 1
        super().add(state, arm, value, weight + 1.0 / self.steps[0])


class HashesItsArms(Honest):
    """Starts an arm at a value by hash(), which is another one in every process."""

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        super().add(state, arm, value + hash(arm) % 9973 / 1e6, weight)


class LearnsIntoACache(Honest):
    """What it needs begins with an underscore, so no snapshot has it."""

    def add(self, state: Sums, arm: ArmId, value: float, weight: float = 1.0) -> None:
        state._cache[arm] = state._cache.get(arm, 0.0) + 1.0
        super().add(state, arm, value, 1.0 / state._cache[arm])


class Explodes(Honest):
    """Exponential weights without a shift."""

    def means(self, state: Sums, ids: tuple[ArmId, ...]) -> Floats:
        with np.errstate(over="ignore"):
            return np.array([np.exp(state.total.get(arm, 0.0)) for arm in ids])


class KeepsEveryContext(Honest):
    """A list of everything that it was ever asked."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        state.seen.append(float(event.context.embedding.sum()))
        return super().learn(state, event)


class ComparesEveryPair(Honest):
    """Ranks each arm by how many others it beats."""

    def means(self, state: Sums, ids: tuple[ArmId, ...]) -> Floats:
        def mean(arm: ArmId) -> float:
            return float(super(ComparesEveryPair, self).means(state, (arm,))[0])

        return np.array([float(sum(mean(arm) > mean(other) for other in ids)) for arm in ids])


class NeverLearns(Honest):
    """Proper in every way but one."""

    def learn(self, state: Sums, event: Rewarded | Compared) -> Sums:
        return state


@dataclass(frozen=True)
class TakesAnyEpsilon(Honest):
    """Does not look at its parameters.

    epsilon: the probability of any arm.
    """

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True)
class FindsOutLater(Honest):
    """Takes any word, and fails when it is needed.

    epsilon: in [0, 1], the probability of any arm.
    prior: "one" or "none".
    """

    prior: str = "one"

    def means(self, state: Sums, ids: tuple[ArmId, ...]) -> Floats:
        return {"one": 1.0, "none": 0.0}[self.prior] + super().means(state, ids)


@dataclass(frozen=True)
class HasNoUpperBound(Honest):
    """Takes a finite number that makes another one infinite.

    epsilon: in [0, 1], the probability of any arm.
    scale: above 0, by which the scores are multiplied.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale: must be a finite number above 0, got {self.scale!r}")

    def means(self, state: Sums, ids: tuple[ArmId, ...]) -> Floats:
        return 3.0 * self.scale * (1.0 + super().means(state, ids))


@dataclass(frozen=True)
class HasASecretParameter(Honest):
    """A parameter that nobody explains.

    epsilon: in [0, 1], the probability of any arm.
    """

    secret: int = 3


@dataclass(frozen=True)
class CorrectsByAddingAgain(Honest):
    """A corrected outcome is learned beside the old one.

    epsilon: in [0, 1], the probability of any arm.
    """

    def correct(self, state: Sums, before: Rewarded, after: Rewarded) -> Sums:
        return self.learn(state, after)


class SaysOrderIsNothing(Honest):
    """Its sums are of any numbers, so that their last digits depend on the order."""

    order_free: ClassVar[bool] = True


class SumsABatchFirst(Honest):
    """Adds up what a batch brings of an arm before it adds it to the state: other last digits."""

    def learn_many(self, state: Sums, events: Sequence[Rewarded | Compared]) -> Sums:
        own = Sums()
        for event in events:
            own = self.learn(own, event)
        for arm, count in own.count.items():
            self.add(state, arm, own.total[arm])
            state.count[arm] += count - 1.0
        return state


@dataclass(frozen=True)
class ForgetsEverybody(Honest):
    """To forget one arm it forgets all.

    epsilon: in [0, 1], the probability of any arm.
    """

    def forget(self, state: Sums, arm: ArmId, keep: float) -> Sums:
        if not 0.0 <= keep <= 1.0:
            raise ValueError("keep: must be from 0 to 1")
        for one in state.count if arm in state.count else ():
            state.total[one] *= keep
            state.count[one] *= keep
        return state


@dataclass(frozen=True)
class ForgetsNothing(Honest):
    """It checks what it is told to keep, and keeps all.

    epsilon: in [0, 1], the probability of any arm.
    """

    def forget(self, state: Sums, arm: ArmId, keep: float) -> Sums:
        if not 0.0 <= keep <= 1.0:
            raise ValueError("keep: must be from 0 to 1")
        return state


CAUGHT_BY: dict[type[Honest], str] = {
    SumsToLess: "a_proposal_is_a_distribution_at_any_state_under_any_subset_of_arms",
    KeepsSomeForOthers: "one_eligible_arm_gets_everything",
    AnswersFromNothing: "no_eligible_arm_is_a_value_error",
    DividesByTheNorm: "a_query_without_an_embedding_gets_an_answer",
    CountsItsProposals: "propose_changes_nothing",
    DrawsByItself: "propose_changes_nothing",
    SaysItIsAlone: "who_reads_no_neighbours_does_as_well_without",
    TakesOneForAll: "many_at_once_are_proposed_as_one_by_one",
    FirstBestWins: "the_order_of_arms_does_not_matter",
    TrustsTheLastNeighbour: "the_order_of_neighbours_does_not_matter",
    PrefersEarlyNames: "arms_never_seen_are_equals",
    ForgetsWhoIsAway: "arms_appear_vanish_and_return",
    WritesBeforeItChecks: "a_learn_that_raises_leaves_the_state_as_it_was",
    BeatsItself: "a_learn_that_raises_leaves_the_state_as_it_was",
    SumsSquares: "a_learn_that_raises_leaves_the_state_as_it_was",
    TrustsTheSurface: "a_learn_that_raises_leaves_the_state_as_it_was",
    CutsNaN: "what_is_not_a_number_teaches_nothing",
    NeedsEverySignal: "missing_signals_are_harmless",
    KnowsItsArms: "comparisons_of_unknown_arms_are_harmless",
    FirstOfATieWins: "the_order_of_a_tie_says_nothing",
    RemembersItsLastPropensity: "a_late_reward_is_learned_by_what_its_own_event_carries",
    CorrectsByAddingAgain: "a_corrected_outcome_is_as_if_it_had_been_so_from_the_first",
    SaysOrderIsNothing: "the_same_outcomes_in_another_order_give_the_same_bytes",
    SumsABatchFirst: "many_at_once_are_learned_as_one_by_one",
    ForgetsEverybody: "what_fades_is_one_arms_alone",
    ForgetsNothing: "what_fades_ends_at_its_prior",
    CountsInItsClass: "a_second_instance_changes_nothing",
    HashesItsArms: "the_same_events_give_the_same_state_under_another_hash_seed",
    LearnsIntoACache: "a_snapshot_restored_at_any_cut_goes_on_alike",
    Explodes: "extreme_signals_and_ten_thousand_updates_stay_finite",
    KeepsEveryContext: "the_state_does_not_grow_with_events",
    ComparesEveryPair: "the_work_is_linear_in_arms_and_flat_in_history",
    NeverLearns: "the_best_arm_of_an_easy_problem_is_found",
    TakesAnyEpsilon: "bad_parameters_are_refused_by_name",
    FindsOutLater: "bad_parameters_are_refused_by_name",
    HasNoUpperBound: "bad_parameters_are_refused_by_name",
    HasASecretParameter: "every_parameter_has_a_default_and_is_documented",
}
