"""What the demo says, all of it computed: before and after each act, the table, the sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_service.core.outcomes import RewardRule
from bandit_service.offline.baselines import baselines
from bandit_service.offline.simulate import Phase
from loadtest.demo.acts import ACTS, DEARER, Stage
from loadtest.demo.interval import Interval, interval
from loadtest.demo.live import Live
from loadtest.demo.offline import CHANCE, FIRST, GREEDY, Played, Results
from policies import Floats

_SHOWN_FIXED = 6
_HEADINGS = ("", "reward a query", "act 1", "act 2", "act 3", "USD per 1,000")


class Acts:
    """What is said about an act while it is played."""

    def before(self, stage: Stage, act: int, dear: int, worse: int) -> str:
        """What changes now."""
        return f"\nAct {act + 1} of {ACTS}: {_changes(stage, dear, worse)[act]}"

    def after(
        self,
        stage: Stage,
        act: int,
        earned: Floats,
        phase: Phase,
        order: NDArray[np.int64],
        drawn: NDArray[np.int64],
        rule: RewardRule,
    ) -> str:
        """What it came to, and whom the router asked in the last fifth."""
        beside = baselines(phase.recorded, rule)
        on = beside.take(order)
        best = next(k for k, arm in enumerate(phase.recorded.arms) if arm.id == beside.best_arm)
        last = drawn[len(drawn) - max(1, len(drawn) // 5) :]
        shares = np.bincount(last, minlength=len(phase.recorded.arms)) / len(last)
        asked = ", ".join(
            f"{stage.name(k)} {shares[k]:.0%}" for k in np.argsort(-shares)[:4] if shares[k] > 0.0
        )
        lines = [
            f"  mean reward: router {earned.mean():.3f}; always {stage.name(best)}, the best "
            f"single model of this act, {on.best.reward.mean():.3f}; a random one "
            f"{on.uniform.reward.mean():.3f}"
        ]
        if act == 0:
            lost = float((on.best.reward - earned).sum())
            lines.append(f"  the cost of learning: {lost:.1f} of reward in all")
        return "\n".join([*lines, f"  asked at the end of the act: {asked}"])


def _changes(stage: Stage, dear: int, worse: int) -> tuple[str, str, str]:
    there = len(stage.there(0))
    joins = ""
    if stage.newcomer is not None:
        joins = f"{stage.name(stage.newcomer)} joins (PUT /v1/arms); "
    return (
        f"the router knows nothing about its {there} models",
        f"{stage.name(dear)}, the favourite, costs {DEARER:g} times as much (PUT /v1/arms)",
        f"{joins}{stage.name(worse)}, the favourite by now, silently gives half its quality",
    )


def table(results: Results, live: Live | None = None) -> list[tuple[str, ...]]:
    """Headings and a line for each policy and choice, by falling reward; the live run is last."""
    fixed = sorted(results.fixed, key=lambda name: -results.played[name].reward.mean())
    hidden = set(fixed[_SHOWN_FIXED:])
    shown = [name for name in results.played if name not in hidden]
    shown.sort(key=lambda name: -results.played[name].reward.mean())
    lines: list[tuple[str, ...]] = [_HEADINGS]
    for name in shown:
        called = f"**the router** (`{name}`)" if name == results.router else name
        lines.append(_line(results.stage, called, results.played[name]))
    if hidden:
        dash = "-"
        lines.append((f"{len(hidden)} other fixed choices, all lower", *[dash] * 5))
    if live is not None:
        once = Played(live.reward[None], live.cost[None])
        lines.append(_line(results.stage, "the router as it was served, one run", once))
    return lines


def _line(stage: Stage, name: str, played: Played) -> tuple[str, ...]:
    acts = [f"{played.act(stage.starts, act).reward.mean():.3f}" for act in range(ACTS)]
    return name, f"{played.reward.mean():.4f}", *acts, f"{1e3 * played.cost.mean():.2f}"


def plain(lines: Sequence[tuple[str, ...]]) -> str:
    """The table for a terminal."""
    clean = [tuple(cell.replace("*", "").replace("`", "") for cell in line) for line in lines]
    widths = [max(len(line[i]) for line in clean) for i in range(len(clean[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in clean
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """The router less another, by seed: reward a query, and USD per 1,000 queries."""

    reward: Interval
    usd: Interval

    @property
    def verdict(self) -> str:
        """What the interval of the reward allows to be said."""
        if self.reward.low > 0.0:
            return "above"
        return "below" if self.reward.high < 0.0 else "not above"


def difference(results: Results, other: str) -> Difference:
    """Paired by seed: the same order of the same queries in the same world."""
    router, beside = results.played[results.router], results.played[other]
    return Difference(
        interval(router.reward.mean(axis=1) - beside.reward.mean(axis=1)),
        interval(1e3 * (router.cost.mean(axis=1) - beside.cost.mean(axis=1))),
    )


def sentences(results: Results, rule: RewardRule) -> list[str]:
    """The router beside the best fixed choice, the best of act 1, epsilon-greedy and chance."""
    best = results.best_fixed
    return [
        f"{_compared(results, best, f'the best fixed choice in hindsight ({best})')} "
        f"{_value(difference(results, best), rule)}",
        _compared(results, FIRST, "keeping the best model of act 1"),
        _compared(results, GREEDY, "epsilon-greedy"),
        _compared(results, CHANCE, "asking a random model"),
        not_knowing(results),
    ]


def _compared(results: Results, other: str, called: str) -> str:
    found = difference(results, other)
    reward, usd = found.reward, found.usd
    over = f"95 % intervals over {reward.seeds} seeds"
    return (
        f"{_upper(found.verdict)} {called}: {_signed(reward, '.4f')} reward a query and "
        f"{_signed(usd, '.2f')} USD per 1,000 queries ({over})."
    )


def _value(found: Difference, rule: RewardRule) -> str:
    less = (
        " So here, at this length, routing is not shown to be worth more than the right model "
        "known beforehand."
    )
    worth = 1e3 * found.reward.mean * rule.willingness_to_pay
    return (
        f"At {rule.willingness_to_pay:.2f} USD for one unit of quality that is worth {worth:+.2f} "
        f"USD per 1,000 queries, bills included.{'' if found.verdict == 'above' else less}"
    )


def not_knowing(results: Results) -> str:
    """The area between the router and the best single arm of act 1."""
    starts = results.stage.starts
    best = results.played[FIRST].act(starts, 0).reward
    lost = (best - results.played[results.router].act(starts, 0).reward).sum(axis=1)
    found = interval(lost)
    return (
        f"The cost of learning in act 1: {found.mean:.1f}"
        f"{_ends(found, '.1f')} of reward in {best.shape[1]} queries, compared with the "
        "model that turned out best there."
    )


def acts_told(results: Results) -> str:
    """What happened, for readers who did not watch."""
    told = _changes(results.stage, results.dear, results.worse)
    each = [f"({letter}) {text}" for letter, text in zip("abc", told, strict=True)]
    return "; ".join(each)


def markdown(results: Results, live: Live | None, rule: RewardRule) -> str:
    """Acts, table and sentences for a document."""
    head, *lines = table(results, live)
    stage, seeds = results.stage, results.played[results.router].reward.shape[0]
    rows = [f"| {' | '.join(line)} |" for line in [head, ("---",) * len(head), *lines]]
    return "\n".join(
        [
            f"{len(stage.recorded):,} queries of `{stage.recorded.name}`, "
            f"{len(stage.recorded.arms)} models, {seeds} seeds: {acts_told(results)}. "
            f"Reward is quality from 0 to 1, less the bill over {rule.willingness_to_pay:.2f} USD.",
            "",
            *rows,
            "",
            *[f"- {sentence}" for sentence in sentences(results, rule)],
        ]
    )


def _signed(found: Interval, form: str) -> str:
    return f"{found.mean:+{form}}{_ends(found, '+' + form)}"


def _ends(found: Interval, form: str) -> str:
    return "" if np.isnan(found.low) else f" [{found.low:{form}}, {found.high:{form}}]"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
