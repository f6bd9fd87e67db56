"""What the log last said of the policy that is to serve."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved


@dataclass
class ChosenPolicy:
    """name, key, parameters (JSON): "" and none while the log says nothing.

    configured: the key of the one that the configuration last named.
    """

    name: str = ""
    key: str = ""
    parameters: bytes = b"{}"
    configured: str = ""

    @takes(ev.PolicyChanged)
    def _change(self, event: ev.PolicyChanged, _: Resolved) -> None:
        self.name, self.key, self.parameters = event.policy, event.key, event.parameters
        if event.source == "config":
            self.configured = event.key
