"""What another policy would have earned, asked of a running service: one at a time, by a child."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bandit_service.core.errors import Refused, in_words
from bandit_service.core.experiments.spec import Experiment
from bandit_service.offline.candidates import Candidate, checked
from bandit_service.offline.questions import Questions
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings, exploration
from bandit_service.wire import WhatIfRequest
from store import first_of

if TYPE_CHECKING:
    from bandit_service.offline.offpolicy.child import Job

# What the estimates need is imported with the first question: it is a twentieth of a start.
MAX_CANDIDATES = 8
MAX_DECISIONS = 50_000
_CHILD = "bandit_service.offline.offpolicy.child"


class WhatIf:
    """Evaluations of candidates on the log of a running service."""

    def __init__(self, writer: Writer, settings: Settings) -> None:
        self._writer = writer
        self._settings = settings
        self._questions = Questions(
            writer,
            _CHILD,
            "evaluation",
            "experiment_rules.whatif_s",
            "`bandit-service evaluate --from-log`",
            settings.snapshots.stalled_s,
        )

    async def ask(self, request: WhatIfRequest, experiment: Experiment) -> dict[str, Any]:
        """The report on an experiment's decisions, or on all of its route if the request says so.

        Raises Refused, and what `Questions.ask` raises.
        """
        from bandit_service.offline.offpolicy.child import Done

        within_s = self._settings.experiment_rules.whatif_s
        done = await self._questions.ask(self._job(request, experiment), Done, within_s)
        found: dict[str, Any] = msgspec.json.decode(done.report)
        return found

    def _job(self, request: WhatIfRequest, experiment: Experiment) -> Job:
        from bandit_service.offline.offpolicy.child import Job
        from bandit_service.offline.offpolicy.fold import METRICS, Asked
        from bandit_service.offline.offpolicy.report import How

        candidates = _candidates(request.policies)
        if request.on not in ("experiment", "service"):
            raise Refused(f"on: must be experiment or service, got {request.on!r}", param="on")
        known = (*METRICS, *self._writer.world.named.specs)
        if request.metric not in known:
            meant, there_are = did_you_mean(request.metric, known), ", ".join(known)
            raise Refused(
                f"metric: no {request.metric!r}{meant}; expected one of {there_are}", param="metric"
            )
        for name, value, low, high in (
            ("alpha", request.alpha, 1e-6, 0.5),
            ("clip", request.clip, 1.0, 1e9),
            ("last", request.last, 1, MAX_DECISIONS),
        ):
            if not low <= value <= high:
                raise Refused(
                    f"{name}: must be from {low:g} to {high:g}, got {in_words(value)}", param=name
                )
        chosen, log = self._settings, self._writer.log
        half = (int(first_of(log)) + int(log.last)) // 2
        asked = Asked(
            candidates=candidates,
            route=experiment.route,
            experiment=experiment.id if request.on == "experiment" else "",
            since=request.since,
            until=request.until,
            frozen=request.frozen,
            frozen_at=half if request.frozen and request.since is None else 0,
            metric=request.metric,
            most=request.last,
            explore=exploration(chosen.exploration),
            capacity=chosen.history.capacity,
        )
        how = How(alpha=request.alpha, clip=request.clip, anyway=request.anyway)
        directory = Path(chosen.data_dir) / chosen.snapshots.directory
        return Job(asked=asked, how=how, first=int(first_of(log)), directory=str(directory))


def _candidates(given: Sequence[Any]) -> tuple[Candidate, ...]:
    if not 1 <= len(given) <= MAX_CANDIDATES:
        raise Refused(
            f"policies: must be 1 to {MAX_CANDIDATES}, got {len(given)}", param="policies"
        )
    found = []
    for i, one in enumerate(given):
        try:
            found.append(checked(Candidate(name=one.name, parameters=one.parameters)))
        except (ValueError, TypeError) as error:
            raise Refused(f"policies[{i}]: {error}", param=f"policies[{i}]") from None
    return tuple(found)
