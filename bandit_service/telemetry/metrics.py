"""Every metric of the service, as an attribute of `Metrics`; `families/` declares them.

Labels are bounded: arms by MOST_ARMS, their deployments by MOST_DEPLOYMENTS, routes by
MOST_LABELLED_ROUTES, experiments by MOST_EXPERIMENTS (`other` beyond), everything else by the code
or the configuration. Never a user's text or id.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from bandit_service.telemetry.families.configuration import Configuration
from bandit_service.telemetry.families.experiments import Experiments
from bandit_service.telemetry.families.learning import Learning
from bandit_service.telemetry.families.make import Maker
from bandit_service.telemetry.families.money import Money
from bandit_service.telemetry.families.process import Process
from bandit_service.telemetry.families.requests import Requests
from bandit_service.telemetry.families.upstreams import Upstreams

MOST_ARMS = 50
"""Arms with a label of their own."""
MOST_LABELLED_ROUTES = 40
"""Routes with a label of their own, removed ones counted."""

MOST_ESTIMATED = 15
"""How many arms have estimates in addition to their mean reward: those with the most recent
outcomes.
"""

MOST_PROBABILITIES = 30
"""Probabilities of arms, of all policies together."""

MOST_DEPLOYMENTS = 20
"""Deployments with series of their own, of all arms together."""
MOST_EXPERIMENTS, MOST_VARIANTS = 10, 20
"""Experiments, and variants of all of them together, with a label of their own."""

OTHER = "other"


class Metrics(Requests, Process, Learning, Money, Upstreams, Configuration, Experiments):
    """Every metric once, all made in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Maker(registry)
        self.registry = registry
        self.declared = make.declared
        Requests.__init__(self, make)
        Process.__init__(self, make)
        Learning.__init__(self, make)
        Money.__init__(self, make)
        Upstreams.__init__(self, make)
        Configuration.__init__(self, make)
        Experiments.__init__(self, make)
