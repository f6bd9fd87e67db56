"""Every metric of the service, as an attribute of `Metrics`; `families/` declares them.

Labels are bounded: arms by MAX_ARMS, their deployments by MAX_DEPLOYMENTS, routes by
MAX_LABELLED_ROUTES, experiments by MAX_EXPERIMENTS (`other` beyond), everything else by the code
or the configuration. Never a user's text or id.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from bandit_service.telemetry.families.configuration import ConfigurationFamily
from bandit_service.telemetry.families.experiments import ExperimentFamily
from bandit_service.telemetry.families.learning import LearningFamily
from bandit_service.telemetry.families.make import Maker
from bandit_service.telemetry.families.money import MoneyFamily
from bandit_service.telemetry.families.process import ProcessFamily
from bandit_service.telemetry.families.requests import RequestFamily
from bandit_service.telemetry.families.upstreams import UpstreamFamily

MAX_ARMS, MAX_LABELLED_ROUTES = 50, 40
"""Arms, and routes, with a label of their own."""

MAX_ESTIMATED = 15
"""How many arms have estimates in addition to their mean reward: those with the most recent
outcomes.
"""

MAX_PROBABILITIES = 30
"""Probabilities of arms, of all policies together."""

MAX_DEPLOYMENTS = 20
"""Deployments with series of their own, of all arms together."""
MAX_EXPERIMENTS, MAX_VARIANTS = 10, 20
"""Experiments, and variants of all of them together, with a label of their own."""

OTHER = "other"


class Metrics(
    RequestFamily,
    ProcessFamily,
    LearningFamily,
    MoneyFamily,
    UpstreamFamily,
    ConfigurationFamily,
    ExperimentFamily,
):
    """Every metric once, all made in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Maker(registry)
        self.registry = registry
        self.declared = make.declared
        RequestFamily.__init__(self, make)
        ProcessFamily.__init__(self, make)
        LearningFamily.__init__(self, make)
        MoneyFamily.__init__(self, make)
        UpstreamFamily.__init__(self, make)
        ConfigurationFamily.__init__(self, make)
        ExperimentFamily.__init__(self, make)
