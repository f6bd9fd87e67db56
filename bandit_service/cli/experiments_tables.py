"""Experiments as tables for a terminal."""

from __future__ import annotations

from typing import Any


def listed(found: dict[str, Any]) -> str:
    """All experiments, one line each."""
    lines = [f"{'experiment':24} {'status':9} {'share':>6} {'units':>8} {'decisions':>10}"]
    for one in found["experiments"]:
        share = one["experiment"].get("share", 1.0)
        lines.append(
            f"{one['id'][:24]:24} {one['status']:9} {share:6.1%} {one['units']:8d} "
            f"{one['decisions']:10d}"
        )
        lines.append(f"  {one['conclusion']}")
    return "\n".join([*lines, *ruled(found["rules"])])


def shown(found: dict[str, Any]) -> str:
    """One experiment's results as a table, and what may be concluded."""
    primary = found["primary"]
    lines = [
        f"{found['id']}: {found['status']}, {found['share']:.1%} of {found['unit']}s, "
        f"by {primary}, learning: "
        + ", ".join(f"{one['key']} {one['learning']}" for one in found["variants"]),
        "",
        f"{'variant':16} {'decides by':18} {'weight':>7} {'units':>7} {'decisions':>9} "
        f"{primary:>10} {'from':>10} {'to':>10}  difference to control",
    ]
    for one in found["variants"]:
        at = one["metrics"][primary]
        mean = f"{at['mean']:10.4f}" if "mean" in at else f"{'-':>10}"
        low, high = (
            f"{at[side]:10.4f}" if at.get(side) is not None else f"{'-':>10}"
            for side in ("low", "high")
        )
        gap = one.get("difference")
        if gap is None:
            said = "control"
        elif gap["state"] != "shown":
            said = gap["state"]
        else:
            said = f"{gap['mean']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})"
            if "relative" in gap:
                said += f", {gap['relative']['mean']:+.1%}"
        lines.append(
            f"{one['key'][:16]:16} {one['decides'][:18]:18} {one['weight']:7.1%} "
            f"{one['units']:7d} {one['decisions']:9d} {mean} {low} {high}  {said}"
            + ("  HELD" if one["held"] else "")
        )
    for one in found["shadows"]:
        said = one.get("why", "not enough data")
        if "reward" in one:
            said = f"reward {one['reward']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
        agreement = one.get("agreement")
        agreed = "" if agreement is None else f"agrees {agreement:.1%}, "
        lines.append(f"{one['key'][:16]:16} shadow: {agreed}{said}")
    split, cost = found["split"], found["cost"]
    lines.append("")
    if split["sequential_p"] is None:
        lines.append(f"split: {split['state']}")
    else:
        lines.append(
            f"split {split['state']} (sequential p {split['sequential_p']:.3g}, chi-square p "
            f"{split['chi_square_p']:.3g}, which is for one look)"
        )
    for one in found["guardrails"]:
        said = one["why"] if one["state"] == "broken" else one["state"]
        lines.append(f"guardrail {one['metric']} of {one['variant']}: {said}")
    lines += [
        f"latency of {one['key']}: {_seconds(one['latency'])}"
        for one in found["variants"]
        if one["latency"]["state"] == "shown"
    ]
    for key, saved in cost["saved"].items():
        if saved["state"] == "shown":
            lines.append(
                f"{key} saves {saved['usd_per_decision']:+.6f} USD a decision "
                f"({saved['low']:+.6f} to {saved['high']:+.6f}) against {cost['against']}"
            )
    lines += ["", found["conclusion"]]
    return "\n".join([*lines, *(f"Note: {each}" for each in found["caveats"])])


def _seconds(latency: dict[str, Any]) -> str:
    said = []
    for name in ("p50", "p95"):
        one = latency[name]
        high = "?" if one["high"] is None else f"{one['high']:.3g}"
        other = f", differs with p {one['p']:.2g}" if "p" in one else ""
        said.append(f"{name} {one['value']:.3g} s ({one['low']:.3g} to {high}{other})")
    return "; ".join(said)


def ruled(rules: dict[str, Any]) -> list[str]:
    """What stands over all experiments, a sentence each."""
    lines = []
    if rules.get("stopped"):
        lines.append("The kill switch is on: no unit is in any experiment.")
    if rules.get("holdout_share"):
        lines.append(
            f"{rules['holdout_share']:.1%} of the units are held out on {rules['holdout_arm']}."
        )
    return lines
