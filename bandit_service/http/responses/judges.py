"""How judges and people agree."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bandit_service.core.fields import doc
from bandit_service.settings.judges import CALIBRATIONS, KINDS


class CurvePoint(msgspec.Struct, kw_only=True, frozen=True):
    """What people said where the judge gave one score."""

    score: Annotated[float, doc("The judge's score, from 0 to 1.", 0.8)]
    pairs: Annotated[int, doc("Answers with this score that a person graded.", 31)]
    grade: Annotated[float, doc("The mean of their grades.", 0.61)]
    calibrated: Annotated[
        float, doc("The value of the curve, which does not fall with the score.", 0.6)
    ]


class Agreed(msgspec.Struct, kw_only=True, frozen=True):
    """A judge's scores compared with people's grades of the same answers."""

    pairs: Annotated[int, doc("Answers that the judge scored and a person graded.", 120)]
    mean_difference: Annotated[
        float | None, doc("Mean of score minus grade; null without a pair.", 0.14)
    ]
    mean_absolute_difference: Annotated[
        float | None, doc("The same without its sign; null without a pair.", 0.22)
    ]
    correlation: Annotated[
        float | None,
        doc("Pearson's; null where all scores or all grades are the same.", 0.48),
    ]
    curve: Annotated[list[CurvePoint], doc("By score, rising: isotonic regression.")]


class JudgeRow(msgspec.Struct, kw_only=True, frozen=True):
    """One judge, by what it goes by now."""

    id: Annotated[str, doc("Its id.", "grader")]
    kind: Annotated[str, doc("How it judges.", "llm", enum=list(KINDS))]
    calibration: Annotated[
        str,
        doc(
            "off: nothing is compared; report: its scores are; apply: they are also corrected.",
            "report",
            enum=list(CALIBRATIONS),
        ),
    ]
    min_pairs: Annotated[int, doc("Pairs that it takes to correct a score.", 50)]
    applied: Annotated[bool, doc("Whether its scores are corrected now.", False)]
    overall: Annotated[Agreed, doc("On all routes.")]
    routes: Annotated[
        dict[str, Agreed], doc("By route. One with `min_pairs` has a curve of its own.")
    ]


class Judges(msgspec.Struct, kw_only=True, frozen=True):
    """Every judge, in the order of the configuration."""

    judges: Annotated[list[JudgeRow], doc("One row for each.")]
