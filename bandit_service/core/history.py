"""The history: past queries with the outcomes that came back for them, as a fold.

A query is remembered when its first outcome arrives, not when it is decided: a neighbour
without an outcome teaches nothing and would only push out one that does. The same embedding
seen again is the same item, and its outcomes accumulate.

Eviction rule: beyond `capacity`, the item that was remembered first leaves. Each item keeps
its newest `per_item` outcomes and comparisons of each route, and as many of what came by none, so
the history is bounded whatever comes, and a busy route pushes out its own alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

import policies
from bandit_service.core import events as ev
from bandit_service.core.feature import takes, takes_lessons
from bandit_service.core.learner import BLOCK, Correction, Fading, Lesson, Recompared
from bandit_service.core.remembered import KEY, First, Item, Items, KeptItem, Origin
from bandit_service.core.resolved import Resolved
from policies import ArmId, Comparison, Neighbour, Outcome, Vector

T = TypeVar("T")
PER_ITEM = 8
ITEMS_PER_EVENT = 1024
"""No event may remember more queries than this; only `expired` remembers more than one."""


@dataclass(frozen=True, slots=True)
class View:
    """What a policy that learns for itself may see: a route's sees all that came by the route, a
    variant's its own outcomes, and those up to an event that came by the same route, or by none.
    """

    own: str
    upto: int

    def shows(self, origin: Origin) -> bool:
        """Whether an outcome of this origin may be seen."""
        if origin[1] == self.own:
            return True
        route = ev.route_label(self.own)
        known = origin[0] <= self.upto or route == self.own
        return known and ev.route_label(origin[1]) == route


class OutsideRoutes:
    """What the policies that have no route may see: what came by none."""

    def shows(self, origin: Origin) -> bool:
        """Whether an outcome of this origin may be seen."""
        return not ev.is_of_route(origin[1])


@dataclass(frozen=True, slots=True)
class KeptHistory:
    """A history as it is kept: ids, vectors (n, d) and items of the same order, oldest first."""

    capacity: int
    per_item: int
    next_id: int
    faded: dict[ArmId, int]
    ids: list[int]
    vectors: Vector
    items: list[KeptItem]


def _key(vector: Vector) -> bytes:
    data: Any = vector  # which hands its bytes over by itself, in half the time of `vector.data`
    try:
        return blake2b(data, digest_size=KEY).digest()
    except ValueError:  # it does not lie in one piece
        return blake2b(vector.tobytes(), digest_size=KEY).digest()


def _is_anything(vector: Vector) -> bool:
    """Whether a query was embedded: one that was not is near nothing, and all zeros."""
    return bool(vector.size) and bool(vector[0] or vector.any())


def _exchanged(
    told: tuple[T, ...],
    whose: Iterable[tuple[str, Origin]],
    owner: str,
    variant: str,
    after: T,
    is_it: Callable[[T], bool],
) -> tuple[T, ...]:
    """The same with `after` in the place of the latest that is the owner's, came by the same route
    or by none as the variant, and is it.
    """
    mine, of = list(whose), ev.route_label(variant)
    for i in reversed(range(len(told))):
        if mine[i][0] == owner and ev.route_label(mine[i][1][1]) == of and is_it(told[i]):
            return (*told[:i], after, *told[i + 1 :])
    return told


def _staying(origins: tuple[Origin, ...], origin: Origin, most: int) -> Sequence[int]:
    """The positions of what stays when one more comes: `most` with it of its route, or of none."""
    if len(origins) < most:
        return range(len(origins))
    of = ev.route_label(origin[1])
    same = [i for i, one in enumerate(origins) if ev.route_label(one[1]) == of]
    gone = set(same[: max(0, len(same) + 1 - most)])
    return [i for i in range(len(origins)) if i not in gone]


def _outcome(lesson: policies.Rewarded) -> Outcome:
    assert lesson.reward is not None
    return Outcome(lesson.arm, lesson.quality, lesson.reward)


def _comparison(lesson: policies.Compared) -> Comparison:
    return Comparison(lesson.winner, lesson.loser, lesson.tie)


@dataclass
class History:
    """At most `capacity` items, oldest first. O(d) to remember, O(k) to look up neighbours.

    faded: up to which event an arm's outcomes are shown to nobody, since it has changed.
    `_added` and `_removed` tell the index, which is a cache of the vectors, what to catch up on.
    """

    capacity: int
    per_item: int = PER_ITEM
    next_id: int = 1
    faded: dict[ArmId, int] = field(default_factory=dict)
    items: Items = field(default_factory=Items)
    _vectors: Vector = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    _free: list[int] = field(default_factory=list)
    _added: dict[int, None] = field(default_factory=dict)
    _removed: dict[int, None] = field(default_factory=dict)
    _waiting: list[First] | None = field(default=None, compare=False, repr=False)

    @contextmanager
    def in_blocks(self) -> Iterator[None]:
        """While a log is folded, many outcomes are remembered at once.

        Until it ends, only events, `neighbours` and `folded` see what waits: call `catch_up` before
        anything else is asked. What waits when an error ends the fold is not remembered.
        """
        self._waiting = []
        yield
        self.catch_up()
        self._waiting = None

    @takes_lessons
    def _taught(self, _: object, what: Resolved) -> None:
        """What an event teaches is remembered of its query."""
        if what.part:
            self.number(what.number, what.part)
        for lesson in what.lessons:
            if isinstance(lesson, policies.Rewarded):
                self.taught(lesson, what.owner, (what.number, what.variant))
            else:
                self.catch_up()
                self._learn(lesson, what)

    def taught(self, lesson: policies.Rewarded, owner: str, origin: Origin) -> None:
        """An outcome is remembered of its query, at once or together with others."""
        if lesson.reward is None:
            return
        vector, waiting = lesson.context.embedding, self._waiting
        if waiting is None or vector.size != self._vectors.shape[1]:
            self.catch_up()
            self.remember(vector, lesson, owner, origin)
            return
        waiting.append((self.next_id, lesson, owner, origin))
        if len(waiting) >= BLOCK:
            self.catch_up()

    @takes(ev.Forgotten)
    def _forgotten(self, event: ev.Forgotten, _: Resolved) -> None:
        self.forget(event.owner)

    def number(self, event: int, part: int = 0) -> None:
        """Make the ids of what is remembered next from the number of the event.

        So the neighbours that decisions name are the same queries whether or not what was between
        them can still be read.
        """
        self.next_id = event * ITEMS_PER_EVENT + part

    def catch_up(self) -> None:
        """Remember what waits: new queries together, and the others one by one."""
        waiting = self._waiting
        if not waiting:
            return
        self._waiting, next_id, new = [], self.next_id, dict[bytes, First]()
        for put in waiting:
            vector = put[1].context.embedding
            if not _is_anything(vector):
                continue
            key = _key(vector)
            if len(new) < self.capacity and key not in new and self.items.found(key) < 0:
                new[key] = put
                continue
            self._insert_all(new)
            new.clear()
            self.next_id, lesson, owner, origin = put
            self.remember(vector, lesson, owner, origin)
        self._insert_all(new)
        self.next_id = max(self.next_id, next_id)  # there were events since that taught nothing

    def _learn(self, lesson: Lesson, what: Resolved) -> None:
        owner, origin = what.owner, (what.number, what.variant)
        match lesson:
            case Correction():
                vector = lesson.before.context.embedding
                before, after = _outcome(lesson.before), _outcome(lesson.after)
                self.correct(vector, before, after, owner, what.variant)
            case policies.Compared():
                self.remember(lesson.context.embedding, _comparison(lesson), owner, origin)
            case Recompared():
                vector, comparison = lesson.after.context.embedding, _comparison(lesson.after)
                if not self.recompare(vector, comparison, owner, what.variant):
                    self.remember(vector, comparison, owner, origin)
            case Fading(drift=True) if isinstance(what.event, ev.DriftDetected):
                self.faded[lesson.arm] = max(self.faded.get(lesson.arm, 0), what.event.begun)
            case _:
                pass

    def remember(
        self,
        vector: Vector,
        outcome: Outcome | Comparison | policies.Rewarded,
        owner: str = "",
        origin: Origin = (0, ""),
    ) -> None:
        """Add an outcome to the item of this very vector, which is made if it is not there.

        outcome: a lesson that has it will do.
        """
        if not _is_anything(vector):
            return
        key, items, most = _key(vector), self.items, self.per_item
        row = items.found(key)
        if row < 0:
            self._insert(key, vector, outcome, owner, origin)
        elif isinstance(outcome, policies.Rewarded):
            self.remember(vector, _outcome(outcome), owner, origin)
        elif isinstance(outcome, Outcome):
            item = items.at(row)
            kept = _staying(item.origins, origin, most)
            changed = Item(
                item.row,
                item.key,
                (*(item.outcomes[i] for i in kept), outcome),
                item.comparisons,
                (*(item.owners[i] for i in kept), owner),
                item.compared_by,
                (*(item.origins[i] for i in kept), origin),
                item.compared_in,
            )
            self.items.put(changed)
        else:
            item = items.at(row)
            kept = _staying(item.compared_in, origin, most)
            changed = replace(
                item,
                comparisons=(*(item.comparisons[i] for i in kept), outcome),
                compared_by=(*(item.compared_by[i] for i in kept), owner),
                compared_in=(*(item.compared_in[i] for i in kept), origin),
            )
            self.items.put(changed)

    def recompare(
        self, vector: Vector, after: Comparison, owner: str = "", variant: str = ""
    ) -> bool:
        """Put `after` in the place of the owner's latest comparison of these two arms.

        False where none is remembered.
        """
        item, pair = self._item_of(_key(vector)), {after.winner, after.loser}
        if item is None:
            return False
        changed = _exchanged(
            item.comparisons,
            zip(item.compared_by, item.compared_in, strict=True),
            owner,
            variant,
            after,
            lambda one: {one.winner, one.loser} == pair,
        )
        self.items.put(replace(item, comparisons=changed))
        return changed is not item.comparisons

    def correct(
        self,
        vector: Vector,
        before: Outcome,
        after: Outcome,
        owner: str = "",
        variant: str = "",
    ) -> None:
        """Put `after` in the place of `before`, where that is still remembered."""
        item = self._item_of(_key(vector))
        if item is None:
            return
        whose = zip(item.owners, item.origins, strict=True)
        changed = _exchanged(item.outcomes, whose, owner, variant, after, lambda one: one == before)
        self.items.put(replace(item, outcomes=changed))

    def forget(self, owner: str) -> None:
        """Drop all that is `owner`'s, and the queries of which nothing is left then. O(n)."""
        self.catch_up()
        for id in self.items.ids_of(owner):
            item = self.items[id]
            kept = [i for i, one in enumerate(item.owners) if one != owner]
            compared = [i for i, one in enumerate(item.compared_by) if one != owner]
            if kept or compared:
                changed = replace(
                    item,
                    outcomes=tuple(item.outcomes[i] for i in kept),
                    owners=tuple(item.owners[i] for i in kept),
                    comparisons=tuple(item.comparisons[i] for i in compared),
                    compared_by=tuple(item.compared_by[i] for i in compared),
                    origins=tuple(item.origins[i] for i in kept),
                    compared_in=tuple(item.compared_in[i] for i in compared),
                )
                self.items.put(changed)
            else:
                self.items.remove(id)
                self._vectors[item.row] = 0.0  # no copy of it stays behind
                self._free.append(item.row)
                self._note_removed(id)
        if not self.items:
            self._vectors, self._free = self._vectors[:0].copy(), []

    def folded(self) -> KeptHistory:
        """All that is no cache."""
        self.catch_up()
        ids, vectors = self.vectors()
        return KeptHistory(
            self.capacity,
            self.per_item,
            self.next_id,
            self.faded,
            ids.tolist(),
            vectors,
            self.items.kept(),
        )

    @classmethod
    def unfolded(cls, kept: KeptHistory) -> History:
        """The history of which `folded` gave this; ValueError where it is none."""
        made = cls(kept.capacity, kept.per_item, kept.next_id, dict(kept.faded))
        if kept.vectors.ndim != 2 or not len(kept.vectors) == len(kept.items) == len(kept.ids):
            raise ValueError(f"{len(kept.items)} vectors expected, got {kept.vectors.shape}")
        made.items.put_back(kept.ids, kept.items)
        made._vectors = np.asarray(kept.vectors, np.float32)
        return made

    def neighbours(
        self,
        ids: Sequence[int],
        similarities: Sequence[float],
        view: View | OutsideRoutes | None = None,
    ) -> tuple[Neighbour, ...]:
        """The recalled items with their outcomes, as far as `view` shows them.

        Those that have left since, and those of which nothing is shown, are left out.
        """
        self.catch_up()
        found = []
        for id, similarity, told in zip(ids, similarities, self.items.told(ids), strict=True):
            if told is None:
                continue
            outcomes, comparisons = told
            if view is not None or self.faded:
                item = self.items[id]
                outcomes = tuple(
                    one
                    for one, origin in zip(outcomes, item.origins, strict=True)
                    if self._shown(origin, view, one.arm)
                )
                comparisons = tuple(
                    one
                    for one, origin in zip(comparisons, item.compared_in, strict=True)
                    if self._shown(origin, view, one.winner, one.loser)
                )
            if outcomes or comparisons:
                found.append(Neighbour(id, similarity, outcomes, comparisons))
        return tuple(found)

    def vectors(self) -> tuple[NDArray[np.int64], Vector]:
        """All ids and their vectors (n, d), oldest first: what an index is rebuilt from.

        They are not copied where they lie in this order, and are then right until the next change.
        """
        n, rows = len(self.items), self.items.rows()
        if (rows == np.arange(n)).all():
            return self.items.ids(), self._vectors[:n]
        return self.items.ids(), self._vectors[rows]

    def vector(self, id: int) -> Vector:
        """The vector of one item."""
        row: Vector = self._vectors[self.items.row(id)]
        return row

    @property
    def matrix(self) -> Vector:
        """All vectors, each in the row of its item, which an index may read there."""
        return self._vectors

    def row(self, id: int) -> int:
        """The row of one item, which stays its own while it is remembered."""
        return self.items.row(id)

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The row of each of these items."""
        return self.items.rows_of(ids)

    def take_changes(self) -> tuple[list[int], list[int]]:
        """Ids added and removed since the last call, and forget them."""
        if not self._added and not self._removed:
            return [], []
        changes = list(self._added), list(self._removed)
        self._added, self._removed = {}, {}
        return changes

    def _shown(self, origin: Origin, view: View | OutsideRoutes | None, *arms: ArmId) -> bool:
        """Whether an outcome of these arms may be seen."""
        faded = self.faded
        if faded and any(origin[0] <= faded.get(arm, -1) for arm in arms):
            return False
        return view is None or view.shows(origin)

    def _insert(
        self,
        key: bytes,
        vector: Vector,
        first: Outcome | Comparison | policies.Rewarded,
        owner: str,
        origin: Origin,
    ) -> None:
        """An item with what came back first."""
        items, (rows, d), size = self.items, self._vectors.shape, vector.size
        count = len(items)
        if count and d != size:  # before anything leaves for it
            raise ValueError(f"embedding: {size} dimensions, but the history has {d}")
        row = self._row_for(count)
        if row >= rows or d != size:
            self._reserve(row + 1, size)
        id = self.next_id
        self.next_id = id + 1
        self._vectors[row] = vector
        if isinstance(first, Comparison):
            items.add(id, Item(row, key, (), (first,), (), (owner,), (), (origin,)))
        else:
            items.add_first(id, row, key, first, owner, origin)
        self._added[id] = None

    def _insert_all(self, new: Mapping[bytes, First]) -> None:
        """Items with one outcome each, by key, of as many dimensions as there are."""
        if not new:
            return
        count, (there, d) = len(self.items), self._vectors.shape
        rows = [self._row_for(count + i) for i in range(len(new))]
        if max(rows) >= there:
            self._reserve(max(rows) + 1, d)
        self._vectors[rows] = [lesson.context.embedding for _, lesson, _, _ in new.values()]
        self.items.add_firsts(rows, new)
        ids = [id for id, _, _, _ in new.values()]
        self._added.update(dict.fromkeys(ids))
        self.next_id = ids[-1] + 1

    def _row_for(self, count: int) -> int:
        """The row of a new item behind so many: that of the oldest, which leaves for it, or of one
        that left before, or the next.
        """
        if count >= self.capacity:
            return self._evict_oldest()
        return self._free.pop() if self._free else count

    def _evict_oldest(self) -> int:
        oldest, row = self.items.pop_oldest()
        self._note_removed(oldest)
        return row

    def _item_of(self, key: bytes) -> Item | None:
        row = self.items.found(key)
        return self.items.at(row) if row >= 0 else None

    def _note_removed(self, id: int) -> None:
        if id in self._added:
            del self._added[id]  # the index has not heard of it yet
        else:
            self._removed[id] = None

    def _reserve(self, rows: int, d: int) -> None:
        if self._vectors.shape[1] != d:
            self._vectors = np.zeros((0, d), np.float32)
        if rows > self._vectors.shape[0]:
            grown = np.zeros((min(max(2 * rows, 1024), self.capacity), d), np.float32)
            grown[: self._vectors.shape[0]] = self._vectors
            self._vectors = grown
