"""The history of a running service."""

from __future__ import annotations

from collections.abc import Mapping

from bandit_service.core.errors import Refused, in_words
from bandit_service.offline.history.child import Done, Job
from bandit_service.offline.history.fold import GROUPS, PERIODS, Asked, History
from bandit_service.offline.questions import Questions
from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings

MAX_PERIODS = 1_000
MAX_GROUPS = 100
_SECONDS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_592_000.0}
_USUAL = {"hour": 48, "day": 31, "week": 13, "month": 12}
_END = 2.5e11  # before the year 10000


class Histories:
    """Answers GET /v1/history."""

    def __init__(self, writer: Writer, settings: Settings) -> None:
        self._writer = writer
        self._within_s = settings.monitoring.history_s
        self._questions = Questions(
            writer,
            "bandit_service.offline.history.child",
            "history",
            "monitoring.history_s",
            "`bandit-service history`",
            settings.snapshots.stalled_s,
        )

    async def ask(self, given: Mapping[str, str], tenant: str | None) -> History:
        """The figures that these parameters ask for; of one tenant, or of all.

        Raises Refused, and what `Questions.ask` raises.
        """
        asked = asked_of(given, self._writer.now(), tenant)
        job = Job(asked=asked)
        return (await self._questions.ask(job, Done, self._within_s, asked.since)).history


def asked_of(given: Mapping[str, str], now: float, tenant: str | None = None) -> Asked:
    """What parameters by name ask for. Raises Refused, which names the parameter."""
    per = _one_of("per", given.get("per", "day"), PERIODS)
    by = _one_of("by", given.get("by", "arm"), GROUPS)
    until = _number("until", given.get("until"), now)
    since = _number("since", given.get("since"), until - _USUAL[per] * _SECONDS[per])
    if since >= until:
        raise Refused(f"since: must be before until, got {since:g} and {until:g}", param="since")
    if (until - since) / _SECONDS[per] > MAX_PERIODS:
        raise Refused(
            f"since: at most {MAX_PERIODS} periods, got {(until - since) / _SECONDS[per]:.0f}; "
            "ask for longer periods or a later beginning",
            param="since",
        )
    most = _number("groups", given.get("groups"), 20.0)
    if most != int(most) or not 1 <= most <= MAX_GROUPS:
        raise Refused(
            f"groups: must be a whole number from 1 to {MAX_GROUPS}, got {in_words(most)}",
            param="groups",
        )
    return Asked(per=per, by=by, since=since, until=until, tenant=tenant, most=int(most))


def _one_of(name: str, value: str, there_are: tuple[str, ...]) -> str:
    if value not in there_are:
        raise Refused(
            f"{name}: must be one of {', '.join(there_are)}, got {value[:40]!r}"
            f"{did_you_mean(value, there_are)}",
            param=name,
        )
    return value


def _number(name: str, text: str | None, usual: float) -> float:
    if text is None:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value < _END:
        raise Refused(f"{name}: must be a number from 0 to {_END:g}, got {text[:40]!r}", param=name)
    return value
