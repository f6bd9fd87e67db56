"""What a named metric is, and the quality that several of them come to. Plain records, pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from bandit_service.core.errors import Refused
from bandit_service.core.fields import doc

METRIC_KINDS = ("boolean", "number")
METRIC_SCOPES = ("decision", "session")
MAX_NAMED = 16
LONGEST_METRIC = 64
MAX_VALUE = 1e9
MAX_WEIGHT = 1e6
IMPLICIT = "implicit_"
"""How the names of implicit signals begin, which no other metric's does."""
RETRY, REGENERATE, EDIT = (f"{IMPLICIT}{name}" for name in ("retry", "regenerate", "edit"))


class NamedMetric(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A number of the user's own by which answers are judged, as it is configured.

    The log has it, so its bounds are stated here and checked when it is configured.
    """

    name: Annotated[
        str,
        doc(
            "Its name, as sent in `metrics`: letters, digits and _.",
            "resolved",
            minLength=1,
            maxLength=LONGEST_METRIC,
        ),
    ]
    kind: Annotated[
        str, doc("`boolean`: true or false; `number`: from `low` to `high`.", enum=METRIC_KINDS)
    ] = "number"
    low: Annotated[
        float, doc("The least value of a number.", 0.0, minimum=-MAX_VALUE, maximum=MAX_VALUE)
    ] = 0.0
    high: Annotated[
        float,
        doc("The greatest value of a number.", 1.0, minimum=-MAX_VALUE, maximum=MAX_VALUE),
    ] = 1.0
    lower_is_better: Annotated[bool, doc("Whether a lower value is better.", False)] = False
    scope: Annotated[
        str, doc("What one value is of: a decision or a session.", enum=METRIC_SCOPES)
    ] = "decision"
    weight: Annotated[
        float,
        doc("Its part of the quality; 0 only records it.", 1.0, minimum=0, maximum=MAX_WEIGHT),
    ] = 1.0
    feedback: Annotated[
        bool, doc("Whether the holder of a feedback token may report it.", False)
    ] = False

    @property
    def implicit(self) -> bool:
        """Whether nobody said it, but what a client did is taken for it."""
        return self.name.startswith(IMPLICIT)

    def check(self, value: float, *, whole: bool = True) -> None:
        """Refused for a value that the metric cannot have. whole: it is no share of one."""
        if self.kind == "boolean" and whole and value not in (0.0, 1.0):
            raise Refused(
                f"metrics.{self.name}: must be true or false, got {value:g}", param="metrics"
            )
        if not self.low <= value <= self.high:
            raise Refused(
                f"metrics.{self.name}: must be a number from {self.low:g} to {self.high:g}, got "
                f"{value:g}",
                param="metrics",
            )

    def goodness(self, value: float) -> float:
        """A value on the scale from 0, the worst, to 1, the best.

        >>> NamedMetric(name="stars", low=1.0, high=5.0).goodness(4.0)
        0.75
        >>> NamedMetric(name="edits", high=10.0, lower_is_better=True).goodness(1.0)
        0.9
        """
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return 1.0 - share if self.lower_is_better else share

    def value(self, goodness: float) -> float:
        """The value of a goodness: the inverse of `goodness`."""
        share = 1.0 - goodness if self.lower_is_better else goodness
        return self.low + share * (self.high - self.low)


def quality_of(
    specs: Iterable[NamedMetric], signals: Mapping[str, float], expected: float = 0.5
) -> float | None:
    """The mean goodness of the metrics that are known, by their weights; None where none is.

    What is missing is left out, and the weights of the others count as if they were all: a missing
    metric says neither good nor bad. expected: the quality that takes their place with weight 1
    where only implicit signals are known, so that these pull by their weight and no further.

    >>> two = (NamedMetric(name="resolved", weight=3.0), NamedMetric(name="stars", high=4.0))
    >>> quality_of(two, {"resolved": 1.0, "stars": 2.0}), quality_of(two, {"stars": 2.0})
    (0.875, 0.5)
    >>> retried = NamedMetric(name=RETRY, lower_is_better=True, weight=0.25)
    >>> quality_of((*two, retried), {RETRY: 1.0}, expected=0.75)
    0.6
    """
    total = weights = 0.0
    known = [spec for spec in specs if spec.weight > 0.0 and spec.name in signals]
    if known and all(spec.implicit for spec in known):
        total, weights = expected, 1.0
    for spec in known:
        total += spec.weight * spec.goodness(signals[spec.name])
        weights += spec.weight
    return min(1.0, total / weights) if weights else None
