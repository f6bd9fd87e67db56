"""Budgets: held and spent never pass the limit; spend as a fold; the price of a dollar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.core.errors import BudgetExhausted
from bandit_service.core.fields import check_stated
from bandit_service.core.spend import MAX_ACCOUNTS, Payer, Spend, ends, window
from bandit_service.gateway.budgets import Budgets
from bandit_service.settings.budgets import BudgetSpec

NOON = 43_200.0  # of the first day


def _budgets(**fields: object) -> Budgets:
    whole = {"scope": "service", "per": "day", "usd": 10.0} | fields
    return Budgets((BudgetSpec(**whole),))  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "settle", "lose"]), st.floats(0.1, 4.0), st.floats(0, 1)),
        max_size=60,
    )
)
def test_spent_and_held_never_pass_the_limit(steps: list[tuple[str, float, float]]) -> None:
    budgets, spend, running = _budgets(), Spend(), {}
    for i, (verb, most, part) in enumerate(steps):
        if verb == "ask":
            try:
                assert budgets.fitting(spend, {"a": most}, Payer(), NOON) == ["a"]
            except BudgetExhausted:
                continue
            budgets.reserve(str(i), most, Payer())
            running[str(i)] = most
        elif running:
            id, held = running.popitem()
            if verb == "settle":
                spend.add(NOON, held * part, Payer())
            budgets.settle(id)
        spent = spend.spent("day", NOON, "service")
        assert spent + sum(running.values()) <= 10.0 + 1e-9


def test_what_fits_is_offered_and_the_rest_is_refused_until_the_window_ends() -> None:
    spend = Spend()
    spend.add(NOON, 9.0, Payer("acme", "k"))
    arms = {"dear": 2.0, "cheap": 0.5}
    assert _budgets().fitting(spend, arms, Payer(), NOON) == ["cheap"]
    with pytest.raises(BudgetExhausted) as refused:
        _budgets(on_exhausted="refuse").fitting(spend, arms, Payer(), NOON)
    assert refused.value.retry_after_s == 43_200
    assert _budgets().fitting(spend, arms, Payer(), NOON + 86_400) == ["dear", "cheap"]
    each = _budgets(scope="tenant")
    assert each.fitting(spend, arms, Payer("globex", "k"), NOON) == ["dear", "cheap"]
    assert each.fitting(spend, arms, Payer("acme", "k"), NOON) == ["cheap"]
    of_route = _budgets(scope="route", id="bot")
    spend.add(NOON, 9.0, Payer("acme", "k", "bot"))
    assert of_route.fitting(spend, arms, Payer(route="bot"), NOON) == ["cheap"]
    for other in ("coder", ""):
        assert of_route.fitting(spend, arms, Payer("acme", "k", other), NOON) == list(arms)
    assert _budgets(scope="key", id="other").fitting(spend, arms, Payer("", "k"), NOON) == list(
        arms
    )


def test_the_price_of_a_dollar_follows_what_is_spent_ahead_of_the_clock() -> None:
    """At noon 6 of 10 are spent: 0.1 ahead, 20 · 0.1 = 2, so a dollar is worth a third."""
    budgets, spend = _budgets(), Spend()
    assert budgets.worth(spend, 0.3, Payer(), NOON) == pytest.approx(0.3)
    spend.add(NOON, 6.0, Payer())
    assert budgets.worth(spend, 0.3, Payer(), NOON) == pytest.approx(0.1)
    assert budgets.worth(spend, 0.3, Payer(), NOON + 14_400) == pytest.approx(0.3)
    assert _budgets(pace=False).worth(spend, 0.3, Payer(), NOON) == pytest.approx(0.3)


def test_a_late_bill_counts_in_its_decisions_window_and_old_windows_go() -> None:
    spend = Spend()
    for day in range(5):
        spend.add(day * 86_400.0, 1.0, Payer())
    spend.add(3 * 86_400.0, 2.0, Payer())
    spend.add(0.0, 9.0, Payer())  # of a window that nobody asks for any more
    assert spend.spent("day", 3 * 86_400.0 + 5, "service") == 3.0
    assert spend.spent("day", 4 * 86_400.0, "service") == 1.0
    assert sorted(spend.windows["day"]) == ["1970-01-04", "1970-01-05"]
    assert spend.spent("month", 0.0, "service") == 16.0
    assert window("hour", 3_599.0) == "1970-01-01T00"
    assert ends("month", 31 * 86_400.0) == (31 + 28) * 86_400.0


@pytest.mark.parametrize(
    ("field", "value"), [("scope", "moon"), ("per", "year"), ("usd", 0.0), ("on_exhausted", "x")]
)
def test_a_wrong_budget_is_refused_by_its_field(field: str, value: object) -> None:
    whole = {"scope": "service", "per": "day", "usd": 1.0} | {field: value}
    with pytest.raises(ValueError, match=field):
        check_stated(BudgetSpec(**whole))  # type: ignore[arg-type]


def test_where_others_hold_the_money_one_may_come_again_soon() -> None:
    budgets, spend = _budgets(), Spend()
    budgets.reserve("under way", 9.5, Payer())
    assert budgets.left(spend, Payer(), NOON) == 0.5
    for most, soon in ((9.0, True), (11.0, False)):
        with pytest.raises(BudgetExhausted) as refused:
            budgets.fitting(spend, {"a": most}, Payer(), NOON)
        assert (refused.value.retry_after_s < 10) == soon
    budgets.settle("under way")
    assert budgets.fitting(spend, {"a": 9.0}, Payer(), NOON) == ["a"]


def test_names_of_tenants_take_bounded_room_and_none_counts_as_less_than_it_spent() -> None:
    """On 5a5a85b each name that a client made up was kept until the month ended."""
    spend = Spend()
    spend.add(NOON, 50.0, Payer("large", "k"), "j")
    for i in range(3 * MAX_ACCOUNTS):
        spend.add(NOON, 0.001 + i / 1e9, Payer(f"made up {i}", "k"))
    held = [len(accounts) for of in spend.windows.values() for accounts in of.values()]
    assert max(held) <= MAX_ACCOUNTS
    assert spend.spent("day", NOON, "tenant:large") == 50.0
    assert spend.spent("day", NOON, "service") > 50.0 + 3 * MAX_ACCOUNTS * 0.001
    assert spend.spent("day", NOON, "key:k") == pytest.approx(spend.spent("day", NOON, "service"))
    assert spend.spent("day", NOON, "judge:j") == 50.0
    for i in (0, 12_345, 3 * MAX_ACCOUNTS - 1):
        spent = spend.spent("month", NOON, f"tenant:made up {i}")
        most = spend.spent("day", NOON, "service") / (0.9 * MAX_ACCOUNTS)
        assert 0.001 + i / 1e9 <= spent <= 0.0011 + most
    before = spend.spent("day", NOON, "tenant:made up 0")
    spend.add(NOON, 1.0, Payer("made up 0", "k"))
    assert spend.spent("day", NOON, "tenant:made up 0") == pytest.approx(before + 1.0)
    each = _budgets(scope="tenant", usd=40.0)
    with pytest.raises(BudgetExhausted):
        each.fitting(spend, {"a": 1.0}, Payer("large", "k"), NOON)
    assert each.fitting(spend, {"a": 1.0}, Payer("somebody new", "k"), NOON) == ["a"]


def test_fewer_tenants_than_that_are_told_apart_exactly() -> None:
    spend = Spend()
    for i in range(2000):
        spend.add(NOON, float(i), Payer(f"t{i}", ""))
    assert [spend.spent("day", NOON, f"tenant:t{i}") for i in range(2000)] == list(range(2000))
    assert spend.spent("day", NOON, "tenant:other") == 0.0


def test_accounts_that_hold_nothing_are_forgotten_while_others_do() -> None:
    """Seen on e98ba34: each tenant that a client named was kept until no request at all ran."""
    budgets = _budgets()
    budgets.reserve("long", 1.0, Payer("first", ""))
    for i in range(100):
        budgets.reserve(f"d{i}", 0.1, Payer(f"tenant-{i}", ""))
        budgets.settle(f"d{i}")
    assert set(budgets._held) == {"service", "tenant:first"}
    rows = budgets.rows(Spend(), NOON)
    assert rows[0]["held_usd"] == pytest.approx(1.0)
    budgets.settle("long")
    assert budgets._held == {}
