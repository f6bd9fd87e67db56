"""The settings that the router reads, which may change while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.session_outcomes import CreditRule
from bandit_service.core.vector_bytes import FLOAT32
from bandit_service.settings import Settings, exploration


@dataclass(slots=True)
class RouterRules:
    """The settings that the router reads; `of` takes them from all.

    Whoever needs them has this object and reads a field when it is needed, so that `take` is
    followed from the next request on.
    """

    explore: Exploration
    reward: RewardRule
    neighbours: int
    ttl_s: float
    default_reward: float | None
    max_pending: int
    max_arms: int
    max_query_chars: int
    max_in_flight: int
    embed_timeout_s: float
    credit: CreditRule = field(default_factory=CreditRule)
    embeddings: str = FLOAT32

    @classmethod
    def of(cls, settings: Settings) -> RouterRules:
        """The rules of these settings."""
        reward, server = settings.reward, settings.server
        return cls(
            explore=exploration(settings.exploration),
            reward=RewardRule(reward.willingness_to_pay, reward.latency_weight),
            credit=CreditRule(reward.session_credit, reward.session_discount),
            neighbours=settings.history.neighbours,
            ttl_s=reward.ttl_s,
            default_reward=reward.default if reward.on_expiry == "default" else None,
            max_pending=reward.max_pending,
            max_arms=server.max_arms,
            max_query_chars=server.max_query_chars,
            max_in_flight=server.max_in_flight,
            embed_timeout_s=settings.embedding.timeout_s,
            embeddings=settings.log.embeddings,
        )

    def take(self, settings: Settings) -> None:
        """Go on by the rules of these settings."""
        other = RouterRules.of(settings)
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))
