"""Events about experiments and the rules that stand over all of them."""

from __future__ import annotations

from bandit_service.core.event_kinds.event import Event
from bandit_service.core.experiments.spec import Experiment, Rules


class ExperimentChanged(Event, frozen=True, kw_only=True, tag="experiment_changed"):
    """An experiment was made, changed, started, paused or stopped: all of it as it now stands.

    by, why: who did it, an API key's id or "config" or "system", and for what reason. winner: the
    variant that a stop names. held, held_until: the variant that broke a guardrail, and until when
    its weight stays 0; a time that is over lets it back in. configured: what the configuration
    says, from which shares and weights may have moved since.
    """

    experiment: Experiment
    status: str
    by: str = ""
    why: str = ""
    source: str = "api"
    winner: str = ""
    held: str = ""
    held_until: float = 0.0
    configured: Experiment | None = None


class ExperimentDeleted(Event, frozen=True, kw_only=True, tag="experiment_deleted"):
    """A draft, or an experiment without traffic, is gone."""

    id: str
    by: str = ""
    why: str = ""


class VariantSeeded(Event, frozen=True, kw_only=True, tag="variant_seeded"):
    """A variant's policy as it begins: the frozen state from which it continues to learn.

    parameters: JSON. state: as `codec.dump` wrote it; an empty one starts without knowledge. upto:
    the number of events that it knows of.
    """

    experiment: str
    variant: str
    policy: str
    parameters: bytes
    state: bytes = b""
    upto: int = 0


class RulesChanged(Event, frozen=True, kw_only=True, tag="experiment_rules"):
    """What stands over all experiments: the kill switch and the global hold-out."""

    rules: Rules
    by: str = ""
    why: str = ""
    source: str = "api"
