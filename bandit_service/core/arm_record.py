"""What is known of one arm."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.core import events as ev

PRIOR_DECISIONS = 5.0
"""How many decisions at list price a never-observed arm's cost estimate is worth."""


@dataclass
class ArmRecord:
    """One arm of the catalogue, with the measured costs and latencies of its calls.

    listed_usd, observed_usd: sums over the decisions whose cost came back, of the cost by list
    price and token estimate, and of the cost reported. first_price: USD for a million tokens, one
    part in and two out, when the arm first had a price; 0 until then. weight: as how many outcomes
    what was learned of the arm counts; live: how many came otherwise than by a warm start.
    prompt_listed_usd, prompt_usd: the same two sums over the calls that the service made itself, by
    the tokens of all that was sent.
    """

    spec: ev.ArmSpec
    source: str
    retired: bool = False
    listed_usd: float = 0.0
    observed_usd: float = 0.0
    costs: int = 0
    latency_s: float = 0.0
    latencies: int = 0
    first_price: float = 0.0
    weight: float = 0.0
    live: int = 0
    prompt_listed_usd: float = 0.0
    prompt_usd: float = 0.0

    def had(self, outcome: ev.Rewarded, listed_usd: float) -> None:
        """The first outcome of a decision, with its reward. listed_usd: its cost by list price."""
        if outcome.cost_usd is not None:
            self.listed_usd += listed_usd
            self.costs += 1
            self.observed_usd += outcome.cost_usd
        if outcome.latency_s is not None:
            self.latencies += 1
            self.latency_s += outcome.latency_s
        self.taught(prior=outcome.prior)

    def taught(self, *, prior: bool) -> None:
        """One more outcome was learned of it; prior: by a warm start."""
        self.weight += 1.0
        self.live += not prior

    def list_cost_usd(self, tokens: int) -> float:
        """(tokens · price in + expected output tokens · price out) / 10⁶."""
        spec = self.spec
        return (
            tokens * spec.usd_per_mtok_in + spec.expected_output_tokens * spec.usd_per_mtok_out
        ) / 1e6

    def expected_cost_usd(self, tokens: int) -> float:
        """List cost × (n₀·list + Σ observed) / (n₀·list + Σ listed), n₀ = PRIOR_DECISIONS.

        The ratio corrects the token estimate by what was billed; a changed price acts at once.
        An arm without a price costs the mean of what was reported.
        """
        listed = self.list_cost_usd(tokens)
        if listed <= 0.0:
            return self.observed_usd / self.costs if self.costs else 0.0
        prior = PRIOR_DECISIONS * listed
        return listed * (prior + self.observed_usd) / (prior + self.listed_usd)

    def list_prompt_usd(self, prompt: int, cached: int) -> float:
        """By list price, of all that is sent, of which so many tokens are read from a cache."""
        spec = self.spec
        if spec.usd_per_mtok_cached_in is not None:
            saved = min(cached, prompt) * (spec.usd_per_mtok_in - spec.usd_per_mtok_cached_in) / 1e6
            return max(0.0, self.list_cost_usd(prompt) - saved)
        return self.list_cost_usd(prompt)

    def expected_prompt_usd(self, prompt: int, cached: int) -> float:
        """The same as `expected_cost_usd`, corrected by the bills of calls of this kind."""
        listed = self.list_prompt_usd(prompt, cached)
        if listed <= 0.0:
            priced = self.list_cost_usd(prompt) > 0.0
            return self.observed_usd / self.costs if self.costs and not priced else 0.0
        prior = PRIOR_DECISIONS * listed
        return listed * (prior + self.prompt_usd) / (prior + self.prompt_listed_usd)

    def expected_latency_s(self) -> float | None:
        """Mean latency, the configured one counting as PRIOR_DECISIONS; None if unknown."""
        configured = self.spec.expected_latency_s
        prior = 0.0 if configured is None else PRIOR_DECISIONS
        n = prior + self.latencies
        return (prior * (configured or 0.0) + self.latency_s) / n if n else None


def list_price(spec: ev.ArmSpec) -> float:
    """USD for a million tokens in and a million out."""
    return spec.usd_per_mtok_in + spec.usd_per_mtok_out


def relative_price(spec: ev.ArmSpec, dearest: float) -> float:
    """The arm's list price divided by the dearest offered arm's, in [0, 1]."""
    return min(list_price(spec) / dearest, 1.0) if dearest > 0.0 else 0.0
