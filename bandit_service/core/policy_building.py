"""Another policy that replicas train while the earlier one serves, until all of them have it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved


@dataclass
class PolicyBuilding:
    """policy, key, parameters (JSON), source: what is built; "" and none where nothing is. ready:
    the replicas that have it, by slot, and how often each had joined when it said so. at: the
    offset of the snapshot in the shared log that all begin with; 0 for none.
    """

    policy: str = ""
    key: str = ""
    parameters: bytes = b"{}"
    source: str = ""
    ready: dict[int, int] = field(default_factory=dict)
    at: int = field(default=0, metadata=codec.IF_ANY)

    def __bool__(self) -> bool:
        """Whether a policy is built."""
        return self != PolicyBuilding()

    @takes(ev.PolicyAnnounced)
    def _begin(self, event: ev.PolicyAnnounced, _: Resolved) -> None:
        self.policy, self.key, self.parameters = event.policy, event.key, event.parameters
        self.source, self.ready, self.at = event.source, {}, 0

    @takes(ev.PolicyBuilt)
    def _built(self, event: ev.PolicyBuilt, _: Resolved) -> None:
        if event.key == self.key:
            self.ready[event.replica] = event.epoch
            self.at = self.at or event.at

    @takes(ev.PolicyChanged)
    def _changed(self, _: ev.PolicyChanged, __: Resolved) -> None:
        self._end()

    @takes(ev.PolicyGivenUp)
    def _given_up(self, event: ev.PolicyGivenUp, _: Resolved) -> None:
        if event.key == self.key:
            self._end()

    def _end(self) -> None:
        self.policy = self.key = self.source = ""
        self.parameters, self.ready, self.at = b"{}", {}, 0
