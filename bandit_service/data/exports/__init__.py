"""Other tools' logs of calls, as a recording: a file without an underscore is a format.

Each reads the rows of its tool's export, from any table and in any order, and adds the calls of
models and their scores to `Calls`. `load` joins the two. Nothing can be learned from an answer
without a score, so such answers are left out, and counted.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from bandit_service.data.answer_logs import WAY_OUT, gathered, recorded_from
from bandit_service.data.convert import Prices
from bandit_service.data.exports._calls import QUALITY, Calls, Row
from bandit_service.data.lines import Unread, lines
from bandit_service.data.recorded import Recorded
from bandit_service.data.rows import MAX_LEFT_OUT, LeftOut, Malformed, Scale


class _Format(Protocol):
    """A module of this package. WHOLES: names by which an object is known that is a whole file."""

    WHOLES: Sequence[str]

    def read(self, row: Row, calls: Calls) -> None:
        """Add what one row has. Raises Malformed; Repeated if it is not an answer of a chat."""

    def end(self, calls: Calls) -> None:
        """Add what only all rows together show."""


def names() -> tuple[str, ...]:
    """Every format, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name.replace("_", "-") for name in modules if not name.startswith("_")))


def load(
    kind: str,
    paths: Sequence[Path],
    prices: Prices | None = None,
    scale: Scale | None = None,
    most_left_out: float = MAX_LEFT_OUT,
    *,
    metric: str = "",
    scores: Path | None = None,
) -> Recorded:
    """The recording of an export. kind: of `names`. paths: its files, in any order.

    metric: whose scores are the quality; "" if there is only one. scores: a further table, with the
    columns id and quality. prices: also what a call cost of which the export does not say it. A
    text that a model answered several times becomes so many queries. BadRecording where the whole
    cannot be used.
    """
    reader = cast(_Format, importlib.import_module(f"{__name__}.{kind.replace('-', '_')}"))
    calls = Calls(prices)
    for path in paths:
        for line, row in lines(path, (), wholes=reader.WHOLES):
            calls.at = (path.name, line)
            with calls.leaving():
                if isinstance(row, Unread):
                    raise Malformed(row.why)
                reader.read(row, calls)
    reader.end(calls)
    if scores is not None:
        for line, row in lines(scores, ("id", QUALITY)):
            calls.at = (scores.name, line)
            with calls.leaving():
                if isinstance(row, Unread):
                    raise Malformed(row.why)
                calls.score(str(row["id"]), QUALITY, row[QUALITY])
        metric = metric or QUALITY
    left_out = LeftOut(paths[0], most_left_out, WAY_OUT)
    for (file, line), why in calls.left:
        left_out.add(file, line, why)
    answers = calls.answers(calls.metric_named(metric, paths[0]))
    queries = gathered(answers, scale or Scale(), left_out)
    return recorded_from(paths[0], queries, left_out, prices)
