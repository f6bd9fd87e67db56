"""Answers of the service in words with figures. Pure; no answer has text of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bandit_service.cli.experiments_tables import listed, shown
from bandit_service.cli.mcp_server.savings import Savings
from bandit_service.core.switching_cost import REASONS
from bandit_service.statistics.moments import Moments

Answer = Mapping[str, Any]
_NEIGHBOURS = 5


def decision(record: Answer, now: Answer | str) -> str:
    """Why one request went to its arm. now: how its query is scored now, or why nobody can say."""
    reason = record.get("reason", "")
    lines = [
        f"Decision {record['decision_id']}{_moment(record)} went to {record['arm']}: "
        f"{REASONS.get(reason, reason or 'drawn')}.",
        f"It had a probability of {record['propensity']:.1%}; the policy {record['policy']} "
        f"decided{_in_experiment(record)}.",
        f"Expected of it: {_expected(record['expected'])}.",
    ]
    if record.get("fallback"):
        lines.append(f"It was decided without all that is known: {record['fallback']}.")
    if record.get("before"):
        stayed = "stayed with" if record.get("stayed") else "left"
        lines.append(f"Its conversation {stayed} {record['before']}.")
    lines += ["", "Arms that could be drawn:"]
    scores, untried = record.get("scores", {}), record.get("untried", ())
    for arm, chance in _by_size(record.get("propensities", {})):
        lines.append(
            f"- {arm}: probability {chance:.1%}, score {_score(scores.get(arm))}"
            + (", had no outcome yet" if arm in untried else "")
        )
    lines += [f"- {arm}: left out by {why}" for arm, why in record.get("excluded", {}).items()]
    lines += _neighbours(record.get("neighbours", ()))
    if record.get("steps"):
        lines += ["", "How it came to an experiment, or to none: " + "; ".join(record["steps"])]
    lines += ["", _came_back(record), "", *_now(now)]
    return "\n".join(lines)


def decisions(page: Answer) -> str:
    """The newest decisions, a line each."""
    rows = page["decisions"]
    if not rows:
        return "There is no such decision that may still be rewarded."
    return "\n".join(
        f"{row['decision_id']}{_moment(row)}: {row['arm']} (probability {row['propensity']:.1%}, "
        f"policy {row['policy']})"
        + (f", tags {', '.join(row['tags'])}" if row["tags"] else "")
        + f", {_signals(row['signals'])}"
        for row in rows
    )


def savings(found: Savings, hours: float) -> str:
    """What was spent and saved in the last hours."""
    span = f"the last {hours:g} h"
    if not found.decisions:
        return f"There was no decision in {span} that may still be rewarded."
    lines = [f"{found.decisions} decisions in {span}."]
    if found.saved.n:
        usd = found.would_cost_usd - found.spent_usd
        part = f" ({usd / found.would_cost_usd:.1%})" if found.would_cost_usd > 0 else ""
        lines.append(
            f"{found.saved.n} of them have a reported cost: {found.spent_usd:.6f} USD. For the "
            f"same queries {found.baseline} was to be expected to cost {found.would_cost_usd:.6f} "
            f"USD, so {_saved(usd)}{part}: {_mean(found.saved, '.6f')} USD a decision."
        )
        lines.append(
            f"This is an estimate: {found.baseline} did not answer the queries of other arms, and "
            "its answers might have been better or worse."
        )
    else:
        lines.append("None has a reported cost and a baseline arm, so savings are not known.")
    lines += ["", "By arm:"]
    for arm, spent in sorted(found.arms.items(), key=lambda each: -each[1].decisions):
        lines.append(
            f"- {arm}: {spent.decisions} decisions ({spent.decisions / found.decisions:.1%}), cost "
            f"{_mean(spent.cost_usd, '.6f')} USD each, reward {_mean(spent.reward, '.3f')}"
        )
    if found.oldest is not None:
        lines += ["", f"The oldest decision that counts here is of {_utc(found.oldest)}."]
    if not found.whole:
        lines.append(f"Only the newest {found.decisions} decisions were counted.")
    return "\n".join(lines)


def arms(answer: Answer) -> str:
    """The catalogue."""
    lines = []
    for arm in answer["arms"]:
        seen, health = arm.get("observed", {}), arm.get("health") or {}
        words = [
            "retired" if arm["retired"] else "offered",
            f"{arm['usd_per_mtok_in']:g} USD per million tokens in",
            f"{arm['usd_per_mtok_out']:g} out",
        ]
        if seen.get("mean_cost_usd") is not None:
            words.append(f"mean cost {seen['mean_cost_usd']:.6f} USD of {seen['costs']} answers")
        if seen.get("mean_latency_s") is not None:
            words.append(f"mean latency {seen['mean_latency_s']:.2f} s of {seen['latencies']}")
        if health:
            words.append(f"breaker {health['state']}, {health['running']} calls under way")
        if not arm.get("routed", True):
            words.append("answers only who names it")
        lines.append(f"- {arm['id']}: {'; '.join(words)}")
    return "\n".join(lines) or "There is no arm."


def policies(answer: Answer) -> str:
    """Which policy decides, and which there are."""
    serving = answer["serving"]
    given = ", ".join(f"{name} = {value}" for name, value in serving["parameters"].items())
    lines = [f"{serving['name']} decides, with {given or 'no parameters'}."]
    for each in answer["beside"]:
        state = "learns" if each["learning"] else "catches up with the log"
        lines.append(f"{each['name']} {state} beside it.")
    if folding := answer.get("folding"):
        lines.append(
            f"{folding['name']} is trained to take over: {folding['events']} of {folding['of']} "
            "events."
        )
    return "\n".join([*lines, f"There are: {', '.join(answer['policies'])}."])


def experiments(answer: Answer) -> str:
    """Every experiment and its conclusion."""
    return listed(dict(answer)) if answer["experiments"] else "There is no experiment."


def results(answer: Answer) -> str:
    """What may be concluded of one experiment."""
    return shown(dict(answer))


def health(ready: Answer | str, drift: Answer | str, budgets: Answer | str) -> str:
    """How the service is; each part, or why it could not be read."""
    lines = []
    if isinstance(ready, str):
        lines.append(f"Not ready: {ready}")
    else:
        lines.append(
            f"The service is {ready['status']}: {ready.get('events', '?')} events, "
            f"{ready.get('arms', '?')} arms offered."
        )
        if ready.get("why"):
            lines.append(f"What is not done now: {ready['why']}.")
        lines += [f"Task {k} fails: {v}" for k, v in (ready.get("failing") or {}).items()]
    if isinstance(drift, str):
        lines.append(f"Drift: {drift}")
    else:
        lines += [
            f"Drift of {one['arm'] or 'the queries'} at {_utc(one['ts'])}: "
            f"{one['before']:.3g} to {one['after']:.3g} ({one['detector']})."
            for one in drift["alarms"]
        ] or ["No drift alarm." if drift["watched"] else "Drift is not watched for."]
    if isinstance(budgets, str):
        lines.append(f"Budgets: {budgets}")
    else:
        lines += [
            f"Budget of {one['account']} per {one['per']}: {one['spent_usd']:.4f} of "
            f"{one['usd']:g} USD spent."
            for one in budgets["budgets"]
        ] or ["There is no budget."]
    return "\n".join(lines)


def _now(now: Answer | str) -> list[str]:
    if isinstance(now, str):
        return [f"How the query is scored now is not known: {now}"]
    lines = [f"The same query now, by {now['policy']}:"]
    for arm in sorted(now["arms"], key=lambda each: -each["propensity"]):
        line = f"- {arm['id']}: probability {arm['propensity']:.1%}, score {_score(arm['score'])}"
        if "value" in arm:
            line += (
                f" = value {arm['value']:.3f} + bonus {arm['bonus']:.3f} - cost {arm['cost']:.3f}"
            )
        lines.append(f"{line}; {_expected(arm['expected'] | {'cost_usd': arm['cost_usd']})}")
    lines += [f"- {arm}: left out by {why}" for arm, why in now["left_out"].items()]
    return lines


def _expected(told: Answer) -> str:
    words = [f"cost {told['cost_usd']:.6f} USD"]
    value = told.get("quality", told.get("value"))
    if told.get("untried"):
        words.append("no outcome yet, so its quality is not known")
    elif value is not None:
        between = f" (95 %: {told['low']:.2f} to {told['high']:.2f})" if "low" in told else ""
        n = told.get("n")
        words.append(
            f"quality {value:.2f}{between}" + ("" if n is None else f" by {n:.4g} outcomes")
        )
    if told.get("latency_s") is not None:
        words.append(f"{told['latency_s']:.2f} s")
    return ", ".join(words)


def _neighbours(found: Sequence[Answer]) -> list[str]:
    if not found:
        return ["", "No similar past query spoke for or against an arm."]
    lines = ["", f"It rests on {len(found)} similar past queries; the nearest:"]
    for each in found[:_NEIGHBOURS]:
        outcomes = ", ".join(f"{one['arm']} {one['reward']:.2f}" for one in each["outcomes"])
        lines.append(f"- similarity {each['similarity']:.3f}: reward of {outcomes or 'none known'}")
    return lines


def _came_back(record: Answer) -> str:
    said = f"What came back: {_signals(record.get('signals', {}))}"
    if record.get("deployment"):
        said += f"; its deployment {record['deployment']} answered"
    if record.get("answered_by"):
        said += f"; the model of {record['answered_by']} answered in its place"
    return said + ("." if record.get("settled") else "; it has no reward yet.")


def _signals(signals: Answer) -> str:
    return ", ".join(f"{k} {v:.6g}" for k, v in signals.items()) or "nothing yet"


def _in_experiment(record: Answer) -> str:
    route = f" on the route {record['route']}" if record.get("route") else ""
    if not record.get("experiment"):
        return route
    return f"{route}, as variant {record['variant']} of the experiment {record['experiment']}"


def _by_size(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda each: -each[1])


def _score(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.3f}"


def _mean(values: Moments, form: str) -> str:
    said = values.said()
    if said["mean"] is None:
        return "unknown"
    mean = format(said["mean"], form)
    if said["low"] is None:
        return f"{mean} (n = {said['n']}, too few for an interval)"
    return f"{mean} (95 %: {said['low']:{form}} to {said['high']:{form}}, n = {said['n']})"


def _saved(usd: float) -> str:
    return f"{usd:.6f} USD were saved" if usd >= 0 else f"{-usd:.6f} USD more were spent"


def _moment(row: Answer) -> str:
    return f" of {_utc(row['ts'])}" if row.get("ts") else ""


def _utc(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
