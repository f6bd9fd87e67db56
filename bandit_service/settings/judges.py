"""`[[judges]]`: what gives quality to answers by itself."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Annotated

import msgspec

from bandit_service.core.fields import Id, check_stated, doc

KINDS = ("exact", "regex", "json_schema", "llm")
CALIBRATIONS = ("off", "report", "apply")
_RUBRIC = "Correctness first, then completeness, then clarity. Length is no merit."


class JudgeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What gives quality to an answer by itself.

    kind: "exact" compares with the header x-expected-answer, "regex" looks for `pattern`,
    "json_schema" checks against the schema that the request's response_format names, "llm" asks
    `arm` for a score by `rubric`. routes: whose answers it judges, `auto` being the default route;
    all where none is named. share: of the answers that it could judge. max_per_minute,
    usd_per_day, timeout_s: bounds of a model's calls. calibration: whether its scores are compared
    with people's grades of the same answers ("report"), and corrected by them ("apply") once there
    are `min_pairs` of both.
    """

    id: Id
    kind: Annotated[str, doc("How it judges.", "exact", enum=KINDS)]
    share: Annotated[
        float, doc("Share of the answers that is judged.", 1.0, exclusiveMinimum=0, maximum=1)
    ] = 1.0
    pattern: str = ""
    arm: str = ""
    routes: tuple[str, ...] = ()
    rubric: str = _RUBRIC
    max_per_minute: Annotated[int, doc("Most of a model's calls a minute.", 60, minimum=1)] = 60
    usd_per_day: Annotated[
        float, doc("Most that its calls cost a day, USD.", 1.0, exclusiveMinimum=0, maximum=1e6)
    ] = 1.0
    timeout_s: Annotated[
        float, doc("Seconds that one call may take.", 60.0, exclusiveMinimum=0, maximum=1e6)
    ] = 60.0
    calibration: Annotated[
        str,
        doc(
            "Whether its scores are compared with people's grades, or also corrected by them.",
            "report",
            enum=CALIBRATIONS,
        ),
    ] = "report"
    min_pairs: Annotated[
        int,
        doc("Grades of people that it takes to correct its scores.", 50, minimum=10, maximum=1e6),
    ] = 50

    @property
    def basis(self) -> str:
        """A hash of what it goes by: scores of another kind, pattern, arm or rubric differ."""
        parts = (self.kind, self.pattern, self.arm, self.rubric if self.arm else "")
        return blake2b(msgspec.msgpack.encode(parts), digest_size=8).hexdigest()


def check_judge(spec: JudgeSpec) -> None:
    """ValueError "field: what was wrong, what is allowed"."""
    check_stated(spec)
    if bool(spec.pattern) != (spec.kind == "regex"):
        raise ValueError("pattern: required for the kind regex, and not allowed for others")
    if bool(spec.arm) != (spec.kind == "llm"):
        raise ValueError("arm: required for the kind llm, and not allowed for others")
    try:
        re.compile(spec.pattern)
    except re.error as error:
        raise ValueError(f"pattern: not a regular expression: {error}") from None
