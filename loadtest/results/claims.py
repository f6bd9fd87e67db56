"""The papers' claims compared with our figures. Each function returns a section as Markdown.

A paper's claim is quoted with its place; a number digitised from a figure says so. The verdict
line is computed from the figures. The sentences that explain it are ours, and hold on any data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bandit_service.lab.offline import OfflineRow
from bandit_service.lab.tables import Table, number, percent, update_table
from loadtest.results.found import AssignedRow, Found

EAGLE_AGAINST = ("kNN", "MLP", "SVM")
# Fig. 3b, digitised: gain in summed AUC over kNN, MLP and SVM at 100 % of the training data.
EAGLE_PAPER = {"kNN": 0.040, "MLP": 0.036, "SVM": 0.222}


def eagle(found: Sequence[Found]) -> str:
    """Eagle's areas and its times against the routers of its tables, by data set."""
    cells, wins = (
        [
            (
                "paper (figure 3b)",
                *(_signed(EAGLE_PAPER[name]) for name in EAGLE_AGAINST),
                "–",
                "–",
                "–",
            )
        ],
        [],
    )
    updates = {each.name: each.updates for each in found}
    for data, rows in updates.items():
        last = {row.router: row for row in rows if row.share == 1.0}
        ours = last["Eagle"]
        gains = [ours.log_wtp_auc / last[name].log_wtp_auc - 1.0 for name in EAGLE_AGAINST]
        wins += gains
        cells.append(
            (
                data,
                *map(_signed, gains),
                *(_signed(ours.auc_linear - last[n].auc_linear, "") for n in EAGLE_AGAINST),
            )
        )
    table = Table(
        "Eagle's AUC minus another router's, at 100 % of the training part",
        (
            "data",
            *(f"log-WTP AUC vs {name}" for name in EAGLE_AGAINST),
            *(f"AUC vs {name}" for name in EAGLE_AGAINST),
        ),
        tuple(cells),
        "The difference in log-WTP AUC is in percent, as in the paper; the difference in AUC is a "
        "number.",
    )
    won = sum(gain > 0.0 for gain in wins)
    largest = max(updates, key=lambda data: sum(row.added for row in updates[data]))
    first = {row.router: row.seconds for row in updates[largest] if row.share == 0.7}
    added = {row.router: row.seconds for row in updates[largest] if row.share == 1.0}
    slowest = [name for name in EAGLE_AGAINST if name != "kNN"]
    fit = first["Eagle"] / float(np.mean([first[name] for name in slowest]))
    more = added["Eagle"] / float(np.mean([added[name] for name in slowest]))
    times = update_table(
        list(updates[largest]),
        f"{largest}: wall seconds to learn each share of the training part, and the AUC after it",
    )
    return "\n\n".join(
        [
            "### Eagle",
            "> Summed AUC over seven data sets: +4.0 % over kNN, +3.6 % over MLP, +22.2 % over SVM "
            "at 100 % of the data (figure 3b, digitised; the text says +5.14, +4.73, +23.52 %). "
            "First fit in 4.8 % of the baselines' time, updates in 0.5 to 1 % (table 3).",
            table.markdown(),
            f"**Verdict: on the paper's axis Eagle is above its baselines in {won} of {len(wins)} "
            "comparisons.** Most of that axis is a plateau, so it ranks routers by the arm that "
            "they choose when cost does not matter. A router that always chooses the best single "
            "arm does well there. The AUC next to it weighs the whole range of cost. Eagle knows "
            "only which of two answers was better, and replays the comparisons of 20 neighbours. "
            "kNN averages every answer of 40 neighbours, which uses more information if scores are "
            "exact. The published MLP and SVM are weak by construction: the MLP has no early "
            "stopping, and the SVM is a median regressor on labels of 0 and 1. Elo depends on the "
            "order of its records. The paper gives no intervals.",
            times.markdown(),
            f"**Verdict on time: Eagle's first fit takes {percent(fit, 1)} of the mean time of MLP "
            f"and SVM, its update with the last 15 % takes {percent(more, 1)}.** Embeddings are "
            "computed beforehand for all routers. kNN has nothing to fit. The paper's 176 s for it "
            "can only be the time to embed, or to build an index again, which no router needs to "
            "repeat.",
        ]
    )


def metallm(found: Sequence[Found]) -> str:
    """Accuracy and cost of the paper's MetaLLM for several p beside the single models."""
    parts, verdicts = [], []
    headings = ("policy", "quality", "USD/1000", "quality minus best single's", "cost")
    for each in found:
        if not each.metallm:
            continue
        singles = sorted(each.singles, key=lambda single: -single.test_quality)
        best = singles[0]
        points = [(f"({one.arm})", [one.test_quality], one.test_cost) for one in singles[:4]]
        won = False
        labels = dict.fromkeys(row.label for row in each.metallm)
        for label in reversed(labels):
            its = [row for row in each.metallm if row.label == label]
            cost = float(np.mean([row.cost for row in its]))
            points.insert(0, (label, [row.quality for row in its], cost))
            won |= float(np.mean(points[0][1])) > best.test_quality and cost < best.test_cost
        cells = tuple(
            (
                label,
                _with_sd(quality),
                number(1000 * cost),
                _signed(float(np.mean(quality)) - best.test_quality, ""),
                percent(cost / best.test_cost - 1.0),
            )
            for label, quality, cost in points
        )
        parts.append(Table(f"{each.name}: {each.test} test queries", headings, cells).markdown())
        verdicts.append(f"{each.name}: {'yes' if won else 'no'}")
    if not parts:
        return ""
    return "\n\n".join(
        [
            "### MetaLLM",
            "> Warm start and online: 92.55 % on SST-2 at −57 % of davinci's cost, which has "
            "91.51 % (table 3); MMLU 80.90 % at −11 % of Qwen's cost, which has 80.24 % (table 4). "
            "Online without a warm start is no better than one cheap model.",
            "The paper's setting: reward = quality − p·price, ridge 12.94, no bias. The router "
            "learns 70 % of the queries with full information. The others are routed online, in an "
            "order that the seed sets.",
            *parts,
            f"**Verdict: is some p better than the best single model, at a lower cost? "
            f"{'; '.join(verdicts)}.** The paper's gain is one point, 9 of 872 test queries, "
            "without an interval. If one arm is best on nearly every query, no linear rule on the "
            "embedding can beat it by much. The price is the list price divided by the highest "
            "list price, so p = 0.1 already outweighs most differences in quality. In the paper "
            "the online learner without a warm start fails because its code has α = 0: it never "
            "chooses an arm that it has not tried. With any bonus it learns.",
        ]
    )


def pickllm(found: Sequence[Found]) -> str:
    """When sessions converge, on what, and what they cost beside random and the dearest arm."""
    cells, right, seeds = [], [], 0
    for each in found:
        if not each.sessions:
            continue
        dearest = max(single.cost for single in each.singles)
        for row in each.sessions:
            seeds = row.sessions
            waited = "–" if each.latency is None else percent(row.latency_s / each.latency - 1.0)
            cells.append(
                (
                    f"{each.name}, {row.label}",
                    percent(row.share),
                    number(row.queries, 0),
                    percent(row.best),
                    number(row.regret, 3),
                    number(row.quality, 3),
                    percent(row.cost_usd / dearest - 1.0) if dearest > 0.0 else "–",
                    waited,
                )
            )
            if row.share > 0.0:
                right.append(row.best)
    if not cells:
        return ""
    headings = (
        "data, setting",
        "sessions that converged",
        "median queries",
        "on the best arm",
        "regret of the arm",
        "quality",
        "cost against the dearest",
        "latency against random",
    )
    return "\n\n".join(
        [
            "### PickLLM",
            "> A session converges to a single model; cost −60 % against always using the dearest, "
            "latency −52 % against random choice (secondary sources; the paper's tables could not "
            "be read).",
            Table(f"Sessions of PickLLM, {seeds} each", headings, tuple(cells)).markdown(),
            "**Verdict: sessions converge, on average "
            f"{percent(float(np.mean(right)) if right else math.nan)} of them on the best arm.** "
            "The higher the rate, the sooner they converge and the worse the arm: at b = 0.5 a few "
            "early rewards decide. Savings against the dearest model alone say little, since any "
            "cheap model has them. So compare the quality, too. The best arm is the one with the "
            "highest mean of the service's own reward, which ignores latency; PickLLM's reward "
            "divides by it.",
        ]
    )


def two_models(found: Sequence[Found]) -> str:
    """RouteLLM's and Hybrid LLM's figures on data sets of two models."""
    cells, drops, above = [], [], []
    routers = ("RouteLLM SW", "RouteLLM MF", "kNN", "ridge", "Hybrid LLM prob")
    for each in found:
        if len(each.singles) != 2:
            continue
        for router in routers:
            mine = [row for row in each.offline if row.router == router]
            if not mine:
                continue
            apgr = _mean(mine, "apgr")
            above += [apgr] if router.startswith("RouteLLM") else []
            numbers = (apgr, _mean(mine, "cpt50"), _mean(mine, "cpt80"))
            cells.append((f"{each.name}, {router}", *(number(value, 3) for value in numbers)))
        for router in ("Hybrid LLM det", "Hybrid LLM prob", "Hybrid LLM trans"):
            mine = [row for row in each.offline if row.router == router]
            if not mine:
                continue
            values = [np.mean([_drop(row, share) for row in mine]) for share in (0.1, 0.2, 0.4)]
            drops.append((f"{each.name}, {router}", *(f"{100 * float(v):.1f} %" for v in values)))
    if not cells:
        return ""
    return "\n\n".join(
        [
            "### RouteLLM and Hybrid LLM: two models",
            "> RouteLLM, GPT-4 against Mixtral: MMLU APGR 0.603 (SW) and 0.597 (MF) with in-domain "
            "labels, 0.473 and 0.524 without (table 2); GSM8K 0.568 and 0.565 (table 3). Random "
            "routing has 0.5.",
            Table(
                "RouteLLM's metrics",
                ("data, router", "APGR", "CPT(50 %)", "CPT(80 %)"),
                tuple(cells),
            ).markdown(),
            f"**Verdict: RouteLLM's routers are {'all' if min(above) > 0.5 else 'not all'} better "
            "than random routing if they are trained on outcomes of the same kind of queries**, as "
            "in the paper's rows with in-domain labels. Compare them with a plain kNN on the same "
            "embeddings.",
            "> Hybrid LLM: a drop of 0.0 to 2.9 % of quality at 20 to 40 % of calls to the small "
            "model for pairs that are near each other, 4.7 to 13.8 % where the gap is large "
            "(table 1).",
            Table(
                "Share of the large model's quality that is lost, by share of calls to the small "
                "model",
                ("data, router", "10 %", "20 %", "40 %"),
                tuple(drops),
            ).markdown(),
            "The head is logistic on the frozen embedding, not a fine-tuned DeBERTa. Each model "
            "was sampled once, so a soft label is computed from one gap.",
        ]
    )


def forc(found: Sequence[Found]) -> str:
    """FORC's headline beside what its predictor reaches here, and its strategies under a budget."""
    cells = []
    for each in found:
        for router in ("FORC", "FORC, threshold", "ridge tuned", "kNN tuned"):
            mine = [row.match_cost for row in each.offline if row.router == router]
            reached = [value for value in mine if not math.isnan(value)]
            share = float(np.mean(reached)) if reached else math.nan
            cells.append(
                (f"{each.name}, {router}", percent(share), f"{len(reached)} of {len(mine)}")
            )
    headings = ("data, router", "cost", "splits where it is reached")
    assigned = [_assigned(each.name, each.assigned) for each in found if each.assigned]
    return "\n\n".join(
        [
            "### FORC",
            "> Matches the largest model at −63 % of its cost over 14 data sets (abstract).",
            Table(
                "Cost to match the best single model, as a share of its cost",
                headings,
                tuple(cells),
            ).markdown(),
            "The predictor is a logistic head per arm on the frozen embedding; the paper "
            "fine-tunes an encoder. The possible saving depends on how much the models differ: "
            "four models of one family, as in the paper, leave more to save than a pool in which a "
            "cheap model is among the best.",
            *assigned,
        ]
    )


def votes(found: Sequence[Found]) -> str:
    """Eagle's ratings on people's votes, beside a batch fit."""
    cells = []
    for each in found:
        for method in dict.fromkeys(row.method for row in each.votes):
            its = [row for row in each.votes if row.method == method]
            accuracy = [row.accuracy for row in its]
            cells.append(
                (
                    f"{each.name}, {method}",
                    f"{its[0].decided} of {its[0].votes}",
                    _with_sd(accuracy),
                    number(float(np.mean([row.log_loss for row in its]))),
                    number(float(np.mean([row.brier for row in its]))),
                )
            )
    if not cells:
        return ""
    headings = ("votes, method", "decided votes", "accuracy", "log loss", "Brier")
    return "\n\n".join(
        [
            "### Eagle on people's votes",
            "Eagle is made for comparisons. Each vote is first predicted from the votes before it, "
            "then learned. ± is the standard deviation between orders of the votes. The local "
            "rating can help only if different models are good at different prompts.",
            Table("Predicting the next vote", headings, tuple(cells)).markdown(),
        ]
    )


def _assigned(name: str, rows: Sequence[AssignedRow]) -> str:
    cells = tuple(
        (
            f"{percent(row.budget)}, {row.strategy}",
            percent(row.spent),
            number(row.expected),
            number(row.quality),
            percent(row.answered),
            number(row.seconds, 3),
        )
        for row in rows
    )
    return Table(
        f"{name}: a batch under a total budget, as a share of the best single arm's bill",
        ("budget, strategy", "spent", "expected quality", "quality", "answered", "s"),
        cells,
        'The budget is kept by estimated costs; "spent" is by recorded costs. An unanswered query '
        "counts 0.",
    ).markdown()


def _mean(rows: Sequence[OfflineRow], name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows]))


def _with_sd(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.4f}"


def _drop(row: OfflineRow, share: float) -> float:
    """Quality lost against the strong model when `share` of the queries go to the weak one."""
    points = sorted((1.0 - p.strong, p.quality) for p in row.points)
    weak, quality = (np.array(each) for each in zip(*points, strict=True))
    strong = quality[weak <= 0.0]
    top = float(strong[0]) if strong.size else float(quality[0])
    return 1.0 - float(np.interp(share, weak, quality)) / top


def _signed(value: float, unit: str = " %") -> str:
    return f"{100 * value:+.1f}{unit}" if unit else f"{value:+.4f}"
