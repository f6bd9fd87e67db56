"""`[[judges]]`: what gives quality to answers by itself."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from bandit_service.core.fields import doc, out_of_range

KINDS = ("exact", "regex", "json_schema", "llm")


_RUBRIC = "Correctness first, then completeness, then clarity. Length is no merit."


class JudgeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What gives quality to an answer by itself.

    kind: "exact" compares with the header x-expected-answer, "regex" looks for `pattern`,
    "json_schema" checks against the schema that the request's response_format names, "llm" asks
    `arm` for a score by `rubric`. share: of the answers that it could judge. max_per_minute,
    usd_per_day, timeout_s: bounds of a model's calls.
    """

    id: str
    kind: str
    share: Annotated[
        float, doc("Share of the answers that is judged.", 1.0, exclusiveMinimum=0, maximum=1)
    ] = 1.0
    pattern: str = ""
    arm: str = ""
    rubric: str = _RUBRIC
    max_per_minute: int = 60
    usd_per_day: float = 1.0
    timeout_s: float = 60.0


def check_judge(spec: JudgeSpec) -> None:
    """ValueError "field: what was wrong, what is allowed"."""
    if not 1 <= len(spec.id) <= 64 or not spec.id.isprintable():
        raise ValueError(f"id: must be 1 to 64 printable characters, got {spec.id!r}")
    if spec.kind not in KINDS:
        raise ValueError(f"kind: must be one of {', '.join(KINDS)}, got {spec.kind!r}")
    if wrong := out_of_range(spec, "share"):
        raise ValueError(f"share: {wrong}")
    if bool(spec.pattern) != (spec.kind == "regex"):
        raise ValueError("pattern: is needed by the kind regex, and by no other")
    if bool(spec.arm) != (spec.kind == "llm"):
        raise ValueError("arm: is needed by the kind llm, and by no other")
    try:
        re.compile(spec.pattern)
    except re.error as error:
        raise ValueError(f"pattern: is no regular expression: {error}") from None
    if spec.max_per_minute < 1:
        raise ValueError(f"max_per_minute: must be at least 1, got {spec.max_per_minute}")
    for name in ("usd_per_day", "timeout_s"):
        if not 0.0 < getattr(spec, name) <= 1e6:
            raise ValueError(f"{name}: must be above 0 and at most 1000000")
