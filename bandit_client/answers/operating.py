"""What is configured, the API keys, what was spent, and how judges and people agree."""

from __future__ import annotations

from typing import Any

import msgspec

Table = dict[str, Any]


class RevisionRow(msgspec.Struct, kw_only=True, frozen=True):
    """One change of the configuration.

    revision: Its number; 0 is the file alone.
    ts: When, UTC seconds.
    by: Id of the API key; `config`: the file; `anonymous`: no key was asked for.
    why: The reason.
    source: What made it: api, rollback or file.
    changed: The sections that changed.
    """

    revision: int
    ts: float
    by: str
    why: str
    source: str
    changed: list[str]


class OtherValue(msgspec.Struct, kw_only=True, frozen=True):
    """A setting that is not as by default, and is not changed at run time by a section.

    name: Its key.
    value: Its value.
    origin: Where it is from: a file, a variable of the environment, or an option.
    taken_by: What takes another value of the file over: restart or reload.
    """

    name: str
    value: Any
    origin: str
    taken_by: str


class Others(msgspec.Struct, kw_only=True, frozen=True):
    """What the file says and no section has.

    values: Settings that are not as by default.
    tables: By table and id a hash of each arm and each experiment, as the file last said it.
    """

    values: list[OtherValue]
    tables: dict[str, dict[str, str]]


class Configuration(msgspec.Struct, kw_only=True, frozen=True):
    """What is in force. An entry has the fields of its table in the file, without defaults.

    revision: The number of the newest change; 0: the file alone.
    upstreams: As `[[upstreams]]`; what may be a secret is `(hidden)`.
    budgets: As `[[budgets]]`.
    judges: As `[[judges]]`.
    routes: As `[[routes]]`, each with its policy.
    metrics: As `[[metrics]]`.
    policies: Those that learn beside the serving one, as `[[policies]]`.
    settings: Single settings that can be changed at run time and are not as by default.
    others: What takes a restart, or the file read again.
    history: The newest changes, newest first; one can go back to each.
    """

    revision: int
    upstreams: list[Table]
    budgets: list[Table]
    judges: list[Table]
    routes: list[Table]
    metrics: list[Table]
    policies: list[Table]
    settings: list[Table]
    others: Others
    history: list[RevisionRow]


class KeyRow(msgspec.Struct, kw_only=True, frozen=True):
    """One API key, without its hash.

    id: Its id.
    scopes: What it may do.
    tenant: The only tenant that it acts for; empty: any.
    expires: When it ends; empty: never.
    old_expires: When the key before the last rotation expires; empty: it is no longer valid.
    rate_per_s: Requests per second; 0: no limit.
    source: `file`, or `api` if the file does not have this key.
    """

    id: str
    scopes: list[str]
    tenant: str
    expires: str
    old_expires: str
    rate_per_s: float
    source: str


class Keys(msgspec.Struct, kw_only=True, frozen=True):
    """Every key, also those that have expired.

    revision: The number of the newest change of the configuration.
    keys: One row for each, in the order of their making.
    """

    revision: int
    keys: list[KeyRow]


class NewKey(msgspec.Struct, kw_only=True, frozen=True):
    """A new key.

    id: Its id.
    key: The key itself, shown only once.
    revision: The number of this change.
    old_expires: When the old key expires; empty: it is no longer valid.
    """

    id: str
    key: str
    revision: int
    old_expires: str


class Figures(msgspec.Struct, kw_only=True, frozen=True):
    """The decisions of one period, and their outcomes.

    decisions: Decisions.
    rewarded: Decisions with a reward.
    mean_reward: Mean reward; None: none came.
    rated: Decisions with a quality.
    mean_quality: Mean quality; None: none came.
    spent_usd: Costs, USD: as reported, or estimated if none was reported, plus those of judges.
    """

    decisions: int
    rewarded: int
    mean_reward: float | None
    rated: int
    mean_quality: float | None
    spent_usd: float


class Period(msgspec.Struct, kw_only=True, frozen=True):
    """One hour, day, week or month, UTC.

    begin: When it begins, UTC seconds.
    name: The same for people.
    total: All of it.
    groups: By group; `none` has none, `others` are all groups that are not listed.
    """

    begin: float
    name: str
    total: Figures
    groups: dict[str, Figures]


class History(msgspec.Struct, kw_only=True, frozen=True):
    """Figures by period, oldest first; a period without any is left out.

    per: The length of a period.
    by: What the groups are.
    since: Decisions from here on, UTC seconds.
    until: Only decisions before this time.
    periods: The periods, oldest first.
    uncounted: Outcomes of decisions that are too old or not in the log.
    """

    per: str
    by: str
    since: float
    until: float
    periods: list[Period]
    uncounted: int


class CurvePoint(msgspec.Struct, kw_only=True, frozen=True):
    """What people said where the judge gave one score.

    score: The judge's score, from 0 to 1.
    pairs: Answers with this score that a person graded.
    grade: The mean of their grades.
    calibrated: The value of the curve, which does not fall with the score.
    """

    score: float
    pairs: int
    grade: float
    calibrated: float


class Agreed(msgspec.Struct, kw_only=True, frozen=True):
    """A judge's scores compared with people's grades of the same answers.

    pairs: Answers that the judge scored and a person graded.
    mean_difference: Score less grade, in the mean; None without a pair.
    mean_absolute_difference: The same without its sign; None without a pair.
    correlation: Pearson's; None where all scores or all grades are the same.
    curve: By score, rising: isotonic regression.
    """

    pairs: int
    mean_difference: float | None
    mean_absolute_difference: float | None
    correlation: float | None
    curve: list[CurvePoint]


class JudgeRow(msgspec.Struct, kw_only=True, frozen=True):
    """One judge, by what it goes by now.

    id: Its id.
    kind: How it judges.
    calibration: off, report or apply.
    min_pairs: Pairs that it takes to correct a score.
    applied: Whether its scores are corrected now.
    overall: On all routes.
    routes: By route. One with `min_pairs` has a curve of its own.
    """

    id: str
    kind: str
    calibration: str
    min_pairs: int
    applied: bool
    overall: Agreed
    routes: dict[str, Agreed]


class Judges(msgspec.Struct, kw_only=True, frozen=True):
    """Every judge, in the order of the configuration.

    judges: One row for each.
    """

    judges: list[JudgeRow]
