"""Replicas on one log in servers of their own, with traffic on all, while some are killed.

Each decision is made at one replica and rewarded at another. A ledger keeps what was answered; at
the end every reward is sent again, to any replica, and must be a duplicate, and all replicas must
have one state. Beside that a model is called whose answers cost something, until the budget of all
replicas is spent; what is booked may not exceed it. A replica that is killed, by `--kills` or by
you, is started again after a moment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random  # noqa: TID251 - who is asked and what is killed, from a seed
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from loadtest import engines, scale_budget
from loadtest.forks import Forked, fork

DIM = 384
_AWAY_S, _PATIENCE_S = 1.0, 120.0


@dataclass
class Ledger:
    """What clients were told. wrong: what they should not have been."""

    decided: list[str] = field(default_factory=list)
    rewarded: dict[str, float] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Ended(Exception):
    """A replica ended before it was ready."""


class Replica:
    """One service; started again by `keep` whenever it ended."""

    def __init__(
        self,
        directory: Path,
        models: Path,
        environ: dict[str, str],
        *,
        forked: bool = False,
        engine: engines.Engine | None = None,
    ) -> None:
        """forked: by a process that has imported the service, which spares most of a start. engine:
        as this replica reaches it, for `Engine.cut`.
        """
        directory.mkdir()
        (directory / "models").symlink_to(models.resolve(), target_is_directory=True)
        self.directory = directory
        self.url = ""
        self.engine = engine
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self._forked = forked
        self._environ = environ | {"BANDIT_DATA_DIR": str(directory)}
        self._ready = directory / "ready.json"

    async def begin(self) -> None:
        """Start it, and wait until it is ready."""
        self._ready.unlink(missing_ok=True)
        self.process = self._started()
        while not self._ready.exists():
            if (code := self.process.poll()) is not None:
                tail = "" if code < 0 else (self.directory / "log").read_text()[-1000:]
                raise Ended(f"it ended while it started ({code})\n{tail}")
            await asyncio.sleep(0.05)
        self.url = str(json.loads(self._ready.read_text())["url"])

    def _started(self) -> subprocess.Popen[bytes] | Forked:
        arguments = ["serve", "--port", "0", "--ready-file", str(self._ready)]
        log = self.directory / "log"
        if self._forked:
            return fork(arguments, self._environ, log, session=True)
        with log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "bandit_service.cli", *arguments],
                env=self._environ,
                stdout=said,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for this program, which ends them
            )

    @property
    def is_ready(self) -> bool:
        """Whether it says so, since it was last started."""
        return self._ready.exists()

    async def keep(self) -> None:
        """Start it again, until cancelled."""
        while True:
            await asyncio.sleep(0.1)
            if self.process is not None and self.process.poll() is not None:
                print(f"  process {self.process.pid} has ended; it is started again", flush=True)
                await asyncio.sleep(_AWAY_S)
                try:
                    await self.begin()
                except Ended as error:
                    print(f"  {error}", flush=True)
                else:
                    print(f"  as process {self.process.pid}", flush=True)

    def end(self, how: signal.Signals) -> None:
        """Signal it, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)


class Traffic:
    """Clients of all replicas."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        replicas: list[Replica],
        ledger: Ledger,
        provider: scale_budget.Provider,
        seed: int,
    ) -> None:
        self._session, self._replicas, self._ledger = session, replicas, ledger
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._provider = provider
        self._vectors = np.random.default_rng(seed)
        self.stopped = False

    async def run(self, pause_s: float) -> None:
        """Decide anywhere and reward anywhere, some of them twice at once, until stopped."""
        while not self.stopped:
            vector = self._vectors.normal(size=DIM)
            body = {"embedding": [float(x) for x in vector / np.linalg.norm(vector)]}
            status, told = await self.post("/v1/decide", body)
            if status != 200:
                self._ledger.told[f"decide {status}"] += 1
                await asyncio.sleep(0.05)
                continue
            id, quality = str(told["decision_id"]), round(self._chance.random(), 3)
            self._ledger.decided.append(id)
            times = 2 if self._chance.random() < 0.1 else 1
            await asyncio.gather(*(self.reward(id, quality) for _ in range(times)))
            status, _ = await self.post("/v1/chat/completions", scale_budget.BODY)
            self._provider.told[status] += 1
            await asyncio.sleep(pause_s)

    async def reward(self, id: str, quality: float) -> str:
        """Until somebody acknowledges it."""
        begun = last = time.monotonic()
        while last - begun < _PATIENCE_S:
            status, told = await self.post("/v1/rewards", {"decision_id": id, "quality": quality})
            last = time.monotonic()
            if status == 200:
                said = str(told["results"][0]["status"])
                if id not in self._ledger.rewarded:
                    self._ledger.took_s.append(last - begun)
                self._ledger.rewarded[id] = quality
                self._ledger.told[said] += 1
                return said
            self._ledger.told[f"reward {status}"] += 1
            if status not in (0, 429, 503):
                self._ledger.wrong.append(f"{id}: {status} {told}")
                return str(status)
            await asyncio.sleep(0.05)
        self._ledger.wrong.append(f"{id}: nobody took its reward")
        return "gone"

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Ask a random replica; status 0 if it is not there."""
        url = self._chance.choice(self._replicas).url
        try:
            async with self._session.post(url + path, json=body) as answer:
                return answer.status, await answer.json()
        except aiohttp.ClientError:
            return 0, None

    async def get(self, replica: Replica, path: str) -> Any:
        """What one replica says."""
        async with self._session.get(replica.url + path) as answer:
            answer.raise_for_status()
            return await answer.json()


async def _faults(
    replicas: list[Replica],
    engine: engines.Engine,
    kills: int,
    stop: asyncio.Event,
    chance: random.Random,
) -> Counter[str]:
    """Kill, stop and continue until there were enough."""
    done: Counter[str] = Counter()
    while done.total() < kills and not stop.is_set():
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        one = chance.choice(replicas)
        if one.process is None or one.process.poll() is not None:
            continue
        what = chance.choices(("kill -9", "stopped", "cut off", "server killed"), (7, 2, 1, 1))[0]
        done[what] += 1
        print(f"  {what}", flush=True)
        match what:
            case "kill -9":
                one.process.kill()
            case "stopped":
                one.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(chance.uniform(1.0, 7.0))
                one.process.send_signal(signal.SIGCONT)
            case "cut off" if one.engine is not None:
                await one.engine.cut(chance.uniform(1.0, 7.0))
            case _:
                await asyncio.to_thread(engine.kill, chance.randrange(1 << 16))
                await asyncio.sleep(chance.uniform(0.5, 3.0))
                await asyncio.to_thread(engine.start)
    return done


async def agreed(traffic: Traffic, replicas: list[Replica]) -> set[str]:
    """The hashes of the serving policy's state, as JSON, once all have applied all."""
    last = time.monotonic() + _PATIENCE_S
    while time.monotonic() < last:
        with suppress(aiohttp.ClientError):  # one that was killed last is being started
            told = [await traffic.get(each, "/readyz") for each in replicas]
            if len({each.get("last") for each in told}) == 1:
                break
        await asyncio.sleep(0.1)
    serving = (await traffic.get(replicas[0], "/v1/policies"))["serving"]["name"]
    states = [await traffic.get(each, f"/v1/policies/{serving}/state") for each in replicas]
    return {json.dumps(each, sort_keys=True) for each in states}


async def _told(ledger: Ledger, replicas: list[Replica]) -> None:
    """A line every other second."""
    while True:
        before = len(ledger.decided)
        await asyncio.sleep(2.0)
        up = sum(each.process is not None and each.process.poll() is None for each in replicas)
        print(
            f"{up} replicas, {len(ledger.decided)} decisions answered "
            f"({(len(ledger.decided) - before) / 2:.0f}/s), {len(ledger.rewarded)} rewards "
            f"acknowledged, {len(ledger.wrong)} lost",
            flush=True,
        )


async def _run(args: argparse.Namespace, engine: engines.Engine, directory: Path) -> int:
    async with scale_budget.a_provider() as provider:
        return await _served(args, engine, directory, provider)


async def _served(
    args: argparse.Namespace,
    engine: engines.Engine,
    directory: Path,
    provider: scale_budget.Provider,
) -> int:
    settings = {"BANDIT_POLICY_NAME": args.policy} | provider.settings(args.paid)
    async with several(
        args.replicas, directory, args.models, engine, settings, forked=bool(args.kills)
    ) as replicas:
        return await _driven(args, engine, replicas, provider)


@asynccontextmanager
async def several(
    count: int,
    directory: Path,
    models: Path,
    engine: engines.Engine,
    settings: dict[str, str],
    *,
    forked: bool,
) -> AsyncIterator[list[Replica]]:
    """Replicas that do not run yet, each of which can be cut off from its log."""
    async with AsyncExitStack() as open_until_then:
        replicas = []
        for i in range(count):
            own = await open_until_then.enter_async_context(engine.cut_able())
            environ = os.environ | own.environ | settings  # noqa: TID251 - passed on
            at = directory / f"replica-{i + 1}"
            replicas.append(Replica(at, models, environ, forked=forked, engine=own))
        yield replicas


async def _driven(
    args: argparse.Namespace,
    engine: engines.Engine,
    replicas: list[Replica],
    provider: scale_budget.Provider,
) -> int:
    ledger, stop = Ledger(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks: list[asyncio.Task[Any]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        try:
            await asyncio.gather(*(each.begin() for each in replicas))
            for each in replicas:
                assert each.process is not None
                print(f"{each.url}   kill -9 {each.process.pid}   {each.directory}", flush=True)
            print("Ctrl-C ends it, and looks whether anything was lost", flush=True)
            traffic = Traffic(session, replicas, ledger, provider, args.seed)
            workers = [asyncio.create_task(traffic.run(args.pause)) for _ in range(args.clients)]
            tasks = [asyncio.create_task(each.keep()) for each in replicas]
            tasks.append(asyncio.create_task(_told(ledger, replicas)))
            done: Counter[str] = Counter()
            if args.kills:
                chance = random.Random(args.seed)  # noqa: S311 - no secret
                done = await _faults(replicas, engine, args.kills, stop, chance)
            else:
                await stop.wait()
            traffic.stopped = True
            await asyncio.gather(*workers)
            return await _judged(traffic, replicas, ledger, provider, done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in replicas:
                each.end(signal.SIGTERM)


async def _judged(
    traffic: Traffic,
    replicas: list[Replica],
    ledger: Ledger,
    provider: scale_budget.Provider,
    done: Counter[str],
) -> int:
    """Say what is left of what was told; 1 where anything is missing."""
    print("every reward is sent again, to any replica", flush=True)
    said: Counter[str] = Counter()
    for id, quality in list(ledger.rewarded.items()):
        said[await traffic.reward(id, quality)] += 1
    lost = said.total() - said["duplicate"]
    states = await agreed(traffic, replicas)
    took = sorted(ledger.took_s)
    [row] = (await traffic.get(replicas[0], "/v1/budgets"))["budgets"]
    over = row["spent_usd"] > row["usd"] * (1 + 1e-9)
    for name, value in {
        "faults": ", ".join(f"{count} {what}" for what, count in done.items()) or "yours",
        "decisions answered": len(ledger.decided),
        "rewards acknowledged": len(ledger.rewarded),
        "of these lost": lost,
        "refused that should not be": len(ledger.wrong),
        "states of the replicas": len(states),
        "budget, USD": f"{row['usd']:.4f}",
        "booked of it, USD": f"{row['spent_usd']:.4f}{', which is too much' if over else ''}",
        "billed by the provider, USD": f"{provider.calls * scale_budget.COST_USD:.4f}",
        "paid calls answered, refused": f"{provider.told[200]}, {provider.told[429]}",
        "acknowledged after, p50, p99 ms": f"{1000 * took[len(took) // 2]:.1f}, "
        f"{1000 * took[int(len(took) * 0.99)]:.1f}"
        if took
        else "",
    }.items():
        print(f"{name:34} {value}")
    for each in ledger.wrong[:5]:
        print(f"  {each}")
    return int(bool(lost or ledger.wrong or len(states) != 1 or over))


def main() -> int:
    """Run it; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument(
        "--pause", type=float, default=0.05, help="seconds between a client's turns"
    )
    parser.add_argument("--kills", type=int, default=0, help="faults to make; 0: make your own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--paid", type=int, default=1000, help="calls of a model that the budget of all is for"
    )
    parser.add_argument("--policy", default="nested")
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--engine", choices=engines.NAMES, default="postgres")
    args = parser.parse_args()
    if install := engines.missing(args.engine):
        print(install, file=sys.stderr)
        return 2
    with (
        engines.running(args.engine) as engine,
        tempfile.TemporaryDirectory(prefix="bandit-scale-") as directory,
    ):
        return asyncio.run(_run(args, engine, Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
