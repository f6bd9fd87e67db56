"""Time in equal steps, of which the newest are kept: what charts are drawn from. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from bandit_service.statistics.moments import Moments


@dataclass(slots=True)
class Step:
    """What happened from `ts`, UTC seconds, for the length of one step.

    arms: decisions by the arm's number. mean, best: mean reward and value estimate of the best arm
    when it ended, both forgetting.
    """

    ts: int
    arms: dict[int, int] = field(default_factory=dict)
    reward: Moments = field(default_factory=Moments)
    mean: float | None = None
    best: float | None = None

    def row(self) -> list[object]:
        """As it goes over the wire: ts, [arm, count, …], rewards, their mean, mean, best."""
        flat = [number for pair in self.arms.items() for number in pair]
        seen = self.reward.n
        mean = _short(self.reward.mean) if seen else None
        return [self.ts, flat, seen, mean, _short(self.mean), _short(self.best)]


class Ring:
    """The last `most` steps of `step_s` seconds; steps in which nothing happened are not kept."""

    def __init__(self, step_s: int, most: int) -> None:
        self.step_s, self.most = step_s, most
        self._steps: deque[Step] = deque(maxlen=most)
        self.ends = -math.inf  # when the newest one does

    def at(self, ts: float) -> Step:
        """The step of this time; of a time that is before the newest step, the newest one."""
        if ts >= self.ends:
            begins = int(ts) // self.step_s * self.step_s
            self._steps.append(Step(begins))
            self.ends = begins + self.step_s
        return self._steps[-1]

    @property
    def newest(self) -> Step | None:
        """The step that is under way."""
        return self._steps[-1] if self._steps else None

    def since(self, ts: float) -> list[Step]:
        """The steps that end after `ts`, oldest first."""
        found: list[Step] = []
        for step in reversed(self._steps):
            if step.ts + self.step_s <= ts:
                break
            found.append(step)
        return found[::-1]

    def kept(self, now: float) -> list[Step]:
        """The steps of the time that the ring spans, up to now."""
        return self.since(now - self.step_s * self.most)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
