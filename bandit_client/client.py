"""The client for code without an event loop: scripts, notebooks, web frameworks with threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from bandit_client import _calls
from bandit_client._address import Address, address
from bandit_client._calls import Call
from bandit_client._embedded import Embedded, Wanted
from bandit_client._http import check_timeout
from bandit_client._live import Live, Options
from bandit_client._outbox import BATCHING, Batching, Delivery
from bandit_client._retry import RETRIES, Retries
from bandit_client._stream import AsyncStream
from bandit_client._thread import LoopThread
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
from bandit_client.errors import Lost
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


class Client:
    """A bandit-service, asked from any thread.

    url, key: BANDIT_URL and BANDIT_KEY of the environment where they are None. timeout_s: what a
    call may take, with all of its attempts. retries: how often and when it is sent again. batching:
    how rewards are sent in the background; on_undelivered is told of those that could not be. tls:
    what is trusted, for https. read_your_writes: of several replicas each answers by no less than
    this client was told before.

    It may be made before a process forks; each process has its own connections and queue.
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
        self._address: Address = address(url, key)
        self._options = Options(timeout_s, retries, batching, on_undelivered, tls, read_your_writes)
        self._service: Embedded | None = None
        self._opened: Live | None = None
        self._lock = threading.Lock()
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
        """A client of a service that runs in this process; the package bandit-service is needed.

        data_dir: where its log is, which a `bandit-service` may use afterwards; None for one that
        is removed at the end. config: its TOML file. settings: single settings, such as
        {"policy.name": "eagle"}. arms: the catalogue. models: a directory with exported embedding
        models. BANDIT_* of the environment are not read.
        """
        service = Embedded(Wanted(data_dir, config, settings or {}, arms, models))
        made = cls(
            service.address.url,
            service.address.key,
            timeout_s=timeout_s,
            retries=retries,
            batching=batching,
            on_undelivered=on_undelivered,
        )
        made._service = service
        return made

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._address.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, timeout_s: float | None = None) -> None:
        """Send what is queued, and close. Undelivered has the rewards that were not delivered.

        timeout_s: how long to wait for the queue to empty; the client's timeout if left out.
        """
        with self._lock:
            self._closed = True
            live, self._opened = self._opened, None
            service, self._service = self._service, None
        try:
            if live is not None and live.pid == os.getpid():
                live.close(self._options.timeout_s if timeout_s is None else timeout_s)
        finally:
            if service is not None:
                service.close()

    # --- deciding and learning -----------------------------------------------------------------
    def decide(
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
        return self._run(_calls.decide(query, fields), timeout_s)

    def explain(
        self,
        query: str | None = None,
        *,
        decision: str | Decision | None = None,
        **fields: Unpack[DecideFields],
    ) -> Explanation:
        """What would be decided and why, of a query or of a decision's again; nothing is drawn."""
        return self._run(_calls.explain(query, decision, fields))

    def decision(self, id: str) -> Decision:
        """The record of a decision: why this arm, and what came back."""
        return self._run(_calls.decision(id))

    def text(self, id: str) -> DecisionText:
        """What was asked and answered, where the service keeps it. Needs the scope `texts`."""
        return self._run(_calls.text(id))

    def topics(self) -> Topics:
        """Topics of the questions that are kept, and what each arm earns in them.

        Needs the scope `texts`, and a key that is of no tenant.
        """
        return self._run(_calls.topics())

    def decisions(
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
        return self._run(_calls.decisions(tags, arm, route, before, limit))

    def reward(
        self,
        decision: str | Decision | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RewardFields],
    ) -> Result:
        """What an answer was worth. When this returns, it is in the service's log.

        Sent again it counts once, so that it is sent again where the answer did not come.
        """
        return self._run(_calls.reward(decision, fields), timeout_s)

    def rewards(self, items: Iterable[RewardItem]) -> list[Result]:
        """Many at once, each with a result of its own: one that failed has the status "error"."""
        call = _calls.rewards(items)
        return self._run(call) if call.body else []

    def reward_later(
        self, decision: str | Decision | None = None, **fields: Unpack[RewardFields]
    ) -> None:
        """Queue a reward, which is sent in the background together with others.

        QueueFull where the queue has no room for as long as `batching.wait_s`. `flush` and `close`
        wait until all are delivered and tell what could not be; so does the end of the process, as
        an error in the log, but not its death by a signal.
        """
        self._live().outbox.add(_calls.rewarded(decision, fields))

    def flush(self, timeout_s: float | None = None) -> Delivery:
        """Wait until all queued rewards are delivered; Undelivered has those that were not."""
        live = self._live()
        live.outbox.flush(self._options.timeout_s if timeout_s is None else timeout_s)
        return live.outbox.delivery

    @property
    def delivery(self) -> Delivery:
        """How many queued rewards wait, were delivered, and were lost so far."""
        return self._live().outbox.delivery

    def vote(self, token: str | Decision, vote: str | None = None) -> Vote:
        """A user's vote by the token of an answer: "up", "down", or "neutral", which takes it back.

        Without a vote: the one that stands. No key is needed.
        """
        return self._run(_calls.vote(token, vote))

    def compare(
        self,
        winner: str,
        loser: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[CompareFields],
    ) -> Result:
        """Which of two arms did better, for a decision or for a query."""
        return self._run(_calls.compare(winner, loser, fields), timeout_s)

    def comparisons(self, items: Iterable[CompareItem]) -> list[Result]:
        """Many at once, each with a result of its own."""
        call = _calls.comparisons(items)
        return self._run(call) if call.body else []

    @contextlib.contextmanager
    def stream(self) -> Iterator[Stream]:
        """One connection on which many requests are in flight."""
        live = self._live()
        stream = AsyncStream(live.transport)
        live.thread.run(stream.__aenter__())
        try:
            yield Stream(stream, live.thread)
        finally:
            live.thread.run(stream.close())

    # --- arms and policies ---------------------------------------------------------------------
    def arms(self) -> list[Arm]:
        """Every arm, with what was measured of it; retired ones too."""
        return self._run(_calls.arms())

    def put_arm(self, id: str, **fields: Unpack[ArmFields]) -> Arm:
        """Add or replace an arm. What was learned of it stays."""
        return self._run(_calls.put_arm(id, fields))

    def retire_arm(self, id: str) -> Arm:
        """Retire an arm. What was learned of it stays."""
        return self._run(_calls.retire_arm(id))

    def policies(self) -> Policies:
        """All policies, the one that serves, and those that learn beside it."""
        return self._run(_calls.policies())

    def put_policy(self, name: str, parameters: Mapping[str, Any] | None = None) -> Policies:
        """Train another policy on the log; it serves once that is done, see `policies`."""
        return self._run(_calls.put_policy(name, parameters or {}))

    def policy_state(self, name: str) -> PolicyState:
        """Size and hash of a policy's state."""
        return self._run(_calls.policy_state(name))

    # --- experiments ---------------------------------------------------------------------------
    def experiments(self) -> Experiments:
        """Every experiment, and the rules over all."""
        return self._run(_calls.experiments())

    def experiment(self, id: str) -> Experiment:
        """One experiment, and how it stands."""
        return self._run(_calls.experiment(id))

    def put_experiment(
        self, id: str, spec: Mapping[str, Any] | ExperimentSpec, why: str = ""
    ) -> Experiment:
        """Make a draft, or change an experiment."""
        return self._run(_calls.put_experiment(id, spec, why))

    def change_experiment(
        self,
        id: str,
        *,
        share: float | None = None,
        weights: Mapping[str, float] | None = None,
        release: str | None = None,
        why: str = "",
    ) -> Experiment:
        """Change the share or the weights, or release a variant that a guardrail holds."""
        return self._run(_calls.change_experiment(id, share, weights, release, why))

    def start_experiment(self, id: str, why: str = "") -> Experiment:
        """Start it, or go on; its status is "starting" while policies are folded."""
        return self._run(_calls.move_experiment(id, "start", why))

    def pause_experiment(self, id: str, why: str = "") -> Experiment:
        """Assign no unit for now."""
        return self._run(_calls.move_experiment(id, "pause", why))

    def stop_experiment(
        self, id: str, winner: str = "", *, ship: bool = False, why: str = ""
    ) -> Experiment:
        """End it; winner: the variant to keep, what the results say if empty."""
        return self._run(_calls.stop_experiment(id, winner, ship, why))

    def delete_experiment(self, id: str, why: str = "") -> Experiment:
        """Delete a draft or a finished experiment."""
        return self._run(_calls.delete_experiment(id, why))

    def experiment_results(self, id: str) -> ExperimentResults:
        """The conclusions so far; every interval is valid at every look."""
        return self._run(_calls.experiment_results(id))

    def rules(self) -> Rules:
        """The kill switch and the hold-out."""
        return self._run(_calls.rules())

    def put_rules(self, why: str = "", **fields: Unpack[RulesFields]) -> Rules:
        """Set them; what is left out stays."""
        return self._run(_calls.put_rules(fields, why))

    # --- configuration and keys ----------------------------------------------------------------
    def configuration(self) -> Configuration:
        """What is in force, and the newest changes; a key needs the scope admin."""
        return self._run(_calls.configuration())

    def put_configuration(
        self, revision: int | None, why: str = "", **fields: Unpack[ConfigurationFields]
    ) -> Configuration:
        """Other sections in the place of those in force, all or none; each is the whole list.

        revision: the one that was read, by which a change that somebody made meanwhile is a
        Conflict; None for whatever is in force.
        """
        return self._run(_calls.put_configuration(revision, fields, why))

    def rollback_configuration(
        self, to: int, revision: int | None, *, forget: Sequence[str] = (), why: str = ""
    ) -> Configuration:
        """The sections as they were after revision `to`; keys stay as they are.

        revision: as of `put_configuration`. forget: routes that may lose what they have learned.
        """
        return self._run(_calls.rollback_configuration(to, revision, forget, why))

    def keys(self) -> Keys:
        """Every API key, without its hash."""
        return self._run(_calls.keys())

    def make_key(self, id: str, why: str = "", **fields: Unpack[KeyFields]) -> NewKey:
        """Make a key; it is told in this answer alone, and nothing can tell it again.

        It is not sent again where no answer came: revoke the key then, and make another one.
        """
        return self._run(_calls.make_key(id, fields, why))

    def rotate_key(self, id: str, *, grace_s: float = 0.0, why: str = "") -> NewKey:
        """A new key under the same id; the one before stays good for `grace_s` seconds."""
        return self._run(_calls.rotate_key(id, grace_s, why))

    def revoke_key(self, id: str, why: str = "") -> Keys:
        """Good no more from here on, on open streams too; the keys that are left."""
        return self._run(_calls.revoke_key(id, why))

    # --- the service ---------------------------------------------------------------------------
    def health(self) -> Status:
        """Whether the process is alive."""
        return self._run(_calls.health())

    def ready(self) -> Status:
        """Whether it has recovered and takes traffic; Unavailable while it starts or stops."""
        return self._run(_calls.ready())

    def snapshot(self) -> Snapshot:
        """Make a snapshot now."""
        return self._run(_calls.snapshot())

    def history(
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
        return self._run(_calls.history(per, by, since, until, groups))

    def judges(self) -> list[JudgeRow]:
        """How far each judge agrees with the people who graded the same answers."""
        return self._run(_calls.judges())

    def forget_unit(self, unit: str, tenant: str = "") -> Erased:
        """Erase all that the service keeps of a unit."""
        return self._run(_calls.forget_unit(unit, tenant))

    # -------------------------------------------------------------------------------------------
    def _run(self, call: Call[T], timeout_s: float | None = None) -> T:
        live = self._live()
        return live.thread.run(live.transport.send(call, timeout_s))

    def _live(self) -> Live:
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._opened is None or self._opened.pid != os.getpid():
                self._opened = Live(self._address, self._options)
            return self._opened


class Stream:
    """As the client's decide, reward and compare, but each returns at once with a future."""

    def __init__(self, stream: AsyncStream, thread: LoopThread) -> None:
        self._stream, self._thread = stream, thread

    def decide(
        self,
        query: str | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[DecideFields],
    ) -> concurrent.futures.Future[Decision]:
        """Send a decide; `result()` of the future waits for it."""
        return self._thread.start(self._stream.decide(query, timeout_s=timeout_s, **fields))

    def reward(
        self,
        decision: str | Decision | None = None,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[RewardFields],
    ) -> concurrent.futures.Future[Result]:
        """Send a reward; `result()` of the future waits until it is in the log."""
        return self._thread.start(self._stream.reward(decision, timeout_s=timeout_s, **fields))

    def compare(
        self,
        winner: str,
        loser: str,
        *,
        timeout_s: float | None = None,
        **fields: Unpack[CompareFields],
    ) -> concurrent.futures.Future[Result]:
        """Send a comparison; `result()` of the future waits until it is in the log."""
        return self._thread.start(
            self._stream.compare(winner, loser, timeout_s=timeout_s, **fields)
        )
