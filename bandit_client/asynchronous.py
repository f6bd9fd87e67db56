"""The client for code on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from bandit_client import _calls
from bandit_client._address import Address, address
from bandit_client._calls import Call
from bandit_client._embedded import Embedded, Wanted
from bandit_client._http import Transport, check_timeout
from bandit_client._live import Live, Options
from bandit_client._outbox import BATCHING, Batching, Delivery
from bandit_client._retry import RETRIES, Retries
from bandit_client._stream import AsyncStream
from bandit_client.answers import (
    Arm,
    Configuration,
    Decision,
    DecisionList,
    DecisionText,
    Erased,
    Experiment,
    ExperimentResults,
    Experiments,
    ExperimentSpec,
    Explanation,
    History,
    JudgeRow,
    Keys,
    NewKey,
    Policies,
    PolicyState,
    Result,
    Rules,
    Snapshot,
    Status,
    Topics,
    Vote,
)
from bandit_client.errors import Lost, QueueFull
from bandit_client.fields import (
    ArmFields,
    CompareFields,
    CompareItem,
    ConfigurationFields,
    DecideFields,
    KeyFields,
    RewardFields,
    RewardItem,
    RulesFields,
)

T = TypeVar("T")


class AsyncClient:
    """A bandit-service, asked from one event loop; `Client` explains the arguments.

    It opens its connections at its first call and belongs to the loop of that call.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: Retries = RETRIES,
        batching: Batching = BATCHING,
        on_undelivered: Callable[[Sequence[Lost]], None] | None = None,
        tls: ssl.SSLContext | None = None,
        read_your_writes: bool = False,
    ) -> None:
        check_timeout(timeout_s)
        self._address: Address | None = address(url, key)
        self._options = Options(timeout_s, retries, batching, on_undelivered, tls, read_your_writes)
        self._wanted: Wanted | None = None
        self._service: Embedded | None = None
        self._starting: asyncio.Lock = asyncio.Lock()
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: Live | None = None
        self._closed = False

    @classmethod
    def embedded(
        cls,
        data_dir: str | Path | None = None,
        *,
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        arms: Sequence[Mapping[str, Any]] | None = None,
        models: str | Path | None = None,
        timeout_s: float = 30.0,
        retries: Retries = RETRIES,
        batching: Batching = BATCHING,
        on_undelivered: Callable[[Sequence[Lost]], None] | None = None,
    ) -> Self:
        """A client of a service that runs in this process; `Client.embedded` explains it.

        The service starts at the first call, or with `async with`.
        """
        made = cls(
            "http://127.0.0.1",
            "",
            timeout_s=timeout_s,
            retries=retries,
            batching=batching,
            on_undelivered=on_undelivered,
        )
        made._address = None
        made._wanted = Wanted(data_dir, config, settings or {}, arms, models)
        return made

    @property
    def url(self) -> str:
        """Where the service is; of an embedded one only once it runs."""
        if self._address is None:
            raise RuntimeError("the embedded service does not run yet: use `async with`")
        return self._address.url

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, timeout_s: float | None = None) -> None:
        """Send what is queued, and close. Undelivered has the rewards that were not delivered.

        timeout_s: how long to wait for the queue to empty; the client's timeout if left out.
        """
        self._closed = True
        live, self._opened = self._opened, None
        transport, self._transport = self._transport, None
        service, self._service = self._service, None
        seconds = self._options.timeout_s if timeout_s is None else timeout_s
        try:
            if live is not None and live.pid == os.getpid():
                await asyncio.to_thread(live.close, seconds)
        finally:
            if transport is not None:
                await transport.close()
            if service is not None:
                await asyncio.to_thread(service.close)

    # --- deciding and learning -----------------------------------------------------------------
    async def decide(
        self,
        query: str | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[DecideFields],
    ) -> Decision:
        """Which arm should answer this query: send the text, `messages` or an `embedding`.

        NoAnswer where the connection broke after the query was sent: the decision may have been
        made, and is not made twice.
        """
        return await self._run(_calls.decide(query, fields), timeout_s)

    async def explain(
        self,
        query: str | None = None,
        *,
        decision: str | Decision | None = None,
        **fields: Unpack[DecideFields],
    ) -> Explanation:
        """What would be decided and why, of a query or of a decision's again; nothing is drawn."""
        return await self._run(_calls.explain(query, decision, fields))

    async def decision(self, id: str) -> Decision:
        """The record of a decision: why this arm, and what came back."""
        return await self._run(_calls.decision(id))

    async def text(self, id: str) -> DecisionText:
        """What was asked and answered, where the service keeps it. Needs the scope `texts`."""
        return await self._run(_calls.text(id))

    async def topics(self) -> Topics:
        """Topics of the questions that are kept, and what each arm earns in them.

        Needs the scope `texts`, and a key that is of no tenant.
        """
        return await self._run(_calls.topics())

    async def decisions(
        self,
        *,
        tags: Sequence[str] = (),
        arm: str | None = None,
        route: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> DecisionList:
        """The newest decisions that may still be rewarded, of these tags, arm and route.

        route: `auto` is the default one. before: only older ones; `next` of the answer before.
        """
        return await self._run(_calls.decisions(tags, arm, route, before, limit))

    async def reward(
        self,
        decision: str | Decision | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RewardFields],
    ) -> Result:
        """What an answer was worth. When this returns, it is in the service's log.

        Sent again it counts once, so that it is sent again where the answer did not come.
        """
        return await self._run(_calls.reward(decision, fields), timeout_s)

    async def rewards(self, items: Iterable[RewardItem]) -> list[Result]:
        """Many at once, each with a result of its own: one that failed has the status "error"."""
        call = _calls.rewards(items)
        return await self._run(call) if call.body else []

    async def reward_later(
        self, decision: str | Decision | None = None, **fields: Unpack[RewardFields]
    ) -> None:
        """Queue a reward, which is sent in the background together with others.

        QueueFull where the queue has no room for as long as `batching.wait_s`. `flush` and `close`
        wait until all are delivered and tell what could not be; so does the end of the process, as
        an error in the log, but not its death by a signal. The queue is sent by a thread, so that
        the end of the event loop does not end it.
        """
        body, outbox = _calls.rewarded(decision, fields), self._live().outbox
        try:
            outbox.add(body, 0.0)
        except QueueFull:
            await asyncio.to_thread(outbox.add, body)

    async def flush(self, timeout_s: float | None = None) -> Delivery:
        """Wait until all queued rewards are delivered; Undelivered has those that were not."""
        outbox = self._live().outbox
        seconds = self._options.timeout_s if timeout_s is None else timeout_s
        await asyncio.to_thread(outbox.flush, seconds)
        return outbox.delivery

    @property
    def delivery(self) -> Delivery:
        """How many queued rewards wait, were delivered, and were lost so far."""
        return self._live().outbox.delivery

    async def vote(self, token: str | Decision, vote: str | None = None) -> Vote:
        """A user's vote by the token of an answer: "up", "down", or "neutral", which takes it back.

        Without a vote: the one that stands. No key is needed.
        """
        return await self._run(_calls.vote(token, vote))

    async def compare(
        self,
        winner: str,
        loser: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[CompareFields],
    ) -> Result:
        """Which of two arms did better, for a decision or for a query."""
        return await self._run(_calls.compare(winner, loser, fields), timeout_s)

    async def comparisons(self, items: Iterable[CompareItem]) -> list[Result]:
        """Many at once, each with a result of its own."""
        call = _calls.comparisons(items)
        return await self._run(call) if call.body else []

    @contextlib.asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncStream]:
        """One connection on which many requests are in flight: gather its decides and rewards."""
        async with AsyncStream(await self._connected()) as stream:
            yield stream

    # --- arms and policies ---------------------------------------------------------------------
    async def arms(self) -> list[Arm]:
        """Every arm, with what was measured of it; retired ones too."""
        return await self._run(_calls.arms())

    async def put_arm(self, id: str, **fields: Unpack[ArmFields]) -> Arm:
        """Add or replace an arm. What was learned of it stays."""
        return await self._run(_calls.put_arm(id, fields))

    async def retire_arm(self, id: str) -> Arm:
        """Retire an arm. What was learned of it stays."""
        return await self._run(_calls.retire_arm(id))

    async def policies(self) -> Policies:
        """All policies, the one that serves, and those that learn beside it."""
        return await self._run(_calls.policies())

    async def put_policy(self, name: str, parameters: Mapping[str, Any] | None = None) -> Policies:
        """Train another policy on the log; it serves once that is done, see `policies`."""
        return await self._run(_calls.put_policy(name, parameters or {}))

    async def policy_state(self, name: str) -> PolicyState:
        """Size and hash of a policy's state."""
        return await self._run(_calls.policy_state(name))

    # --- experiments ---------------------------------------------------------------------------
    async def experiments(self) -> Experiments:
        """Every experiment, and the rules over all."""
        return await self._run(_calls.experiments())

    async def experiment(self, id: str) -> Experiment:
        """One experiment, and how it stands."""
        return await self._run(_calls.experiment(id))

    async def put_experiment(
        self, id: str, spec: Mapping[str, Any] | ExperimentSpec, why: str = ""
    ) -> Experiment:
        """Make a draft, or change an experiment."""
        return await self._run(_calls.put_experiment(id, spec, why))

    async def change_experiment(
        self,
        id: str,
        *,
        share: float | None = None,
        weights: Mapping[str, float] | None = None,
        release: str | None = None,
        why: str = "",
    ) -> Experiment:
        """Change the share or the weights, or release a variant that a guardrail holds."""
        return await self._run(_calls.change_experiment(id, share, weights, release, why))

    async def start_experiment(self, id: str, why: str = "") -> Experiment:
        """Start it, or go on; its status is "starting" while policies are folded."""
        return await self._run(_calls.move_experiment(id, "start", why))

    async def pause_experiment(self, id: str, why: str = "") -> Experiment:
        """Assign no unit for now."""
        return await self._run(_calls.move_experiment(id, "pause", why))

    async def stop_experiment(
        self, id: str, winner: str = "", *, ship: bool = False, why: str = ""
    ) -> Experiment:
        """End it; winner: the variant to keep, what the results say if empty."""
        return await self._run(_calls.stop_experiment(id, winner, ship, why))

    async def delete_experiment(self, id: str, why: str = "") -> Experiment:
        """Delete a draft or a finished experiment."""
        return await self._run(_calls.delete_experiment(id, why))

    async def experiment_results(self, id: str) -> ExperimentResults:
        """The conclusions so far; every interval is valid at every look."""
        return await self._run(_calls.experiment_results(id))

    async def rules(self) -> Rules:
        """The kill switch and the hold-out."""
        return await self._run(_calls.rules())

    async def put_rules(self, why: str = "", **fields: Unpack[RulesFields]) -> Rules:
        """Set them; what is left out stays."""
        return await self._run(_calls.put_rules(fields, why))

    # --- configuration and keys ----------------------------------------------------------------
    async def configuration(self) -> Configuration:
        """What is in force, and the newest changes; a key needs the scope admin."""
        return await self._run(_calls.configuration())

    async def put_configuration(
        self, revision: int | None, why: str = "", **fields: Unpack[ConfigurationFields]
    ) -> Configuration:
        """Other sections in the place of those in force, all or none; each is the whole list.

        revision: the one that was read, by which a change that somebody made meanwhile is a
        Conflict; None for whatever is in force.
        """
        return await self._run(_calls.put_configuration(revision, fields, why))

    async def rollback_configuration(
        self, to: int, revision: int | None, *, forget: Sequence[str] = (), why: str = ""
    ) -> Configuration:
        """The sections as they were after revision `to`; keys stay as they are.

        revision: as of `put_configuration`. forget: routes that may lose what they have learned.
        """
        return await self._run(_calls.rollback_configuration(to, revision, forget, why))

    async def keys(self) -> Keys:
        """Every API key, without its hash."""
        return await self._run(_calls.keys())

    async def make_key(self, id: str, why: str = "", **fields: Unpack[KeyFields]) -> NewKey:
        """Make a key; it is told in this answer alone, and nothing can tell it again.

        It is not sent again where no answer came: revoke the key then, and make another one.
        """
        return await self._run(_calls.make_key(id, fields, why))

    async def rotate_key(self, id: str, *, grace_s: float = 0.0, why: str = "") -> NewKey:
        """A new key under the same id; the one before stays good for `grace_s` seconds."""
        return await self._run(_calls.rotate_key(id, grace_s, why))

    async def revoke_key(self, id: str, why: str = "") -> Keys:
        """Good no more from here on, on open streams too; the keys that are left."""
        return await self._run(_calls.revoke_key(id, why))

    # --- the service ---------------------------------------------------------------------------
    async def health(self) -> Status:
        """Whether the process is alive."""
        return await self._run(_calls.health())

    async def ready(self) -> Status:
        """Whether it has recovered and takes traffic; Unavailable while it starts or stops."""
        return await self._run(_calls.ready())

    async def snapshot(self) -> Snapshot:
        """Make a snapshot now."""
        return await self._run(_calls.snapshot())

    async def history(
        self,
        *,
        per: str = "day",
        by: str = "arm",
        since: float | None = None,
        until: float | None = None,
        groups: int | None = None,
    ) -> History:
        """Decisions, rewards and spend by period and group, read from the log.

        per: hour, day, week or month. by: arm, route, tenant, key, tag or policy. since, until: UTC
        seconds. groups: how many are told apart. Busy while another one is computed.
        """
        return await self._run(_calls.history(per, by, since, until, groups))

    async def judges(self) -> list[JudgeRow]:
        """How far each judge agrees with the people who graded the same answers."""
        return await self._run(_calls.judges())

    async def forget_unit(self, unit: str, tenant: str = "") -> Erased:
        """Erase all that the service keeps of a unit."""
        return await self._run(_calls.forget_unit(unit, tenant))

    # -------------------------------------------------------------------------------------------
    async def _run(self, call: Call[T], timeout_s: float | None = None) -> T:
        transport = await self._connected()
        return await transport.send(call, timeout_s)

    async def _connected(self) -> Transport:
        """The connections of this loop, and before them an embedded service."""
        if self._closed:
            raise RuntimeError("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError(
                "this client belongs to another event loop: make one within each asyncio.run"
            )
        self._loop = loop
        if self._address is None:
            await self._start()
        assert self._address is not None
        if self._transport is None:
            self._transport = self._options.transport(self._address)
        return self._transport

    async def _start(self) -> None:
        async with self._starting:
            if self._address is None:
                assert self._wanted is not None
                self._service = await asyncio.to_thread(Embedded, self._wanted)
                self._address = self._service.address

    def _live(self) -> Live:
        """The queue of rewards, in a thread."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._address is None:
            raise RuntimeError("the embedded service does not run yet: use `async with`")
        if self._opened is None or self._opened.pid != os.getpid():
            self._opened = Live(self._address, self._options)
        return self._opened
