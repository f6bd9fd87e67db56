"""The table of faults: what is left of what clients were told, after each of some named faults.

    python -m loadtest.scale_faults [--only WORD] [--markdown docs/scale.md]

For each row three replicas on a log of their own get the traffic of `loadtest.scale`, and the
faults of the row happen. Then every acknowledged reward is sent again, and must be a duplicate. The
replicas end, and their copies of the log are read: each answered decision and each acknowledged
reward must be there once, the reward with its value, and no offset may be missing. The states that
the replicas served, and what their copies fold to in another process, must be one.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bandit_service import clock
from bandit_service.core import codec
from bandit_service.core import events as ev
from bandit_service.core.apply import uncollected
from loadtest import engines, scale_budget
from loadtest.bench.fold import fold
from loadtest.bench.tables import show
from loadtest.scale import Ledger, Replica, Traffic, agreed, several
from loadtest.sections import put_section
from store import open_log

POLICY, REPLICAS, CLIENTS, PAUSE_S = "nested", 3, 6, 0.05
_CALM_S, _PAID, _BACK_S = 4.0, 500, 60.0


@dataclass
class Run:
    """Replicas under traffic. unknown: what was said of ids that nobody gave."""

    replicas: list[Replica]
    engine: engines.Engine
    traffic: Traffic
    unknown: Counter[int] = field(default_factory=Counter)

    async def kill(self, i: int) -> None:
        """kill -9 of a replica, until it is ready again."""
        one = self.replicas[i]
        assert one.process is not None
        before = one.process.pid
        one.process.kill()
        last = time.monotonic() + _BACK_S
        while one.process.pid == before or not one.is_ready:
            if time.monotonic() > last:
                raise TimeoutError("a killed replica did not come back")
            await asyncio.sleep(0.1)

    async def stop(self, i: int, seconds: float) -> None:
        """A replica stands still, as in a pause of its machine."""
        one = self.replicas[i]
        assert one.process is not None
        one.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        one.process.send_signal(signal.SIGCONT)

    async def cut(self, i: int, seconds: float) -> None:
        """A replica's connections to its servers carry nothing."""
        engine = self.replicas[i].engine
        assert engine is not None
        await engine.cut(seconds)

    async def kill_server(self, number: int, away_s: float) -> None:
        """kill -9 of one server, and its start."""
        await asyncio.to_thread(self.engine.kill, number)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self.engine.start)

    async def keeper(self) -> int:
        """Which replica is the keeper."""
        last = time.monotonic() + _BACK_S
        while time.monotonic() < last:
            for i, each in enumerate(self.replicas):
                with suppress(aiohttp.ClientError):
                    told = await self.traffic.get(each, "/v1/replicas")
                    mine = (row for row in told["replicas"] if row["slot"] == told["this"])
                    if "keeper" in next(mine)["roles"]:
                        return i
            await asyncio.sleep(0.2)
        raise TimeoutError("nobody is the keeper")

    async def ask_for_unknown(self) -> None:
        """Reward ids that nobody gave, until cancelled."""
        ids = clock.Ids()
        while True:
            id = ids.new(clock.now())
            status, _ = await self.traffic.post("/v1/rewards", {"decision_id": id, "quality": 1.0})
            self.unknown[status] += 1
            await asyncio.sleep(0.2)


async def _killed(run: Run) -> None:
    await run.kill(0)
    await run.stop(1, 7.0)  # longer than log.replica_ttl_s: it is closed, and joins again
    await run.kill(2)
    await run.kill_server(0, 1.0)


async def _cut_off(run: Run) -> None:
    asking = asyncio.create_task(run.ask_for_unknown())
    await run.cut(0, 7.0)
    await run.stop(1, 7.0)
    await run.kill(2)
    await run.kill_server(0, 1.0)
    asking.cancel()


async def _all_cut(run: Run) -> None:
    await asyncio.gather(*(run.cut(i, 8.0) for i in range(REPLICAS)))


async def _stands_still(run: Run) -> None:
    await run.engine.stand_still(0, 7.0)


async def _lease(run: Run) -> None:
    for _ in range(5):
        await run.stop(await run.keeper(), 6.0)  # twice log.lease_ttl_s
        await asyncio.sleep(1.0)


async def _servers(run: Run) -> None:
    await run.kill(0)
    for number in range(3):  # the leader is one of them
        await run.engine.stand_still(number, 6.0)
    await run.kill(1)
    await run.kill_server(1, 5.0)


async def _failover(run: Run) -> None:
    await run.kill(0)
    await run.kill_server(0, 2.0)


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens on which engine."""

    engine: str
    what: str
    happen: Callable[[Run], Awaitable[None]]


ROWS = (
    Faults(
        "postgres",
        "two replicas killed, one stopped for 7 s (closed, joined again), the server killed",
        _killed,
    ),
    Faults(
        "postgres",
        "one replica cut off for 7 s, one stopped for 7 s, one killed, the server killed; "
        "rewards of made-up ids meanwhile",
        _cut_off,
    ),
    Faults("postgres", "no replica reaches the server for 8 s", _all_cut),
    Faults("postgres", "every process of the server stopped for 7 s", _stands_still),
    Faults("postgres", "the keeper stopped five times for 6 s, twice its lease", _lease),
    Faults(
        engines.FAILOVER,
        "synchronous standby: one replica killed, the server lost, the standby promoted",
        _failover,
    ),
    Faults(
        "jetstream",
        "two replicas killed, each of three servers stopped for 6 s, one killed and back",
        _servers,
    ),
    Faults(
        "jetstream",
        "one replica cut off for 7 s, one stopped for 7 s, one killed, a server killed; "
        "rewards of made-up ids meanwhile",
        _cut_off,
    ),
)


async def _row(row: Faults, models: Path, seed: int) -> tuple[dict[str, Any], list[str]]:
    """The table's row, and what is wrong in it."""
    with (
        engines.running(row.engine) as engine,
        tempfile.TemporaryDirectory(prefix="bandit-faults-") as directory,
    ):
        settings = {"BANDIT_POLICY_NAME": POLICY}
        async with (
            scale_budget.a_provider() as provider,
            several(
                REPLICAS,
                Path(directory),
                models,
                engine,
                settings | provider.settings(_PAID),
                forked=True,
            ) as replicas,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        ):
            ledger = Ledger()
            run = Run(replicas, engine, Traffic(session, replicas, ledger, provider, seed))
            try:
                lost, states = await _lived(run, row, ledger)
            finally:
                for each in replicas:
                    each.end(signal.SIGTERM)
            found = await asyncio.to_thread(read, [each.directory for each in replicas], ledger)
    return _told(row, run, ledger, lost, states, found)


async def _lived(run: Run, row: Faults, ledger: Ledger) -> tuple[int, set[str]]:
    """How many acknowledged rewards were no duplicates afterwards, and the states served."""
    await asyncio.gather(*(each.begin() for each in run.replicas))
    keeping = [asyncio.create_task(each.keep()) for each in run.replicas]
    workers = [asyncio.create_task(run.traffic.run(PAUSE_S)) for _ in range(CLIENTS)]
    try:
        await asyncio.sleep(_CALM_S)
        await row.happen(run)
        await asyncio.sleep(_CALM_S)
        run.traffic.stopped = True
        await asyncio.gather(*workers)
        said: Counter[str] = Counter()
        for id, quality in list(ledger.rewarded.items()):
            said[await run.traffic.reward(id, quality)] += 1
        return said.total() - said["duplicate"], await agreed(run.traffic, run.replicas)
    finally:
        for task in (*workers, *keeping):
            task.cancel()
        await asyncio.gather(*workers, *keeping, return_exceptions=True)


@dataclass
class Read:
    """What is wrong in the copies of the log, over all of them, and the states that they fold to.

    missing: answered decisions. lost: acknowledged rewards that are not there, or with another
    value. twice: decisions and rewards that are there more than once. gaps: missing offsets.
    """

    missing: int = 0
    lost: int = 0
    twice: int = 0
    gaps: int = 0
    states: set[str] = field(default_factory=set)


@uncollected()
def read(directories: Sequence[Path], ledger: Ledger) -> Read:
    """Compare what clients were told with the copies of the log in these directories."""
    found = Read()
    for directory in directories:
        path = directory / "events.sqlite3"
        decided, rewarded = Counter[str](), dict[str, list[float]]()
        log, last = open_log(path), 0
        for offset, body in log.replay():
            found.gaps += int(offset) != last + 1
            last = int(offset)
            event = ev.decode(body)
            if isinstance(event, ev.Decided):
                decided[event.id] += 1
            elif isinstance(event, ev.Rewarded) and event.quality is not None:
                rewarded.setdefault(event.decision_id, []).append(event.quality)
        log.close()
        found.missing += sum(decided[id] == 0 for id in ledger.decided)
        found.twice += sum(count > 1 for count in decided.values())
        found.twice += sum(len(rewarded.get(id, ())) > 1 for id in ledger.rewarded)
        found.lost += sum(rewarded.get(id, [None])[0] != q for id, q in ledger.rewarded.items())
        world = fold(path, POLICY)
        assert world is not None
        found.states.add(codec.sha256(codec.dump(world.learners[POLICY].state)))
    return found


def _told(
    row: Faults, run: Run, ledger: Ledger, lost: int, states: set[str], found: Read
) -> tuple[dict[str, Any], list[str]]:
    served = {_sha256(each) for each in states}
    everything = len(served | found.states)
    wrong = list(ledger.wrong)
    wrong += [f"{found.gaps} offsets are missing"] if found.gaps else []
    said = {
        "faults": f"{'JetStream' if row.engine == 'jetstream' else 'PostgreSQL'}: {row.what}",
        "decisions answered, missing": f"{len(ledger.decided):,}, {found.missing}",
        "rewards acknowledged, lost, doubled": f"{len(ledger.rewarded):,}, "
        f"{found.lost + lost}, {found.twice}",
        "refused that should not be": len(ledger.wrong),
        "404, 503 for a made-up one": f"{run.unknown[404]}, {run.unknown[503]}"
        if run.unknown
        else "",
        "states": "one" if everything == 1 else str(everything),
    }
    if found.missing or found.lost or lost or found.twice or everything != 1:
        wrong.append("the row itself")
    return said, wrong


def _sha256(state: str) -> str:
    return state.partition('"sha256": "')[2].partition('"')[0]


def main() -> int:
    """Make the rows; 0 if nothing was lost in any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD", help="rows that have this in them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--markdown", type=Path, help="the document to write the table into")
    args = parser.parse_args()
    chosen = [row for row in ROWS if args.only in f"{row.engine} {row.what}"]
    if not chosen:
        parser.error(f"--only: no row has {args.only!r} in it")
    for name in sorted({row.engine for row in chosen}):
        if why := engines.missing(name):
            print(why, file=sys.stderr)
            return 2
    rows, failed = [], 0
    for row in chosen:
        print(f"{row.engine}: {row.what}", flush=True)
        said, wrong = asyncio.run(_row(row, args.models, args.seed))
        rows.append(said)
        failed += bool(wrong)
        for each in wrong[:5]:
            print(f"  {each}", flush=True)
    print(f"\n{show(rows)}")
    if args.markdown is not None:
        put_section(args.markdown, "scale-faults", show(rows))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
