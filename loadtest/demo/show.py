"""After the served run: other orders by the fold alone, the table, the sentences, the picture."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from bandit_service.offline import report
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from loadtest.demo import offline, tell
from loadtest.demo.acts import Stage
from loadtest.demo.live import Live
from loadtest.demo.plot import draw
from loadtest.sections import put_section
from policies import Vector

SECTION = "demo"


def the_rest(
    stage: Stage, live: Live, embeddings: Vector, settings: Settings, args: argparse.Namespace
) -> offline.Results:
    """The same world in `args.seeds` other orders, with a bar; no query is embedded again."""
    entrants = offline.entrants(args.policy, settings, args.full)
    seeds = range(1, args.seeds + 1)  # 0 is the order of the run that was served
    print(f"\nthe same three acts in {args.seeds} other orders of the queries, without the service")
    with tqdm(total=len(entrants) * args.seeds, unit=" runs", disable=None) as bar:

        def watch(name: str, seed: int) -> None:
            bar.set_description(f"{name}, seed {seed}", refresh=False)
            bar.update()

        played = offline.play(stage, live.phases, embeddings, entrants, seeds, settings, watch)
    return offline.results_of(
        stage, live.phases, played, args.policy, settings, (live.dear, live.worse)
    )


def agreement(stage: Stage, live: Live, embeddings: Vector, settings: Settings, policy: str) -> str:
    """Whether the fold draws what the service drew, given the ids by which it drew."""
    seed = RouterRules.of(settings).explore.seed
    if seed != 0:
        return f"not compared with the fold: the service draws by seed {seed}"
    run = offline.fold(
        stage,
        live.phases,
        embeddings,
        offline.entrants(policy, settings, every=False)[policy],
        0,
        settings,
        ids=live.ids,
    )
    same, n = int((run.arm == live.drawn).sum()), len(live.drawn)
    told = "all" if same == n else f"{same:,} of"
    return f"the fold alone, from the same ids of decisions, draws as the service: {told} {n:,}"


def conclude(
    results: offline.Results, live: Live, settings: Settings, args: argparse.Namespace
) -> None:
    """Print everything, draw the picture, write the document's section where one is named."""
    rule = RouterRules.of(settings).reward
    print(f"\n{tell.plain(tell.table(results, live))}\n")
    print("\n".join(tell.sentences(results, rule)))
    picture: Path = args.plot
    try:
        draw(results, picture)
    except report.PlotUnavailable as error:
        print(error)
    else:
        print(f"\nplot in {picture}")
    if args.markdown is not None:
        put_section(args.markdown, args.section, tell.markdown(results, live, rule))
        print(f"table in {args.markdown}")


def stay(url: str) -> None:
    """Keep the page until Ctrl-C."""
    print(f"{url}/ stays until Ctrl-C", flush=True)
    while True:
        time.sleep(3600.0)


def lasting(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
