"""Remembered queries in columns are what a dict of them would be, and take little memory."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_service.core.history import History
from bandit_service.core.remembered import KEY, Item, Items
from policies import ArmId, Comparison, Outcome
from store._slots import Slots
from store.history import HybridIndex

DIM = 384


def _told(rng: np.random.Generator) -> list[Outcome]:
    """Some outcomes; a program's own policy may pass whole numbers."""
    qualities, rewards = (None, 0.25, 1, -0.0), (0.5, 1, -1.0)
    return [
        Outcome(ArmId("ab"[i % 2]), qualities[rng.integers(4)], rewards[rng.integers(3)])
        for i in range(rng.choice([0, 1, 1, 1, 2]))
    ]


def _item(row: int, key: bytes, told: list[Outcome]) -> Item:
    n, compared = len(told), len(told) != 1
    origins = tuple((i + 7, "e/v" * (i % 2)) for i in range(n))
    pair = (Comparison(ArmId("a"), ArmId("b")),) * compared
    return Item(
        row, key, tuple(told), pair, ("u",) * n, ("",) * compared, origins, ((3, ""),) * compared
    )


def _floats(item: Item) -> bool:
    numbers = [number for one in item.outcomes for number in (one.quality, one.reward)]
    return all(number is None or type(number) is float for number in numbers)


@pytest.mark.parametrize("seed", range(4))
def test_they_are_as_a_dict_of_items(seed: int) -> None:
    """Many keys have one place in the table, so that they move up when others leave."""
    rng, items, known = np.random.default_rng(seed), Items(), dict[int, Item]()
    free, newest = list(range(24)), 0
    for _ in range(400):
        what, told = rng.choice(["add", "add", "put", "remove", "oldest"]), _told(rng)
        if what == "add" and free:
            row = free.pop()
            newest += int(rng.choice([1, 1024]))
            key = bytes([rng.integers(3), *bytes(7)]) + newest.to_bytes(KEY - 8, "little")
            one = known[newest] = _item(row, key, told)
            if rng.random() < 0.5:
                assert items.found(key) < 0  # and added next, as the history does
            if rng.random() < 0.2 and len(known) > 1:
                first = next(iter(known))
                free.append(known.pop(first).row)
                items.pop_oldest()  # after which its place may be another
            if len(told) == 1:
                items.add_first(newest, row, key, told[0], one.owners[0], one.origins[0])
            else:
                items.add(newest, one)
        elif what == "put" and known:
            id = int(rng.choice(list(known)))
            known[id] = _item(known[id].row, known[id].key, told)
            items.put(known[id])
        elif what == "remove" and known:
            id = int(rng.choice(list(known)))
            free.append(known.pop(id).row)
            assert items.remove(id) == free[-1]
        elif what == "oldest" and known:
            id = next(iter(known))
            free.append(known.pop(id).row)
            assert items.pop_oldest() == (id, free[-1])
        assert repr(list(items.items())) == repr(list(known.items()))
        assert len(items) == len(known)
        more = {one.row for one in known.values() if one.comparisons or not _floats(one)}
        assert items._beside.keys() == more, "an object is left of what lies in columns now"
        for id, item in known.items():
            assert items.found(item.key) == items.row(id) == item.row
        assert items.found(bytes([1]) * KEY) < 0
        assert newest + 1 not in items
        rows = items.rows_of(np.array([*known], np.int64))
        assert rows.tolist() == [item.row for item in known.values()]
        for unknown in {0, newest, newest + 1} - known.keys():
            with pytest.raises(KeyError, match=str(unknown)):
                items.rows_of(np.array([*known, unknown], np.int64))
        came = [(item.outcomes, item.comparisons) for item in known.values()]
        assert items.told([*known, newest + 1]) == [*came, None]
    again = Items()
    again.put_back(list(items), items.kept())
    for row, (id, item) in enumerate(known.items()):
        assert again[id] == msgspec.structs.replace(item, row=row)
        assert again.found(item.key) == row


@pytest.mark.parametrize("wrong", ["ids", "keys"])
def test_what_was_not_kept_by_it_is_refused(wrong: str) -> None:
    kept = History(4)
    for i in range(2):
        kept.remember(np.eye(3, dtype=np.float32)[i], Outcome(ArmId("a"), 0.5, 0.5))
    folded = kept.folded()
    if wrong == "ids":
        folded = replace(folded, ids=folded.ids[::-1])
    else:
        folded = replace(folded, items=[(one[0][1:], *one[1:]) for one in folded.items])
    with pytest.raises(ValueError, match=wrong):
        History.unfolded(folded)


def test_a_remembered_query_takes_little_more_than_its_vector_and_its_copy() -> None:
    """Python's objects for each took 0.45 of a vector, and a dict of ids 0.1."""
    history, n = History(4000), 4000
    rng = np.random.default_rng(0)
    for i, vector in enumerate(rng.normal(size=(n, DIM)).astype(np.float32)):
        history.number(i + 1)
        history.remember(vector, Outcome(ArmId("a"), 0.5, float(i)), "", (i + 1, ""))
    index = HybridIndex(DIM, n, rows=history)
    ids, stored = history.vectors()
    index.load(ids, stored)
    assert not history.items._beside
    assert history.items.nbytes / n < 110
    assert (history.matrix.nbytes + history.items.nbytes + index.nbytes) / n < 1.4 * 4 * DIM
    index.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 40)), max_size=80))
def test_slots_are_as_a_dict(steps: list[tuple[bool, int]]) -> None:
    slots, known, free = Slots(), dict[int, int](), list(range(44))
    ids = np.zeros(44, np.int64)
    for put, number in steps:
        id = number * 1024  # as those of events
        if put and id not in known:
            slot = known[id] = free.pop()
            ids[slot] = id
            slots.put(id, slot, ids)
        elif not put and id in known:
            slot = known.pop(id)
            assert slots.take(id, ids) == slot
            free.append(slot)
        elif not put:
            with pytest.raises(KeyError):
                slots.take(id, ids)
        assert {id: slots.find(id, ids) for id in known} == known
        assert len(slots) == len(known)
    again = Slots()
    again.put_all(np.array(list(known.values()), np.int32), ids)
    assert {id: again.find(id, ids) for id in known} == known


def test_what_is_forgotten_leaves_nothing_behind_an_older_one() -> None:
    items, one = Items(), Outcome(ArmId("a"), 0.5, 0.5)
    items.add_first(1, 0, bytes(KEY), one, "", (1, ""))
    for id in range(2, 4000):
        items.add_first(id, 1, id.to_bytes(KEY, "big"), one, "o", (id, ""))
        assert items.ids_of("o") == [id]
        items.remove(id)
    assert list(items) == [1]
    assert items.rows().tolist() == [0]
    assert items.nbytes < 4000


def test_a_vector_of_another_length_changes_nothing() -> None:
    history, one = History(capacity=2), Outcome(ArmId("a"), 0.5, 0.5)
    for i in (1, 2):
        history.remember(np.full(3, i, np.float32), one)
    before = history.folded()
    with pytest.raises(ValueError, match="embedding: 4 dimensions, but the history has 3"):
        history.remember(np.ones(4, np.float32), one)
    after = history.folded()
    assert (after.ids, after.items, after.next_id) == (before.ids, before.items, before.next_id)
    history.remember(np.full(3, 3, np.float32), one)
    assert [history.row(id) for id in history.items] == [1, 0]


def test_forgetting_makes_no_item_of_what_is_others(monkeypatch: pytest.MonkeyPatch) -> None:
    history, told = History(capacity=9), Outcome(ArmId("a"), 0.5, 0.5)
    for i, owner in enumerate(("me", "you", "you", "me", "")):
        history.remember(np.full(3, i + 1, np.float32), told, owner)
    history.remember(np.full(3, 2, np.float32), Comparison(ArmId("a"), ArmId("b")), "me")
    made = list[int]()
    real = Items.__getitem__

    def seen(items: Items, id: int) -> Item:
        made.append(id)
        return real(items, id)

    monkeypatch.setattr(Items, "__getitem__", seen)
    history.forget("me")
    assert made == [1, 2, 4]
    assert list(history.items) == [2, 3, 5]
