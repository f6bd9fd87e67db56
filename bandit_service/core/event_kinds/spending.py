"""Events about money: costs that no outcome reports, and the budget shares of replicas."""

from __future__ import annotations

from bandit_service.core.event_kinds.event import Event


class Spent(Event, frozen=True, kw_only=True, tag="spent"):
    """A cost that no outcome reports, booked on the service and on the payers named here.

    judge: the cost of judging `decision_id`. Without a judge it is an estimate of the cost of that
    decision's answer, which a later report replaces. Without a decision it is for a call that was
    not routed, such as embeddings.
    """

    decision_id: str = ""
    judge: str = ""
    usd: float
    tenant: str = ""
    caller: str = ""
    route: str = ""


class BudgetLeased(Event, frozen=True, kw_only=True, tag="budget_leased"):
    """What a replica may spend of an account in one window, if several share a log.

    It replaces the replica's earlier slice: what was spent until here is booked, and not part of
    it. replica: its slot. per, window: of `core.spend`. usd: the maximum cost of its running calls
    and of new ones.
    """

    replica: int
    account: str
    per: str
    window: str
    usd: float


class BudgetReturned(Event, frozen=True, kw_only=True, tag="budget_returned"):
    """A replica may spend nothing more of an account in this window: it returned its slice.

    The keeper does the same for one that was closed long ago.
    """

    replica: int
    account: str
    per: str
    window: str
