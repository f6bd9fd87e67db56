"""The drift detectors. Their input is part of the folded state; their alarms become events.

The detectors themselves are not part of it: after a start they are fed again with the newest
values. An alarm is an event like any other, so the world follows from the log alone, whatever a
detector does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from bandit_service.core import events as ev
from bandit_service.core.drift import QUERIES, Track, split
from bandit_service.core.resolved import Resolved
from bandit_service.core.world import World
from bandit_service.settings import DriftSettings
from bandit_service.statistics import change
from policies import ArmId

ADWIN, PAGE_HINKLEY = "adwin", "page_hinkley"

KEEP = 0.1
"""The share of the knowledge about an arm that stays after an alarm, if `drift.keep` is not set."""


class Detector(Protocol):
    """The interface of a detector."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value raised the alarm."""
        ...

    def update(self, x: float) -> None:
        """One more value."""
        ...


@dataclass(slots=True)
class _Fed:
    """The detectors of one watched number, and how many of its values they have seen.

    told: there was an alarm, which is not applied yet.
    """

    detectors: dict[str, Detector]
    count: int = 0
    told: bool = False


@dataclass
class DriftWatch:
    """Call `happened` after every applied event, in order, and append the alarm that it returns.

    O(1) and some microseconds for each settled reward and each decision.
    """

    settings: DriftSettings = field(default_factory=DriftSettings)
    _fed: dict[ArmId, _Fed] = field(default_factory=dict)

    @property
    def keep(self) -> float:
        """The share of the knowledge about an arm that stays after its alarm."""
        return KEEP if self.settings.keep is None else self.settings.keep

    def begin(self, world: World) -> list[ev.DriftDetected]:
        """Catch up on a recovered world;

        an alarm that a crash kept from being written is found again.
        """
        found = (self._caught_up(name, track, world) for name, track in world.drift.tracks.items())
        return [alarm for alarm in found if alarm is not None]

    def happened(self, what: Resolved, world: World) -> ev.DriftDetected | None:
        """The alarm of an event that was just applied to this world, if it raised one."""
        match what.event:
            case ev.Decided():
                name = QUERIES
            case ev.Rewarded(reward=reward) if reward is not None and what.pending is not None:
                name = what.arm
            case ev.DriftDetected(arm=arm):
                self.forget(arm)
                return None
            case _:
                return None
        track = world.drift.tracks.get(name)
        return None if track is None else self._caught_up(name, track, world)

    def forget(self, name: ArmId) -> None:
        """Feed new detectors with all kept values when the next value comes."""
        self._fed.pop(name, None)

    def forget_all(self) -> None:
        """The same for everything that is watched."""
        self._fed.clear()

    def _caught_up(self, name: ArmId, track: Track, world: World) -> ev.DriftDetected | None:
        """Feed the values that the detectors have not seen."""
        fed = self._fed.get(name)
        if fed is None:
            fed = self._fed[name] = _Fed(self._made(name))
        values = track.values
        new = 0 if fed.told else min(track.count - fed.count, len(values))
        for end in range(len(values) - new + 1, len(values) + 1):
            for detector, one in fed.detectors.items():
                one.update(values[end - 1])
                if one.drift_detected:
                    alarm = self._alarm(name, detector, track, end, world.ts)
                    if alarm is not None:
                        fed.told = True
                        return alarm
        fed.count = track.count
        return None

    def _alarm(
        self, name: ArmId, detector: str, track: Track, end: int, ts: float
    ) -> ev.DriftDetected | None:
        """The event of an alarm after the first `end` values; None if it is not an alarm."""
        if end < 2:
            return None
        found, chosen = split(track.values[:end]), self.settings
        direction = "up" if found.after > found.before else "down"
        if detector == PAGE_HINKLEY:
            direction = _worse(name)
        elif name == QUERIES and direction == "down":
            return None  # more history means smaller distances
        return ev.DriftDetected(
            ts=ts,
            arm=name,
            detector=detector,
            direction=direction,
            before=found.before,
            after=found.after,
            seen=end,
            begun=track.at[found.first],
            keep=1.0 if name == QUERIES else self.keep,
            explore=chosen.explore,
            decisions=chosen.explore_decisions if chosen.explore else 0,
        )

    def _made(self, name: ArmId) -> dict[str, Detector]:
        """Page-Hinkley watches the bad side: residuals that fall, distances that rise."""
        chosen, mode = self.settings, _worse(name)
        return {
            ADWIN: change.ADWIN(chosen.adwin_delta),
            PAGE_HINKLEY: change.PageHinkley(
                chosen.page_hinkley_threshold, chosen.page_hinkley_delta, mode
            ),
        }


def _worse(name: ArmId) -> Literal["up", "down"]:
    """The direction that is bad: queries that become unlike, arms that earn less than expected."""
    return "up" if name == QUERIES else "down"
