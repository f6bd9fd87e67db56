"""SqliteLog does what MemoryLog does, in any order of calls and however often it is opened."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from store import Duplicate, Offset, Record, Trimmed
from store.memory import MemoryLog
from store.sqlite import SqliteLog

_OWNERS = st.sampled_from(["", "ann", "bob", "cy"])
_SIZES = st.sampled_from([1, 3, 4, 5, 40, 700, 5000, 20_000])


class Logs(RuleBasedStateMachine):
    """Both get the same calls and must give the same answers."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "events.db"
        self.log = SqliteLog(self.path)
        self.model = MemoryLog()
        self.made = 0

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.directory)

    def _new(self, owner: str, size: int) -> Record:
        self.made += 1
        body = (b"<%d>" % self.made * size)[:size]
        return Record(f"e{self.made}", "reward", self.made / 4, body, owner)

    @rule(batch=st.lists(st.tuples(_OWNERS, _SIZES), max_size=20), repeat=st.integers(1, 40))
    def append(self, batch: list[tuple[str, int]], repeat: int) -> None:
        new = [self._new(owner, size) for owner, size in batch[:repeat] * repeat]
        assert self.log.append(new) == self.model.append(new)

    @rule(data=st.data())
    def append_one_that_is_there(self, data: st.DataObject) -> None:
        if self.log.first > self.log.last:
            return
        at = data.draw(st.integers(self.log.first, self.log.last))
        batch = [self._new("ann", 5), Record(f"e{self._eid(at)}", "reward", 0.0, b"x")]
        for log in (self.log, self.model):
            with pytest.raises(Duplicate):
                log.append(batch)

    def _eid(self, at: int) -> str:
        return self.model._records[at - self.model.first].eid[1:]

    @rule()
    def sync(self) -> None:
        assert self.log.sync() == self.model.sync()

    @rule(back=st.integers(-5, 300), most=st.sampled_from([1, 7, 100, 1000]))
    def trim(self, back: int, most: int) -> None:
        upto = Offset(max(0, self.log.last - back))
        assert self.log.trim(upto, most) == self.model.trim(upto, most)

    @rule(owner=_OWNERS.filter(bool), back=st.integers(-5, 300))
    def forget(self, owner: str, back: int) -> None:
        upto = Offset(max(0, self.log.last - back))
        assert self.log.forget(owner, upto) == self.model.forget(owner, upto)

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = SqliteLog(self.path)

    @rule(data=st.data())
    def replay_some(self, data: st.DataObject) -> None:
        after = Offset(data.draw(st.integers(0, self.log.last)))
        if after < self.log.first - 1:
            for log in (self.log, self.model):
                with pytest.raises(Trimmed):
                    next(log.replay(after))
        else:
            assert list(self.log.replay(after)) == list(self.model.replay(after))

    @rule(ts=st.floats(-1, 500))
    def find(self, ts: float) -> None:
        assert self.log.offset_at(ts) == self.model.offset_at(ts)

    @invariant()
    def is_the_same(self) -> None:
        assert (self.log.first, self.log.last) == (self.model.first, self.model.last)
        assert list(self.log.replay(Offset(self.log.first - 1))) == list(
            self.model.replay(Offset(self.model.first - 1))
        )


TestLogs = Logs.TestCase
TestLogs.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
