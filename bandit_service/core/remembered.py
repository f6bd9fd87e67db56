"""The remembered queries by id, in columns: an object for each took half as much as its vector.

Nearly every query has one outcome and no comparison. Of these, each part lies in an array, and an
`Item` is made when somebody looks. An item with more lies as an object beside the arrays.

A query is found by its id by binary search, since ids only grow, and by its key in a table of rows
with open addressing.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from policies import ArmId, Comparison, Outcome, Rewarded

KEY = 16
"""Bytes of a key."""
Origin: TypeAlias = tuple[int, str]
First: TypeAlias = tuple[int, Rewarded, str, Origin]
"""The first outcome of a new query: its id, a lesson that has the outcome, owner and origin."""
Label: TypeAlias = tuple[str, str]
"""The arm of an outcome, and the variant that it came of."""
_NOWHERE, _BESIDE = -1, -1
_LEAST = 16
_UNKNOWN = float("nan")
_first = struct.Struct("<Q").unpack_from


class Item(msgspec.Struct, frozen=True, gc=False):
    """One remembered query: the row of its vector, its key, and what came back.

    owners, compared_by: whose each outcome and each comparison is ("" for nobody's). origins,
    compared_in: with which event each came, and of which variant ("" for none).
    """

    row: int
    key: bytes
    outcomes: tuple[Outcome, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    owners: tuple[str, ...] = ()
    compared_by: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    compared_in: tuple[Origin, ...] = ()


KeptItem: TypeAlias = tuple[
    bytes,
    tuple[Outcome, ...],
    tuple[Comparison, ...],
    tuple[str, ...],
    tuple[str, ...],
    tuple[Origin, ...],
    tuple[Origin, ...],
]
"""An item without its row, which is where a cache of this process lies."""


class Items(Mapping[int, Item]):
    """Items by id, oldest first. O(log n) by id, O(1) by key.

    `_ids` and `_rows` are in the order of the ids; a row that was removed is _NOWHERE, and what
    lies before `_start` has left. All other columns are by row; `_labels` is _BESIDE for an item
    that lies in `_beside`.
    """

    def __init__(self) -> None:
        self._ids, self._rows, self._start, self._count = array("q"), array("i"), 0, 0
        self._keys, self._table = bytearray(), array("i", [_NOWHERE] * _LEAST)
        self._labels, self._numbers = array("i"), array("q")
        self._qualities, self._rewards = array("d"), array("d")
        self._owners = list[str]()
        self._beside: dict[int, Item] = {}
        self._names, self._codes = list[Label](), dict[Label, int]()
        self._sought: bytes | None = None
        self._gap = 0

    # --- what is there ---

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for at in range(self._start, len(self._ids)):
            if self._rows[at] != _NOWHERE:
                yield self._ids[at]

    def __contains__(self, id: object) -> bool:
        return isinstance(id, int) and self._row_of(id) != _NOWHERE

    def __getitem__(self, id: int) -> Item:
        return self._item(self.row(id))

    def row(self, id: int) -> int:
        """The row of an item. Raises KeyError."""
        row = self._row_of(id)
        if row == _NOWHERE:
            raise KeyError(id)
        return row

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The rows of these items, without a number of Python's for each. Raises KeyError."""
        order = np.frombuffer(self._ids, np.int64)[self._start :]
        rows = np.frombuffer(self._rows, np.int32)[self._start :]
        at = np.searchsorted(order, ids)
        known = at < len(order)
        known[known] = (order[at[known]] == ids[known]) & (rows[at[known]] != _NOWHERE)
        if not known.all():
            raise KeyError(int(ids[~known][0]))
        found: NDArray[np.int32] = rows[at]
        return found

    def rows(self) -> NDArray[np.intp]:
        """All rows, oldest item first."""
        rows = np.frombuffer(self._rows, np.int32)[self._start :].astype(np.intp)
        there: NDArray[np.intp] = rows[rows != _NOWHERE]
        return there

    def ids(self) -> NDArray[np.int64]:
        """All ids, oldest first."""
        rows = np.frombuffer(self._rows, np.int32)[self._start :]
        ids = np.frombuffer(self._ids, np.int64)[self._start :]
        there: NDArray[np.int64] = ids[rows != _NOWHERE]
        return there

    def found(self, key: bytes) -> int:
        """The row of the item of this key, less than 0 if there is none.

        Where it would be is kept, since it is mostly added next.
        """
        self._sought, self._gap = key, self._place(key)
        return self._table[self._gap]

    def ids_of(self, owner: str) -> list[int]:
        """The ids of those with an outcome or a comparison of this owner, oldest first. O(n)."""
        found = list[int]()
        for at in range(self._start, len(self._ids)):
            row = self._rows[at]
            if row == _NOWHERE:
                continue
            if self._labels[row] == _BESIDE:
                item = self._beside[row]
                mine = owner in item.owners or owner in item.compared_by
            else:
                mine = self._owners[row] == owner
            if mine:
                found.append(self._ids[at])
        return found

    def at(self, row: int) -> Item:
        """The item of a row that is in use."""
        return self._item(row)

    def told(
        self, ids: Iterable[int]
    ) -> list[tuple[tuple[Outcome, ...], tuple[Comparison, ...]] | None]:
        """What came back for each of these queries; None for one that is not remembered.

        As the items have it, but quicker.
        """
        order, rows, start, end = self._ids, self._rows, self._start, len(self._ids)
        labels, names = self._labels, self._names
        qualities, rewards = self._qualities, self._rewards
        found = list[tuple[tuple[Outcome, ...], tuple[Comparison, ...]] | None]()
        for id in ids:
            at = bisect_left(order, id, start)
            row = rows[at] if at < end and order[at] == id else _NOWHERE
            if row == _NOWHERE:
                found.append(None)
            elif (code := labels[row]) == _BESIDE:
                item = self._beside[row]
                found.append((item.outcomes, item.comparisons))
            else:
                quality = qualities[row]
                known = quality if quality == quality else None
                found.append(((Outcome(ArmId(names[code][0]), known, rewards[row]),), ()))
        return found

    def kept(self) -> list[KeptItem]:
        """All of them without their rows, oldest first."""
        found = list[KeptItem]()
        for row in self.rows().tolist():
            code = self._labels[row]
            if code == _BESIDE:
                one = self._beside[row]
                found.append(
                    (
                        *(one.key, one.outcomes, one.comparisons, one.owners, one.compared_by),
                        *(one.origins, one.compared_in),
                    )
                )
            else:
                origin = self._numbers[row], self._names[code][1]
                told, owners = (self._outcome(row, code),), (self._owners[row],)
                found.append((self._key(row), told, (), owners, (), (origin,), ()))
        return found

    # --- what changes ---

    def add(self, id: int, item: Item) -> None:
        """Remember a new item. Its id must be greater than all before it, its row unused."""
        self._write(item)
        self._note(id, item.row, item.key)

    def add_first(
        self, id: int, row: int, key: bytes, one: Outcome | Rewarded, owner: str, origin: Origin
    ) -> None:
        """The same of an item with this outcome alone, or with that of this lesson."""
        if row >= len(self._labels):
            self._reserve(row + 1)
        self._write_first(row, key, one, owner, origin)
        self._note(id, row, key)

    def add_firsts(self, rows: Sequence[int], new: Mapping[bytes, First]) -> None:
        """The same of many new items by key, oldest first, each with the outcome of its lesson."""
        if max(rows) >= len(self._labels):
            self._reserve(max(rows) + 1)
        labels, numbers, owners, keys = self._labels, self._numbers, self._owners, self._keys
        qualities, rewards, codes = self._qualities, self._rewards, self._codes
        for row, (key, (_, one, owner, origin)) in zip(rows, new.items(), strict=True):
            quality, reward, label = one.quality, one.reward, (one.arm, origin[1])
            if type(quality) is type(reward) is float and quality == quality and label in codes:
                keys[KEY * row : KEY * (row + 1)] = key
                labels[row], numbers[row], owners[row] = codes[label], origin[0], owner
                qualities[row], rewards[row] = quality, reward
            else:
                self._write_first(row, key, one, owner, origin)
        self._sought = None  # where the last one that was sought would be, another may come
        for row, (key, (id, _, _, _)) in zip(rows, new.items(), strict=True):
            self._note(id, row, key)

    def put_back(self, ids: list[int], kept: list[KeptItem]) -> None:
        """What `kept` gave, into rows of the same order, where nothing is remembered yet.

        ValueError where ids do not grow, or a key has another length.
        """
        n = len(kept)
        if any(one >= other for one, other in pairwise(ids)):
            raise ValueError("ids: must grow")
        if any(len(one[0]) != KEY for one in kept):
            raise ValueError(f"keys: must have {KEY} bytes")
        self._reserve(n)
        self._keys[: KEY * n] = b"".join([one[0] for one in kept])
        for row, (key, outcomes, comparisons, owners, by, origins, within) in enumerate(kept):
            if _fits(outcomes, comparisons):
                self._write_outcome(row, outcomes[0], owners[0], origins[0])
            else:
                self._beside[row] = Item(
                    row, key, outcomes, comparisons, owners, by, origins, within
                )
        self._ids, self._rows, self._count = array("q", ids), array("i", range(n)), n
        self._spread(self.rows())

    def put(self, item: Item) -> None:
        """Another item in the place of the one of its row."""
        self._beside.pop(item.row, None)
        self._write(item)

    def pop_oldest(self) -> tuple[int, int]:
        """Forget the oldest item; its id and its row."""
        while self._rows[self._start] == _NOWHERE:
            self._start += 1
        id, row = self._ids[self._start], self._rows[self._start]
        self._remove(self._start, row)
        return id, row

    def remove(self, id: int) -> int:
        """Forget an item; its row."""
        row = self.row(id)
        self._remove(bisect_left(self._ids, id, self._start), row)
        return row

    @property
    def nbytes(self) -> int:
        """The bytes of the columns."""
        parts = (
            *(self._ids, self._rows, self._keys, self._table, self._labels, self._numbers),
            *(self._qualities, self._rewards, self._owners),
        )
        return sum(map(sys.getsizeof, parts))

    # --- columns ---

    def _row_of(self, id: int) -> int:
        at = bisect_left(self._ids, id, self._start)
        return self._rows[at] if at < len(self._ids) and self._ids[at] == id else _NOWHERE

    def _item(self, row: int) -> Item:
        code = self._labels[row]
        if code == _BESIDE:
            return self._beside[row]
        return Item(
            row,
            self._key(row),
            (self._outcome(row, code),),
            (),
            (self._owners[row],),
            (),
            ((self._numbers[row], self._names[code][1]),),
            (),
        )

    def _outcome(self, row: int, code: int) -> Outcome:
        quality = self._qualities[row]
        known = quality if quality == quality else None
        return Outcome(ArmId(self._names[code][0]), known, self._rewards[row])

    def _write(self, item: Item) -> None:
        row = item.row
        if row >= len(self._labels):
            self._reserve(row + 1)
        self._keys[KEY * row : KEY * (row + 1)] = item.key
        if _fits(item.outcomes, item.comparisons):
            self._write_outcome(row, item.outcomes[0], item.owners[0], item.origins[0])
        else:
            self._clear(row)
            self._beside[row] = item

    def _write_first(
        self, row: int, key: bytes, one: Outcome | Rewarded, owner: str, origin: Origin
    ) -> None:
        reward = one.reward
        assert reward is not None
        if _is_plain(one.quality, reward):
            self._keys[KEY * row : KEY * (row + 1)] = key
            self._write_plain(row, one.arm, one.quality, reward, owner, origin)
        else:
            outcome = Outcome(one.arm, one.quality, reward)
            self._write(Item(row, key, (outcome,), (), (owner,), (), (origin,), ()))

    def _write_outcome(self, row: int, one: Outcome, owner: str, origin: Origin) -> None:
        self._write_plain(row, one.arm, one.quality, one.reward, owner, origin)

    def _write_plain(
        self, row: int, arm: ArmId, quality: float | None, reward: float, owner: str, origin: Origin
    ) -> None:
        self._labels[row] = self._code((arm, origin[1]))
        self._qualities[row] = _UNKNOWN if quality is None else quality
        self._rewards[row], self._owners[row] = reward, owner
        self._numbers[row] = origin[0]

    def _code(self, label: Label) -> int:
        """Its number in the columns."""
        code = self._codes.get(label)
        if code is None:
            code = self._codes[label] = len(self._names)
            self._names.append(label)
        return code

    def _reserve(self, rows: int) -> None:
        more = max(rows, len(self._labels) + len(self._labels) // 8) - len(self._labels)
        self._labels.frombytes(_BESIDE.to_bytes(4, sys.byteorder, signed=True) * more)
        for column in (self._numbers, self._qualities, self._rewards):
            column.frombytes(bytes(8 * more))
        self._owners += [""] * more
        self._keys.extend(bytes(KEY * more))

    def _note(self, id: int, row: int, key: bytes) -> None:
        ids = self._ids
        if len(ids) > self._start and id <= ids[-1]:
            raise ValueError(f"id: must be greater than {ids[-1]}, got {id}")
        ids.append(id)
        self._rows.append(row)
        self._count += 1
        if 2 * self._count > len(self._table):
            self._spread(self.rows())
        else:
            self._table[self._gap if self._sought is key else self._place(key)] = row
        self._sought = None

    def _clear(self, row: int) -> None:
        self._labels[row], self._numbers[row] = _BESIDE, 0
        self._qualities[row] = self._rewards[row] = 0.0
        self._owners[row] = ""
        self._beside.pop(row, None)

    def _remove(self, at: int, row: int) -> None:
        self._sought = None
        self._take_out(self._place(self._key(row)))
        self._clear(row)
        self._keys[KEY * row : KEY * (row + 1)] = bytes(KEY)
        self._rows[at] = _NOWHERE
        self._count -= 1
        if at == self._start:
            self._start += 1
        if self._start > _LEAST + len(self._ids) // 4:
            del self._ids[: self._start]
            del self._rows[: self._start]
            self._start = 0
        elif len(self._ids) - self._start - self._count > _LEAST + len(self._ids) // 4:
            self._close_up()

    def _close_up(self) -> None:
        """Drop what was removed from the middle of the order, which would grow for ever."""
        rows, ids = np.frombuffer(self._rows, np.int32), np.frombuffer(self._ids, np.int64)
        there = rows != _NOWHERE
        self._rows, self._ids = array("i", rows[there].tobytes()), array("q", ids[there].tobytes())
        self._start = 0

    # --- the table of keys ---

    def _key(self, row: int) -> bytes:
        return bytes(self._keys[KEY * row : KEY * (row + 1)])

    def _place(self, key: bytes) -> int:
        """Where in the table the key is, or where it would be."""
        table, keys, mask = self._table, self._keys, len(self._table) - 1
        at: int = _first(key)[0] & mask
        while (row := table[at]) != _NOWHERE and not keys.startswith(key, KEY * row):
            at = (at + 1) & mask
        return at

    def _take_out(self, gap: int) -> None:
        """Empty a place; what would not be found any more behind it moves up."""
        table, mask = self._table, len(self._table) - 1
        at = gap
        while True:
            at = (at + 1) & mask
            row = table[at]
            if row == _NOWHERE:
                break
            home: int = _first(self._keys, KEY * row)[0] & mask
            if (at - home) & mask >= (at - gap) & mask:
                table[gap], gap = row, at
        table[gap] = _NOWHERE

    def _spread(self, rows: NDArray[np.intp]) -> None:
        """A table of these rows that has room for as many more."""
        size = _LEAST
        while size < 2 * len(rows):
            size *= 2
        table, mask = np.full(size, _NOWHERE, np.int32), np.uint64(size - 1)
        homes = np.frombuffer(self._keys, "<u8")[:: KEY // 8][rows] & mask
        left, at = rows.astype(np.int32), homes.astype(np.intp)
        while len(left):
            free = table[at] == _NOWHERE
            table[at[free]] = left[free]
            others = table[at] != left
            left, at = left[others], (at[others] + 1) & (size - 1)
        self._table = array("i", table.tobytes())


def _fits(outcomes: tuple[Outcome, ...], comparisons: tuple[Comparison, ...]) -> bool:
    """Whether an item lies in the columns: it has one outcome alone."""
    if len(outcomes) != 1 or comparisons:
        return False
    return _is_plain(outcomes[0].quality, outcomes[0].reward)


def _is_plain(quality: float | None, reward: float) -> bool:
    """Whether the columns hold all of an outcome, bit for bit."""
    known = quality is None or (type(quality) is float and quality == quality)
    return known and type(reward) is float
