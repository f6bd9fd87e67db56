"""The first page: what wins where, and the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import bandit_service
from bandit_service.core.exploration import Exploration
from bandit_service.lab.offline import OfflineRow
from bandit_service.lab.summary import OnlineRow
from bandit_service.lab.tables import Table, with_half
from loadtest.results.found import Found

_REFERENCES = ("uniform", "best single", "zero router", "task label", "oracle")
_HEAD = f"""\
# Results

`make results` wrote this page with version {bandit_service.__version__}. It reads the recordings in
the data directory, the recording in the package `paretobandit`, and `specialists`, which is part of
this package. No other recording is part of this repository.

Each recording has a page with all its tables and plots. [Evaluation](evaluation.md) defines the
protocols, metrics and columns. [Peers](peers.md) compares other libraries. Each verdict is computed
from the figures next to it. Online, all policies explore alike: {Exploration().label}."""


_CLAIMS = "## The papers' claims"


def overview(found: Sequence[Found], sections: Sequence[str]) -> str:
    """docs/results.md, of the recordings with protocols and the sections on claims."""
    offline = {each.name: each.offline for each in found}
    online = {each.name: each.online for each in found}
    parts = [
        _HEAD,
        "## Which wins where",
        _offline(offline).markdown(),
        _online(online).markdown(),
        "Pages: " + ", ".join(f"[{name}](results/{name}.md)" for name in online) + ".",
        _CLAIMS,
        *sections,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def with_claims(page: str, sections: Sequence[str]) -> str:
    """The page with these sections on claims in place of its own."""
    parts = [page.split(_CLAIMS, 1)[0] + _CLAIMS, *sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _offline(offline: Mapping[str, Sequence[OfflineRow]]) -> Table:
    cells = []
    for name, rows in offline.items():
        areas = {
            router: float(np.mean([row.auc_linear for row in rows if row.router == router]))
            for router in dict.fromkeys(row.router for row in rows)
        }
        ranked = sorted((r for r in areas if r not in _REFERENCES), key=lambda r: -areas[r])
        gain = [row for row in rows if row.router == ranked[0]]
        low, high = (
            float(np.mean([getattr(row, end) for row in gain])) for end in ("gain_low", "gain_high")
        )
        cells.append(
            (
                name,
                *(f"{router} {areas[router]:.4f}" for router in ranked[:3]),
                f"[{low:+.4f}, {high:+.4f}]",
                *(f"{areas[router]:.4f}" for router in ("zero router", "task label", "oracle")),
            )
        )
    return Table(
        "Offline split, full information: AUC",
        (
            "data",
            "first",
            "second",
            "third",
            "gain of the first over the zero router, 95 %",
            "zero router",
            "task label",
            "oracle",
        ),
        tuple(cells),
        "The first router is the best of many on the test part, so its gain is slightly "
        "optimistic.",
    )


def _online(online: Mapping[str, Sequence[OnlineRow]]) -> Table:
    cells = []
    for name, rows in online.items():
        policies = [row for row in rows if not row.label.startswith("(")]
        best = next(row for row in rows if row.label.startswith("(best single"))
        oracle = next(row for row in rows if row.label == "(oracle)")
        uniform = next(row for row in rows if row.label == "(uniform)")
        shown = [f"{row.label} {with_half(row.reward)}" for row in policies[:3]]
        cells.append(
            (
                f"{name} ({policies[0].reward.n} seeds)",
                *shown,
                f"{policies[0].last_third:.4f}",
                f"{best.reward.mean:.4f}",
                f"{uniform.reward.mean:.4f}",
                f"{oracle.reward.mean:.4f}",
            )
        )
    return Table(
        "Online, bandit feedback, from nothing: mean reward ± 95 % over seeds",
        (
            "data",
            "first",
            "second",
            "third",
            "last third of the first",
            "best single in hindsight",
            "uniform",
            "oracle",
        ),
        tuple(cells),
    )
