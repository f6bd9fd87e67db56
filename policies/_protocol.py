"""What a policy is: three methods over values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from policies._types import (
    ArmId,
    Arms,
    Compared,
    Context,
    Contexts,
    Proposal,
    Proposals,
    Rewarded,
)

S = TypeVar("S")
R = TypeVar("R", contravariant=True)


class Policy(Protocol[S]):
    """A pure state machine. The object itself is a frozen dataclass of hyper-parameters.

    Every parameter has a default, and bad values raise ValueError naming the parameter.
    The state is a dataclass of plain data (numbers, strings, lists, dicts, numpy arrays and
    dataclasses of these), so that one codec dumps and loads any of them. What begins with an
    underscore in a state is a cache: it is not dumped, not compared, and may vanish at any time.
    """

    def init(self) -> S:
        """The state before any event."""
        ...

    def propose(self, state: S, context: Context, arms: Arms) -> Proposal:
        """A distribution over `arms`. Changes nothing but caches, reads no clock, draws nothing.

        Raises ValueError when there is no arm.
        """
        ...

    def learn(self, state: S, event: Rewarded | Compared) -> S:
        """The state after `event`. Consumes `state`: it may be written into and returned.

        Everything is computed before the first write, so an exception leaves it as it was.
        Costs O(1) in the number of past events.
        """
        ...


@runtime_checkable
class Correctable(Protocol[S]):
    """A policy whose state is a sum over outcomes, so that one of them can be replaced.

    A policy without it keeps what it learned at first when an outcome is corrected.
    """

    def correct(self, state: S, before: Rewarded, after: Rewarded) -> S:
        """The state as if it had learned `after` where it learned `before`, up to rounding.

        Both are of one decision and have their `reward`. Consumes `state`, as `learn` does.
        """
        ...


@runtime_checkable
class Forgetful(Protocol[S]):
    """A policy that can discount what it learned about one arm, as after a change of that arm.

    A policy without it keeps everything that it learned.
    """

    def forget(self, state: S, arm: ArmId, keep: float) -> S:
        """The state as if only the share `keep`, in [0, 1], of the arm's outcomes had been learned.

        The result is between the learned state and the prior. Other arms do not change, unless
        arms are only known relative to each other. An arm never seen changes nothing. Consumes
        `state`, as `learn` does; may cost more than one `learn`.
        """
        ...


@runtime_checkable
class ManyAtOnce(Protocol[R]):
    """A policy that proposes for many queries at once, in less time than one by one.

    The service uses it for decisions of one turn; a policy without it proposes one by one.
    """

    def propose_many(self, state: R, contexts: Contexts, arms: Arms) -> Proposals:
        """`propose` of each context, bit for bit. Changes nothing but caches.

        arms: as in `propose`, but `cost_usd` is (B, K), a row for each query. Raises ValueError
        if there is no arm. If it raises, the service calls `propose` for each query instead.
        """
        ...


@runtime_checkable
class LearnsMany(Protocol[S]):
    """A policy that learns many outcomes in less than the time of one by one."""

    def learn_many(self, state: S, events: Sequence[Rewarded | Compared]) -> S:
        """`learn` of each event: the same bytes of state, and the same proposals but for rounding.

        Consumes `state`. An exception leaves it as it was before the first event; then they are to
        be learned one by one, so that each is refused alone.
        """
        ...


def order_free(policy: Policy[Any]) -> bool:
    """Whether the same outcomes in any order give the same bytes of state.

    A policy declares this by the class attribute `order_free = True`. Its sums must be exact
    (`policies/_grid.py` shows a way). `forget` is a barrier: outcomes before it cannot change
    places with those after it.
    """
    return bool(getattr(policy, "order_free", False))


def reads_neighbours(policy: Policy[Any]) -> bool:
    """Whether it reads a context's neighbours, in `propose` or `learn`.

    A policy that does not can declare the class attribute `reads_neighbours = False`; its contexts
    then have no neighbours, which saves looking them up.
    """
    return bool(getattr(policy, "reads_neighbours", True))


def fold_of(policy: Policy[Any]) -> int:
    """The version of a policy's learning rule: its class attribute `fold`, 0 if it has none.

    It goes up when the policy computes another state from the same events than before. Older
    snapshots are then not used, and the log is applied again.
    """
    return int(getattr(policy, "fold", 0))


@dataclass(frozen=True, slots=True)
class OwnAlarms:
    """How often a policy's own alarm of an arm went off, and how many outcomes came since."""

    count: int
    since: int


@runtime_checkable
class Watchful(Protocol[S]):
    """A policy that notices by itself when an arm has changed, and forgets what it knew of it.

    The service's drift reaction (`drift.keep`) lets nothing fade of such a policy, so that no
    change is answered twice.
    """

    @property
    def watches_arms(self) -> bool:
        """Whether it does so with its parameters; False where they turn its alarm off."""
        ...

    def unwatched(self) -> Policy[S]:
        """The same policy with its alarm turned off."""
        ...

    def alarms(self, state: S) -> Mapping[ArmId, OwnAlarms]:
        """Of each arm whose alarm went off at least once."""
        ...


def watches_arms(policy: Policy[Any]) -> bool:
    """Whether the policy detects changes of an arm itself."""
    return isinstance(policy, Watchful) and policy.watches_arms
