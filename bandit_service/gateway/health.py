"""Which arms answer: a circuit breaker and a bound of concurrency for each. Pure; time is given.

closed ── `failures` in a row ──► open ── after a while ──► half open ── one probe ──► closed
                                   ▲                              │
                                   └───────── it fails, twice as long ─┘
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

STATES = ("closed", "half open", "open")
"""What an arm or a deployment may be, from best to worst."""


@dataclass(slots=True)
class _Arm:
    failures: int = 0
    opened: int = 0
    until: float = 0.0
    probing: bool = False
    running: int = 0
    refused: int = 0


@dataclass
class Health:
    """The state of every arm, and of every deployment of one, that was ever called.

    failures: in a row until an arm is masked. cool_s: for how long, doubled up to max_cool_s.
    upstreams: those that are configured, None for any; nothing answers at another one.
    """

    failures: int = 3
    cool_s: float = 5.0
    max_cool_s: float = 300.0
    upstreams: Container[str] | None = None
    _arms: dict[str, _Arm] = field(default_factory=dict)

    def serves(self, upstream: str) -> bool:
        """Whether this upstream is configured."""
        return self.upstreams is None or upstream in self.upstreams

    def available(self, id: str, now: float) -> bool:
        """Whether the arm is not masked; a masked one may be asked when it is due for a probe."""
        arm = self._arms.get(id)
        return arm is None or (arm.until <= now and not (arm.opened and arm.probing))

    def full(self, id: str, max_running: int) -> bool:
        """Whether the arm has `max_running` calls under way; 0 for no limit."""
        arm = self._arms.get(id)
        return arm is not None and 0 < max_running <= arm.running

    def begun(self, id: str) -> None:
        """A call begins."""
        arm = self._arms.setdefault(id, _Arm())
        arm.running += 1
        arm.probing = arm.opened > 0

    def left(self, id: str) -> None:
        """A call ended that says nothing about the arm: the client left, or erred."""
        arm = self._arms[id]
        arm.running -= 1
        arm.probing = False

    def refused(self, id: str) -> None:
        """A call was refused: the arm is healthy, but did not answer."""
        self.left(id)
        self._arms[id].refused = max(0, self._arms[id].refused) + 1

    def refusals(self, id: str) -> int:
        """How many calls the arm refused since it last answered one;

        -1 if its last call was answered.
        """
        arm = self._arms.get(id)
        return 0 if arm is None else arm.refused

    def succeeded(self, id: str) -> None:
        """A call ended well."""
        arm = self._arms[id]
        arm.running -= 1
        arm.failures, arm.opened, arm.until, arm.probing = 0, 0, 0.0, False
        arm.refused = -1

    def failed(self, id: str, now: float, retry_after_s: float = 0.0) -> None:
        """A call failed; the provider's Retry-After is kept."""
        arm = self._arms[id]
        arm.running -= 1
        arm.failures += 1
        arm.probing = False
        if arm.failures >= self.failures or arm.opened:
            pause = min(self.cool_s * 2**arm.opened, self.max_cool_s)
            arm.opened, arm.until = arm.opened + 1, now + pause
        if retry_after_s > 0.0:
            arm.until = max(arm.until, now + min(retry_after_s, self.max_cool_s))

    def counts(self, id: str) -> tuple[int, int]:
        """Calls under way, and those that failed since one last answered."""
        arm = self._arms.get(id)
        return (0, 0) if arm is None else (arm.running, arm.failures)

    def state(self, id: str, now: float) -> str:
        """One of STATES."""
        arm = self._arms.get(id)
        if arm is None or (not arm.opened and arm.until <= now):
            return "closed"
        return "open" if arm.until > now else "half open"
