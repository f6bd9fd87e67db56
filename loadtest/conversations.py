"""What keeping a conversation's model is worth: full-price tokens, dollars and reward.

    python -m loadtest.conversations [--data FILE] [--seeds 3] [--turns 1200] [--markdown FILE]

The turns are recorded queries with the recorded quality and length of each arm's answer. A seeded
generator makes conversations of them as serving traces have them: several go on at once, of few
turns or many, with pauses of seconds and now and then of minutes; a turn sends all that was said
before, after a long text of the system. A provider finds the prompt of its last turn again within
five minutes, in nine of ten cases, and bills what it finds with a tenth of its price.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import policies
from bandit_service.cli.options import bounded
from bandit_service.core import chance
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide, weigh
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import new_world
from bandit_service.data.recordings import PARETOBANDIT, embed_all, open_recording
from bandit_service.embedding import open_backend
from bandit_service.lab.data import Labelled
from bandit_service.lab.tables import Table
from bandit_service.settings import Settings
from loadtest.sections import put_section
from policies import ArmId

WORTHS = (0.1, 0.5)
"""USD of one quality: with the second one, the arm that is worth its price depends on the query."""
AT_ONCE = 40
SYSTEM = (2000, 60_000)
"""Tokens of the system's text and tools, from and to."""
MEAN_TURNS, MEAN_PAUSE_S, AWAY, AWAY_S = 8.0, 30.0, 0.08, 1800.0
CACHED_PRICE, FOUND, KEPT_S = 0.1, 0.9, 300.0
MARGIN = 0.05
"""What the fixed time to live of before took: how much better another arm had to score."""
WAYS = ("per request", "fixed time to live", "one objective")


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn: when, of which conversation, which recorded query, and how long its own text is."""

    ts: float
    talk: int
    row: int
    system: int
    first: bool


@dataclass
class Sums:
    """What one way came to. full: prompt tokens at the full price; switches: of later turns."""

    prompt: int = 0
    full: int = 0
    usd: float = 0.0
    quality: float = 0.0
    reward: float = 0.0
    turns: int = 0
    later: int = 0
    switches: int = 0


def trace(rows: int, turns: int, seed: int) -> Iterator[Asked]:
    """Turns in the order in which they come, each of a query of its own."""
    rng = np.random.default_rng(seed)
    order, begun, waiting = rng.permutation(rows), 0, list[tuple[float, int, int, int, int]]()

    def begin(ts: float) -> None:
        nonlocal begun
        length = int(rng.geometric(1.0 / MEAN_TURNS))
        system = int(np.exp(rng.uniform(*np.log(SYSTEM))))
        heapq.heappush(waiting, (ts + float(rng.exponential(60.0)), begun, 0, length, system))
        begun += 1

    for _ in range(AT_ONCE):
        begin(0.0)
    for row in order[:turns].tolist():
        ts, talk, at, length, system = heapq.heappop(waiting)
        yield Asked(ts, talk, row, system, at == 0)
        if at + 1 < length:
            away = rng.random() < AWAY
            pause = float(rng.exponential(AWAY_S if away else MEAN_PAUSE_S))
            heapq.heappush(waiting, (ts + pause, talk, at + 1, length, system))
        else:
            begin(ts)


@dataclass
class Run:
    """One way over one trace. said: tokens so far, by conversation. caches: by conversation and
    arm, when and how much of it was sent there.
    """

    data: Labelled
    way: str
    seed: int
    policy: str
    worth: float
    sums: Sums = field(default_factory=Sums)
    said: dict[int, int] = field(default_factory=dict)
    caches: dict[tuple[int, str], tuple[float, int]] = field(default_factory=dict)
    last: dict[int, tuple[float, ArmId]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world = new_world({self.policy: policies.load(self.policy)}, self.policy, 20_000)
        for arm in self.data.recorded.arms:
            cached = CACHED_PRICE * arm.usd_per_mtok_in
            spec = ev.ArmSpec(
                id=ArmId(arm.id),
                usd_per_mtok_in=arm.usd_per_mtok_in,
                usd_per_mtok_out=arm.usd_per_mtok_out,
                usd_per_mtok_cached_in=cached,
                context_window=10**7,
            )
            apply(self.world, ev.ArmAdded(ts=0.0, arm=spec, source="config"))

    def turn(self, asked: Asked) -> None:
        """Decide, answer, learn."""
        recorded, explore = self.data.recorded, Exploration(seed=self.seed)
        tokens = int(recorded.tokens[asked.row])
        prompt = asked.system + self.said.get(asked.talk, 0) + tokens
        query = self._query(asked, prompt, tokens, explore)
        id = f"{asked.talk} {asked.ts} {self.seed}"
        decided = decide(self.world, query, Recalled(), id, asked.ts, explore)
        apply(self.world, decided)
        k = [arm.id for arm in recorded.arms].index(decided.arm)
        quality = float(recorded.quality[asked.row, k])
        arm = recorded.arms[k]
        answer = float(recorded.cost[asked.row, k]) * 1e6 - tokens * arm.usd_per_mtok_in
        answered = max(1, int(answer / arm.usd_per_mtok_out))
        cached = self._found(asked, decided.arm, prompt, id)
        usd = (
            (prompt - cached) * arm.usd_per_mtok_in
            + cached * CACHED_PRICE * arm.usd_per_mtok_in
            + answered * arm.usd_per_mtok_out
        ) / 1e6
        reward = RewardRule().scalar(quality, usd, 0.0, self.worth)
        told = ev.Rewarded(
            ts=asked.ts,
            decision_id=id,
            quality=quality,
            cost_usd=usd,
            reward=reward,
            prompt_tokens=prompt,
            cached_tokens=cached,
        )
        apply(self.world, told)
        self._count(asked, decided.arm, prompt, cached, usd, quality, reward)
        self.said[asked.talk] = self.said.get(asked.talk, 0) + tokens + answered
        self.caches[asked.talk, decided.arm] = asked.ts, prompt
        self.last[asked.talk] = asked.ts, decided.arm

    def _query(self, asked: Asked, prompt: int, tokens: int, explore: Exploration) -> Query:
        query = Query(
            embedding=self.data.embeddings[asked.row],
            tokens=tokens,
            willingness_to_pay=self.worth,
            prompt=prompt,
        )
        before = self.last.get(asked.talk)
        if self.way == "one objective":
            query.turn = self.world.conversations.turn(
                str(asked.talk), prompt, self.world.arms, asked.ts, 3600.0
            )
        elif self.way == "fixed time to live" and before and asked.ts - before[0] <= KEPT_S:
            weighed = weigh(self.world, query, Recalled(), explore)
            scores = dict(zip(weighed.arms.ids, weighed.proposal.scores.tolist(), strict=True))
            if scores[before[1]] >= max(scores.values()) - MARGIN:
                query.arms = (before[1],)
        return query

    def _found(self, asked: Asked, arm: ArmId, prompt: int, id: str) -> int:
        sent = self.caches.get((asked.talk, arm))
        if sent is None or asked.ts - sent[0] > KEPT_S:
            return 0
        return min(sent[1], prompt) if chance.uniform(self.seed, f"found {id}") < FOUND else 0

    def _count(
        self,
        asked: Asked,
        arm: ArmId,
        prompt: int,
        cached: int,
        usd: float,
        quality: float,
        reward: float,
    ) -> None:
        sums, before = self.sums, self.last.get(asked.talk)
        sums.turns += 1
        sums.prompt += prompt
        sums.full += prompt - cached
        sums.usd += usd
        sums.quality += quality
        sums.reward += reward
        if before is not None:
            sums.later += 1
            sums.switches += before[1] != arm


def run(data: Labelled, way: str, seed: int, policy: str, worth: float, turns: int) -> Sums:
    """One way over the trace of this seed."""
    made = Run(data, way, seed, policy, worth)
    for asked in trace(len(data.recorded), turns, seed):
        made.turn(asked)
    return made.sums


def table(found: dict[tuple[float, str], list[Sums]], title: str) -> Table:
    """A row for each way, means over the seeds."""
    rows = []
    for (worth, way), sums in found.items():
        n = len(sums)
        turns = sum(one.turns for one in sums)
        rewards = [one.reward / one.turns for one in sums]
        spread = float(np.std(rewards, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        rows.append(
            (
                way,
                f"{worth:g}",
                f"{sum(one.prompt for one in sums) / n / 1e6:.1f}",
                f"{sum(one.full for one in sums) / n / 1e6:.1f}",
                f"{sum(one.usd for one in sums) / n:.2f}",
                f"{sum(one.quality for one in sums) / turns:.4f}",
                f"{float(np.mean(rewards)):.4f} ± {spread:.4f}",
                f"{100 * sum(one.switches for one in sums) / sum(one.later for one in sums):.1f} %",
            )
        )
    heads = (
        "routing",
        "USD of one quality",
        "prompt tokens, millions",
        "at full price, millions",
        "USD",
        "quality",
        "reward",
        "later turns that switch",
    )
    return Table(title, heads, tuple(rows))


def main() -> None:
    """Run it; print the table and, where asked, write it into the document."""
    parser = argparse.ArgumentParser(description="What keeping a conversation's model is worth.")
    parser.add_argument("--data", default=PARETOBANDIT, metavar="FILE")
    parser.add_argument("--seeds", type=bounded(int, 1, 1000), default=3, metavar="N")
    parser.add_argument("--turns", type=bounded(int, 1, 10**6), default=1200, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="its section is rewritten")
    args = parser.parse_args()
    chosen, recorded = Settings(), open_recording(args.data)
    model, directory = chosen.embedding.model, Path(chosen.data_dir)
    backend = open_backend(chosen.embedding.backend, model, directory / "models")
    data = Labelled(recorded, embed_all(recorded.texts, backend, model, directory / "embeddings"))
    policy, turns = chosen.policy.name, min(len(recorded), args.turns)
    found = {
        (worth, way): [run(data, way, seed, policy, worth, turns) for seed in range(args.seeds)]
        for worth in WORTHS
        for way in WAYS
    }
    made = table(found, f"{recorded.name}: {turns} turns, policy {policy}, {args.seeds} seeds")
    print(made.text())
    if args.markdown is not None:
        put_section(args.markdown, "conversations", made.markdown())


if __name__ == "__main__":
    main()
