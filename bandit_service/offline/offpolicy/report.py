"""From decisions with propensities to estimates with intervals, or to the reason for none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from bandit_service.offline.offpolicy.fold import LEFT_OUT, LogEvaluation, Sample
from bandit_service.statistics import offpolicy_sequence, ope, reward_model
from bandit_service.statistics.offpolicy_sequence import Distributions
from bandit_service.statistics.ope import Modelled, Terms
from policies import Floats

TITLES = {
    "ips": "IPS",
    "clipped_ips": "clipped IPS",
    "snips": "SNIPS",
    "dm": "DM",
    "dr": "DR",
    "sndr": "SNDR",
    "switch_dr": "Switch-DR",
    "shrunk_dr": "DRos",
}


ROBUST = ("dr", "sndr", "switch_dr", "shrunk_dr")
"""The doubly robust ones, which a log that hardly explores has not."""


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How it is estimated. alpha: of every interval. clip: M of clipped IPS, τ of Switch-DR, and
    the square root of λ of DRos. anyway: also where the overlap is too poor. bounds: which the
    metric keeps; its own range where there are none, and without one no confidence
    sequence. rounds: of bootstrap.
    """

    alpha: float = 0.05
    clip: float = 10.0
    anyway: bool = False
    bounds: tuple[float, float] | None = None
    rounds: int = 1000


@dataclass(frozen=True, slots=True)
class Weighed:
    """A sample with one candidate's weights."""

    w: Floats
    overlap: ope.Overlap


def weighed(sample: Sample, candidate: int) -> Weighed:
    """w = π(a|x) / μ(a|x) for the arm that was drawn."""
    target = sample.targets[candidate]
    w = target[np.arange(len(sample.arm)), sample.arm] / sample.logged
    impossible = sample.impossible[candidate]
    return Weighed(w, ope.overlap(w, float(impossible.mean()) if len(w) else 0.0))


def expected(sample: Sample, bounds: tuple[float, float] | None) -> Floats:
    """(n, k) the cross-fitted model of a metric with this range."""
    seen = float(sample.value.min()), float(sample.value.max())
    return reward_model.crossfit(
        sample.features, sample.arm, sample.value, len(sample.arms), bounds or seen
    )


def estimators(
    sample: Sample, w: Floats, target: Floats, q: Floats, clip: float
) -> dict[str, Terms]:
    """Every estimator, by its short name. target, q: (n, k)."""
    r, at = sample.value, np.arange(len(sample.arm))
    model = Modelled((target * q).sum(axis=1), q[at, sample.arm])
    return {
        "ips": ope.ips(w, r),
        "clipped_ips": ope.clipped_ips(w, r, clip),
        "snips": ope.snips(w, r),
        "dm": ope.direct(model),
        "dr": ope.doubly_robust(w, r, model),
        "sndr": ope.self_normalised_dr(w, r, model),
        "switch_dr": ope.switch_dr(w, r, model, clip),
        "shrunk_dr": ope.shrunk_dr(w, r, model, clip * clip),
    }


def report(along: LogEvaluation, how: How) -> dict[str, Any]:
    """Everything that is said of the log and of each candidate on it."""
    asked, sample, bounds = along.asked, along.sample(), along.bounds()
    n = len(sample.value)
    body: dict[str, Any] = {
        "metric": asked.metric,
        "experiment": asked.experiment or None,
        "since": asked.since,
        "until": asked.until,
        "learning": "frozen" if asked.frozen else "along the log",
        "alpha": how.alpha,
        "clip": how.clip,
        "log": {
            "decisions": along.decisions,
            "left_out": {LEFT_OUT[why]: count for why, count in sorted(along.left_out.items())},
            "used": n,
            "without_outcome": along.kept - n,
            "by_default": along.by_default,
            "with_fallback": along.fallbacks,
            "units": int(sample.units.max()) + 1 if n else 0,
            "value": None,
        },
    }
    if asked.tags:
        body["tags"] = list(asked.tags)
    if asked.route:
        body["route"] = asked.route
    looks = ope.explored(sample.least, sample.offered)
    body["exploration"] = {
        "share": looks.share,
        "per_arm": looks.per_arm,
        "floor": asked.explore.label,
    }
    robust = looks.refusal() if n else ""
    q = None
    if n >= max(2, reward_model.FOLDS):
        logged = Terms(np.zeros(n), sample.value, np.ones(n))
        body["log"]["value"] = _told(logged, sample, how)
    body["policies"] = []
    for i, candidate in enumerate(asked.candidates):
        at = weighed(sample, i)
        why = at.overlap.refusal() if n else ""
        one: dict[str, Any] = {
            "policy": candidate.name,
            "parameters": candidate.parameters,
            "failures": along.failed[i],
            "state": "not enough data" if not n else "refused" if why else "shown",
            "why": why or None,
            "overlap": {
                "effective_size": at.overlap.ess,
                "mean_weight": at.overlap.mean,
                "most_weight": at.overlap.most,
                "most_share": at.overlap.share,
                "impossible": at.overlap.impossible,
                "explored_per_arm": looks.per_arm,
            },
            "doubly_robust": {
                "state": "not enough data" if not n else "refused" if why or robust else "shown",
                "why": why or robust or None,
                "decisions_needed": looks.needed if n else None,
            },
        }
        body["policies"].append(one)
        if body["log"]["value"] is None or at.overlap.w <= 0.0 or (why and not how.anyway):
            continue
        if q is None:
            q = expected(sample, bounds)
        found = estimators(sample, at.w, sample.targets[i], q, how.clip)
        one["estimates"] = {
            name: _told(terms, sample, how)
            for name, terms in found.items()
            if how.anyway or not robust or name not in ROBUST
        }
        one["sequence"] = _sequence(sample, i, at.w, how.bounds or bounds, how.alpha)
        one["beside_log"] = _beside(found["snips"], sample, how.alpha)
    return body


def _told(terms: Terms, sample: Sample, how: How) -> dict[str, float]:
    stderr = ope.standard_error(terms, sample.units)
    low, high = ope.bootstrap(terms, how.alpha, sample.units, how.rounds)
    return {"value": terms.value, "stderr": stderr, "low": low, "high": high}


def _sequence(
    sample: Sample, candidate: int, w: Floats, bounds: tuple[float, float] | None, alpha: float
) -> dict[str, float] | None:
    if bounds is None:
        return None
    least, most = float(sample.value.min()), float(sample.value.max())
    if least < bounds[0] or most > bounds[1]:
        raise ValueError(
            f"bounds: the metric lies from {least:g} to {most:g}, outside of "
            f"{bounds[0]:g} to {bounds[1]:g}"
        )
    of = None
    if sample.behaviour is not None:
        of = Distributions(sample.targets[candidate], sample.behaviour)
    low, high = offpolicy_sequence.interval(w, sample.value, *bounds, alpha, of)
    return {"low": low, "high": high}


def _beside(snips: Terms, sample: Sample, alpha: float) -> dict[str, float]:
    """SNIPS less what the log earned on the same decisions, with a normal interval."""
    r = sample.value
    gap = Terms(snips.plain - r, snips.weighted, snips.weight)
    margin = _normal(alpha) * ope.standard_error(gap, sample.units)
    return {"difference": gap.value, "low": gap.value - margin, "high": gap.value + margin}


def _normal(alpha: float) -> float:
    """z with P(|Z| > z) = alpha, by bisection."""
    low, high = 0.0, 40.0
    while high - low > 1e-12:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2.0)) > alpha else (low, middle)
    return low


def shown(found: dict[str, Any]) -> str:
    """The report as a table."""
    log = found["log"]
    lines = [
        f"{log['used']} of {log['decisions']} decisions, of {log['units']} units, by "
        f"{found['metric']}; the policies learn: {found['learning']}"
    ]
    if found.get("route"):
        lines.append(f"  only decisions of the route {found['route']}")
    if found.get("tags"):
        lines.append(f"  only decisions with the tags {', '.join(found['tags'])}")
    lines += [f"  left out: {count} {why}" for why, count in log["left_out"].items()]
    if log["without_outcome"]:
        lines.append(f"  left out: {log['without_outcome']} without an outcome, as if by chance")
    if log["with_fallback"]:
        lines.append(f"  {log['with_fallback']} were decided by a fallback, with propensities")
    if log["by_default"]:
        lines.append(f"  {log['by_default']} of them with the default at expiry")
    percent = f"{1.0 - found['alpha']:.0%}"
    if log["value"] is not None:
        at = log["value"]
        lines.append(
            f"the log itself earned {at['value']:.4f} ({at['low']:.4f} to {at['high']:.4f})"
        )
    looks = found["exploration"]
    lines.append(
        f"the log explores {looks['share']:.2%}: n·ε/K is {looks['per_arm']:.0f}; the "
        f"policies' floor is {looks['floor']}"
    )
    for one in found["policies"]:
        name = ":".join([one["policy"], *(f"{k}={v}" for k, v in one["parameters"].items())])
        over = one["overlap"]
        lines += [
            "",
            f"{name}: effective size {over['effective_size']:.0f}, n·ε/K "
            f"{over['explored_per_arm']:.0f}, mean weight "
            f"{over['mean_weight']:.3f}, heaviest outcome {over['most_weight']:.1f} "
            f"({over['most_share']:.1%} of the weight)",
        ]
        if one["failures"]:
            lines.append(f"  it failed on {one['failures']} decisions, where uniform stood in")
        if one["state"] != "shown":
            lines.append(f"  no estimate: {one['why'] or one['state']}")
        robust = one["doubly_robust"]
        if robust["state"] == "refused" and one["state"] == "shown":
            lines.append(f"  no doubly robust estimate: {robust['why']}")
        if "estimates" not in one:
            continue
        lines.append(f"  {'estimator':18} {'value':>8} {'std. err.':>10}  {percent} by bootstrap")
        for key, at in one["estimates"].items():
            title = f"{TITLES[key]} ≤ {found['clip']:g}" if "clip" in key else TITLES[key]
            lines.append(
                f"  {title:18} {at['value']:8.4f} {at['stderr']:10.4f}  "
                f"{at['low']:.4f} to {at['high']:.4f}"
            )
        if one["sequence"] is not None:
            at = one["sequence"]
            lines.append(f"  at any time, with {percent}: {at['low']:.4f} to {at['high']:.4f}")
        at = one["beside_log"]
        lines.append(
            f"  beside the log: {at['difference']:+.4f} ({at['low']:+.4f} to {at['high']:+.4f})"
        )
    return "\n".join(lines)
