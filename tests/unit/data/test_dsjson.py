"""DSJSON through Vowpal Wabbit's own parser: what it reads is what is in the log."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vowpalwabbit as vw

from bandit_service.core import events as ev
from bandit_service.data import dsjson
from bandit_service.data.log_source import LogSource
from bandit_service.data.scan import Scan
from tests.unit.data.making import ARMS, DIM, a_history, a_log

EPSILON = 0.25
IPS = f"--dsjson --cb_explore_adf --cb_type ips --epsilon {EPSILON} --strict_parse"


class Truth:
    """Decisions of a history and their rewards, reckoned here by reading it once, in order."""

    def __init__(self, events: list[ev.AnyEvent]) -> None:
        self.decided = {e.id: e for e in events if isinstance(e, ev.Decided)}
        self.reward: dict[str, float] = {}
        self.by_default: set[str] = set()
        for event in events:
            if isinstance(event, ev.Rewarded) and event.decision_id and event.reward is not None:
                self.reward[event.decision_id] = event.reward
            elif isinstance(event, ev.DecisionsExpired) and event.default_reward is not None:
                for id in event.ids:
                    self.reward[id] = event.default_reward
                    self.by_default.add(id)


def exported(
    path: Path, events: list[ev.AnyEvent], unrewarded: str = "skip", embeddings: bool = True
) -> list[dict[str, Any]]:
    """The history through a log and an export; the file is at path / "out.dsjson"."""
    log = a_log(path / "log", events)
    with Scan(LogSource(log), 0, joined=True) as scan:
        lines = list(dsjson.lines(scan, embeddings, unrewarded))
    log.close()
    (path / "out.dsjson").write_bytes(b"".join(lines))
    return [json.loads(line) for line in lines]


def run_vw(path: Path, options: str = IPS) -> tuple[list[dict[int, float]], dict[str, Any], str]:
    """VW over the file: its distribution for every decision, its metrics and what it printed."""
    model = vw.Workspace(
        f"{options} -d {path / 'out.dsjson'} -p {path / 'out.pred'} "
        f"--extra_metrics {path / 'metrics.json'}",
        enable_logging=True,
    )
    model.finish()
    printed = "\n".join(model.get_log())
    blocks = (path / "out.pred").read_text().strip().split("\n\n")
    predictions = [
        {int(a): float(p) for a, p in (pair.split(":") for pair in block.split(","))}
        for block in blocks
    ]
    return predictions, json.loads((path / "metrics.json").read_text()), printed


@pytest.fixture(scope="module")
def history() -> list[ev.AnyEvent]:
    return a_history(400, seed=3)


@pytest.mark.parametrize("embeddings", [True, False])
def test_vw_reads_every_cost_probability_action_and_feature(
    tmp_path: Path, history: list[ev.AnyEvent], embeddings: bool
) -> None:
    truth = Truth(history)
    lines = exported(tmp_path, history, embeddings=embeddings)
    assert [line["EventId"] for line in lines] == [id for id in truth.decided if id in truth.reward]
    assert len(lines) > 200
    parser = vw.Workspace("--dsjson --cb_explore_adf --quiet --strict_parse")
    for line in lines:
        decided = truth.decided[line["EventId"]]
        shared, *actions = parser.parse(json.dumps(line))
        # VW adds a constant to every example
        assert shared.get_feature_number() == 2 + DIM * embeddings + 1
        assert [each.get_feature_number() for each in actions] == [3] * len(decided.arms)
        assert [each.get_tag() for each in actions] == list(decided.arms)
        labels = [each.get_label(vw.LabelType.CONTEXTUAL_BANDIT).costs for each in actions]
        assert [len(costs) for costs in labels] == [
            int(i == decided.drawn) for i in range(len(decided.arms))
        ]
        (label,) = labels[decided.drawn]
        assert label.cost == np.float32(-truth.reward[decided.id])
        assert label.probability == np.float32(decided.propensity)
        assert label.action == decided.drawn + 1
        parser.finish_example([shared, *actions])
    parser.finish()


def test_vw_sees_the_numbers_of_the_features(tmp_path: Path, history: list[ev.AnyEvent]) -> None:
    truth = Truth(history)
    parser = vw.Workspace("--dsjson --cb_explore_adf --quiet --strict_parse")
    for line in exported(tmp_path, history)[:50]:
        decided = truth.decided[line["EventId"]]
        shared, *actions = parser.parse(json.dumps(line))
        seen = {
            ns: [shared.feature_weight(ns, i) for i in range(shared.num_features_in(ns))]
            for ns in ("q", "e")
        }
        assert seen["q"] == [decided.tokens, np.float32(decided.willingness_to_pay)]
        assert seen["e"] == ev.unpack(decided.embedding).tolist()
        listed = [action.feature_weight("a", 1) for action in actions]
        assert listed[decided.drawn] == np.float32(decided.list_cost_usd)
        ids = {action.feature("a", 0) for action in actions}
        assert len(ids) == len(decided.arms)
        parser.finish_example([shared, *actions])
    parser.finish()


def test_a_and_p_begin_with_the_drawn_arm_and_are_the_whole_distribution(
    tmp_path: Path, history: list[ev.AnyEvent]
) -> None:
    truth = Truth(history)
    for line in exported(tmp_path, history):
        decided = truth.decided[line["EventId"]]
        assert line["a"][0] == line["_label_Action"] == line["_labelIndex"] + 1
        assert line["p"][0] == line["_label_probability"] == decided.propensity
        aligned = dict(zip(line["a"], line["p"], strict=True))
        assert [aligned[i + 1] for i in range(len(decided.arms))] == list(decided.propensities)
        assert bool(line["o"]) == (decided.id not in truth.by_default)
        assert datetime.fromisoformat(line["Timestamp"]).timestamp() == decided.ts


def test_vw_trains_without_a_warning_and_its_ips_loss_is_ours(
    tmp_path: Path, history: list[ev.AnyEvent]
) -> None:
    """Σ π(drawn)·cost/p over VW's own distributions, and the mean cost of the logging policy."""
    truth = Truth(history)
    lines = exported(tmp_path, history)
    predictions, metrics, printed = run_vw(tmp_path)
    assert "warning" not in printed.lower()
    assert "error" not in printed.lower()
    assert (metrics["line_parse_error"], metrics["number_skipped_events"]) == (0, 0)
    assert (metrics["first_event_id"], metrics["last_event_id"]) == (
        lines[0]["EventId"],
        lines[-1]["EventId"],
    )
    explored = metrics["cb_explore_adf_greedy"]
    assert explored["cbea_labeled_ex"] == len(lines)
    first = sum(line["_labelIndex"] == 0 for line in lines)
    assert explored["cbea_label_first_action"] == first
    cost = {id: -reward for id, reward in truth.reward.items()}
    decided = [truth.decided[line["EventId"]] for line in lines]
    logging = sum(cost[each.id] for each in decided)
    assert explored["cbea_sum_cost"] == pytest.approx(logging, rel=1e-6)
    ours = np.mean(
        [
            prediction[each.drawn] * cost[each.id] / each.propensity
            for each, prediction in zip(decided, predictions, strict=True)
        ]
    )
    loss = float(printed.split("average loss = ")[1].split()[0])
    assert loss == pytest.approx(ours, rel=1e-4, abs=1e-5)
    total = int(printed.split("total feature number = ")[1].split()[0])
    # each action is read together with the shared features; the constant stands once
    assert total == sum((2 + DIM + 3) * len(each.arms) for each in decided)


@pytest.mark.parametrize("unrewarded", dsjson.UNREWARDED)
def test_what_becomes_of_decisions_without_a_reward(
    tmp_path: Path, history: list[ev.AnyEvent], unrewarded: str
) -> None:
    truth = Truth(history)
    lines = exported(tmp_path, history, unrewarded)
    without = {id for id in truth.decided if id not in truth.reward}
    assert len(without) > 20
    seen = {line["EventId"] for line in lines}
    assert seen == set(truth.decided) - (without if unrewarded == "skip" else set())
    _, metrics, _ = run_vw(tmp_path)
    learned = metrics["cb_explore_adf_greedy"]["cbea_labeled_ex"]
    skipped = metrics["number_skipped_events"]
    if unrewarded == "skip-learn":
        assert (learned, skipped) == (len(truth.reward), len(without))
    else:
        assert (learned, skipped) == (len(lines), 0)
    for line in lines:
        if line["EventId"] in without:
            assert (line["_label_cost"], line["o"]) == (0.0, [])


def test_prices_are_those_of_the_moment(tmp_path: Path) -> None:
    """An arm that became dearer has its new price from there on."""
    events = a_history(40, seed=1)
    middle = len(events) // 2
    dearer = ev.ArmSpec(id=ARMS[0].id, usd_per_mtok_in=90.0, usd_per_mtok_out=90.0)
    events.insert(middle, ev.ArmUpdated(ts=2.0, arm=dearer, source="api"))
    before = {e.id for e in events[:middle] if isinstance(e, ev.Decided)}
    for line in exported(tmp_path, events, "zero"):
        cost = line["c"]["_multi"][0]["arm"]["list_cost_usd"]
        tokens = line["c"]["query"]["tokens"]
        spec = ARMS[0] if line["EventId"] in before else dearer
        assert cost == dsjson.list_cost_usd(spec, tokens)
