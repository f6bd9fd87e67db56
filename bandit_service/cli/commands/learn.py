"""Warm start: teach recorded outcomes to the event log, before serving.

Teach every recorded outcome to the event log of a stopped service.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from tqdm import tqdm

import policies
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.cli import options
from bandit_service.cli.options import USAGE_ERROR, Usage
from bandit_service.core.errors import Refused
from bandit_service.core.outcomes import digest
from bandit_service.core.prior import STRENGTH
from bandit_service.data.recordings import (
    BadRecording,
    Recorded,
    open_recording,
)
from bandit_service.runtime.router import Router
from bandit_service.wire import RewardRequest

_CONTEXT_WINDOW = 128_000
_EPILOG = """\
Every recorded answer becomes one self-contained reward in the event log, exactly as if it had been
sent to POST /v1/rewards. Run it while the service is stopped. An answer already taught under the
same query_id is not taught again while the log remembers its key (the last 100,000), so you can
repeat a run that was cut off.

At the end everything this command taught counts as at most STRENGTH outcomes of each arm, so that
the first real outcomes can correct it. Sums do not tell outcomes apart: run it before the service
has learned anything by itself. Neighbours in the history, which knn reads, and costs count in full.

example:
  bandit-service learn --data traffic.jsonl.gz --config config.toml && bandit-service serve ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `learn`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    options.config(parser)
    options.pool(parser)
    options.data(parser, more="RouterBench's .pkl or .csv, ", required=True)
    add(
        "--add-arms",
        action="store_true",
        help="add the recording's models that are not in the catalogue; else they are an error",
    )
    options.limit(parser)
    options.strength(parser, "--strength", STRENGTH, "")


def run(args: argparse.Namespace) -> int:
    """Teach; 0 done, 2 when the arguments or the data cannot be used."""
    try:
        recorded = open_recording(args.data)
    except BadRecording as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    options.tell_skipped(recorded)
    if args.limit is not None:
        recorded = recorded.first(args.limit)
    try:
        taught = asyncio.run(
            _learn(options.settings_of(args), recorded, args.add_arms, args.strength)
        )
    except Usage as error:
        print(f"bandit-service: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(
        f"{taught.accepted} outcomes of {len(recorded)} queries were learned, {taught.before} were "
        "known before"
    )
    for line in taught.weight:
        print(line)
    return 0


@dataclass(frozen=True, slots=True)
class _Taught:
    """The numbers of new and known outcomes, and their weight, in sentences."""

    accepted: int
    before: int
    weight: list[str]


async def _learn(
    chosen: settings.Settings, recorded: Recorded, add_arms: bool, strength: float | None
) -> _Taught:
    async with assembly.running_router(chosen) as (router, _, _, _):
        await _check_arms(router, recorded, add_arms)
        requests = list(_requests(recorded))
        counts = {"accepted": 0, "duplicate": 0}
        refused: list[str] = []
        some = min(chosen.server.max_in_flight, chosen.embedding.batch_size)
        with tqdm(total=len(requests), desc="learning", unit=" outcomes", disable=None) as bar:
            rest = iter(requests)

            async def worker() -> None:
                for request in rest:
                    try:
                        counts[await router.reward(request, prior=True)] += 1
                    except Refused as error:  # a text over the configured length, say
                        refused.append(str(error))
                    bar.update()

            await asyncio.gather(*(worker() for _ in range(some)))
        weight = await _weigh(router, strength)
    for reason in sorted(set(refused)):
        print(f"left out: {reason} ({refused.count(reason)} outcomes)", file=sys.stderr)
    return _Taught(counts["accepted"], counts["duplicate"], weight)


async def _weigh(router: Router, strength: float | None) -> list[str]:
    """Let the taught outcomes count as `strength` outcomes of each arm;

    returns the result in sentences.
    """
    if strength is None:
        return ["each counts in full"]
    weighed = await router.weigh_prior(strength)
    said = [f"of each arm they count as {strength:g} outcomes at most"]
    world = router.world
    mixed = [arm for arm in (weighed.keep if weighed else ()) if world.arms[arm].live]
    if mixed:
        said.append(
            f"learned by itself before: {', '.join(mixed)}; the estimate is the mean of those "
            f"outcomes and the ones taught, and counts as many as the former and {strength:g} more"
        )
    full = [
        learner.name or label
        for label, learner in sorted(world.learners.items())
        if not learner.own and not isinstance(learner.policy, policies.Forgetful)
    ]
    if full:
        said.append(
            f"{', '.join(full)} cannot forget a part: what it learned of them counts in full"
        )
    return said


async def _check_arms(router: Router, recorded: Recorded, add_arms: bool) -> None:
    """Add missing arms, or refuse before anything is learned."""
    missing = [arm for arm in recorded.arms if arm.id not in router.world.arms]
    if missing and not add_arms:
        names = ", ".join(arm.id for arm in missing)
        raise Usage(f"--data: not in the catalogue: {names}; configure them, or pass --add-arms")
    for arm in missing:
        # A recording says nothing of what its models can hold, so they get the default.
        await router.catalogue.put_arm(msgspec.structs.replace(arm, context_window=_CONTEXT_WINDOW))


def _requests(recorded: Recorded) -> Iterator[RewardRequest]:
    """One reward per answer, query by query."""
    for row, (id, text) in enumerate(zip(recorded.ids, recorded.texts, strict=True)):
        for k, arm in enumerate(recorded.arms):
            quality, cost = float(recorded.quality[row, k]), float(recorded.cost[row, k])
            if math.isnan(quality):
                continue
            waited = math.nan if recorded.latency is None else float(recorded.latency[row, k])
            yield RewardRequest(
                query=text,
                arm=arm.id,
                quality=quality,
                cost_usd=cost,
                latency_s=None if math.isnan(waited) else waited,
                idempotency_key=digest("learn", recorded.name, id, arm.id),
            )
