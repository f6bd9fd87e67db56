"""What every Snapshots must do. Subclass `SnapshotsSuite`, say how to make one, and run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import Offset, Snapshots


class SnapshotsSuite:
    """A cache: the newest of each key, and what it gives back is what was given."""

    def make(self, path: Path) -> Snapshots:
        """An empty one; may keep files in the directory `path`."""
        raise NotImplementedError

    @pytest.fixture
    def snapshots(self, tmp_path: Path) -> Snapshots:
        return self.make(tmp_path / "snapshots")

    def test_has_none_at_first(self, snapshots: Snapshots) -> None:
        assert snapshots.latest("world") is None

    def test_gives_the_newest(self, snapshots: Snapshots) -> None:
        for at in range(1, 20):
            snapshots.save(Offset(at), "world", b"state %d" % at)
            assert snapshots.latest("world") == (at, b"state %d" % at)

    def test_an_older_one_does_not_replace_it(self, snapshots: Snapshots) -> None:
        snapshots.save(Offset(9), "world", b"new")
        snapshots.save(Offset(3), "world", b"old")
        assert snapshots.latest("world") == (9, b"new")

    def test_the_same_offset_replaces(self, snapshots: Snapshots) -> None:
        snapshots.save(Offset(9), "world", b"first")
        snapshots.save(Offset(9), "world", b"second")
        assert snapshots.latest("world") == (9, b"second")

    def test_keys_are_apart(self, snapshots: Snapshots) -> None:
        snapshots.save(Offset(1), "a", b"a")
        snapshots.save(Offset(2), "b", b"b")
        assert snapshots.latest("a") == (1, b"a")
        assert snapshots.latest("b") == (2, b"b")
        assert snapshots.latest("c") is None

    @pytest.mark.parametrize(
        "key", ["", "a/b", "../a", "é", "a b", "a_b", "x" * 300, "a\0b", "a\n", "-", "."]
    )
    def test_takes_any_key(self, snapshots: Snapshots, key: str) -> None:
        snapshots.save(Offset(1), key, b"its")
        snapshots.save(Offset(2), key + "x", b"other")
        assert snapshots.latest(key) == (1, b"its")

    def test_forgets_what_is_older(self, snapshots: Snapshots) -> None:
        for at in (1, 5):
            snapshots.save(Offset(at), "a", b"a")
        snapshots.save(Offset(4), "b", b"b")
        snapshots.forget(Offset(5))
        assert snapshots.latest("a") == (5, b"a")
        assert snapshots.latest("b") is None
        snapshots.forget(Offset(6))
        assert snapshots.latest("a") is None

    @pytest.mark.parametrize("state", [b"", b"\0", bytes(range(256)), b"x" * 3_000_000])
    def test_gives_back_any_bytes(self, snapshots: Snapshots, state: bytes) -> None:
        snapshots.save(Offset(0), "", state)
        assert snapshots.latest("") == (0, state)
