"""What is kept of questions and answers: redacted, encrypted, bounded, and gone when it must be."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import stat
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.core.errors import Unavailable
from bandit_service.runtime import texts as keeping
from bandit_service.runtime.bounded_child import NoAnswer
from bandit_service.runtime.redaction import MAX_CHARS, Redaction, redacted
from bandit_service.runtime.supervisor import Supervisor
from bandit_service.runtime.text_store import OtherKey, Text, TextStore
from bandit_service.runtime.texts import Texts
from bandit_service.settings.texts import RULES, new_key
from store import StoreError

ONE, TWO = (base64.urlsafe_b64decode(new_key()) for _ in range(2))
ALL = tuple(RULES)


@pytest.fixture(autouse=True)
def _patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits until all is written, however busy the machine is."""
    monkeypatch.setattr(keeping, "_READ_S", 60.0)


# --- redaction --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mail a.b+c@mail.example.org now", "mail [email] now"),
        ("card 4111 1111 1111 1111, or 4111111111111111.", "card [card], or [card]."),
        ("IBAN DE89 3704 0044 0532 0130 00!", "IBAN [iban]!"),
        ("call +49 (30) 901820-0 or 030-901820", "call [phone] or [phone]"),
        ("from 192.168.0.17 to 2001:db8:0:0:0:0:0:1", "from [ip] to [ip]"),
        ("key sk-proj-abcdefghijklmnop and ghp_" + "a" * 30, "key [secret] and [secret]"),
        ("bs_" + "Ab1-" * 8, "[secret]"),
        (
            "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b",
            "a [secret] b",
        ),
        ("from 2001:db8::1 or fe80::1%eth0, a::b", "from [ip] or [ip]%eth0, a::b"),
        # behind a line break as JSON writes it, or a sign as a URL does
        (r"a\nsk-proj-abcdefghijklmnop\tAKIAABCDEFGHIJKLMNOP", r"a\n[secret]\t[secret]"),
        (r"a\n4111 1111 1111 1111\u000a192.168.0.17", r"a\n[card]\u000a[ip]"),
        (r"a\nDE89370400440532013000", r"a\n[iban]"),
        ("key%3Dsk-proj-abcdefghijklmnop", "key%3D[secret]"),
        ("in 2026 we had 1,234 of 17 * 23", "in 2026 we had 1,234 of 17 * 23"),
    ],
)
def test_what_is_personal_or_secret_is_taken_out(text: str, kept: str) -> None:
    assert redacted(text, ALL, ()) == (kept, kept.count("["))


def test_patterns_of_the_operator_go_first() -> None:
    assert redacted("ticket 4711-a@b.cc", ALL, (r"\b4711-\S+",)) == ("ticket [redacted]", 1)
    assert redacted("a@b.cc", (), ()) == ("a@b.cc", 0)


async def test_a_pattern_that_takes_too_long_is_given_up_and_the_next_text_is_redacted() -> None:
    child = Redaction(ALL, (r"^(a+)+$",), 0.2)
    try:
        with pytest.raises(NoAnswer, match="timeout"):
            await child.of("a" * 60 + "!")
        found = await child.of("a@b.cc", "x" * (MAX_CHARS + 1))
    finally:
        await child.close()
    assert (found.texts[0], found.places, len(found.texts[1])) == ("[email]", 1, MAX_CHARS)


# --- the file ---------------------------------------------------------------------------------
def _store(tmp_path: Path, *keys: bytes) -> TextStore:
    return TextStore(tmp_path / "texts.sqlite3", keys or (ONE,))


def _has(store: TextStore, id: str) -> bool:
    return store.get(id, 0.0) is not None


def _raw(tmp_path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in tmp_path.iterdir())


def test_it_is_encrypted_and_its_owner_alone_may_read_the_file(tmp_path: Path) -> None:
    store = _store(tmp_path)
    text = Text(question="What is in the parcel?", answer="A bomb-shaped cake.", redacted=1)
    store.put("d", 5.0, "owner", text)
    assert store.get("d", 0.0) == (5.0, text)
    store.close()
    assert b"parcel" not in _raw(tmp_path)
    assert b"cake" not in _raw(tmp_path)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_the_first_key_encrypts_and_all_decrypt(tmp_path: Path) -> None:
    store = _store(tmp_path, ONE)
    store.put("old", 1.0, "", Text(question="old"))
    store.close()
    store = _store(tmp_path, TWO, ONE)
    store.put("new", 1.0, "", Text(question="new"), 7)
    assert [store.get(id, 0.0) for id in ("old", "new")] == [
        (1.0, Text(question="old")),
        (1.0, Text(question="new")),
    ]
    store.close()
    store = _store(tmp_path, TWO)
    assert store.of_events([7], 0.0) == {7: Text(question="new")}
    with pytest.raises(OtherKey):
        store.get("old", 0.0)
    store.close()


def test_a_text_cannot_be_given_to_another_decision(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.put("a", 1.0, "", Text(question="mine"))
    store.close()
    with sqlite3.connect(tmp_path / "texts.sqlite3") as file:
        file.execute("UPDATE texts SET id = 'b'")
    file.close()
    store = _store(tmp_path)
    with pytest.raises(OtherKey):
        store.get("b", 0.0)
    store.close()


def test_a_unit_old_texts_and_too_many_go(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for i in range(6):
        store.put(f"d{i}", float(i), "u" if i % 2 else "", Text(question="x"))
    store.remembered("d4", 9)
    store.remembered("d4", 10)  # by the first event
    assert set(store.of_events([9, 10], 0.0)) == {9}
    assert store.of_events([9], 4.5) == {}
    assert store.get("d2", 2.5) is None, "it is older than what is kept"
    assert store.forget("u") == 3
    assert store.trim(1.0, 100) == 1
    assert store.trim(1.0, 1) == 1
    assert [_has(store, f"d{i}") for i in range(6)] == [False] * 4 + [True, False]
    store.put("a", 9.0, "u", Text(question="x"))
    store.put("b", 9.0, "u", Text(question="x"))
    assert store.forget_unless(lambda id: id == "b") == 1
    assert [_has(store, id) for id in ("a", "b", "d4")] == [False, True, True]
    store.close()


# --- what keeps them --------------------------------------------------------------------------
def _writer(now: float = 100.0) -> Any:
    """What texts need of a writer, of a world with the decisions a and b."""
    world = SimpleNamespace(pending=SimpleNamespace(decisions={"a": None, "b": None}))
    tasks = Supervisor(lambda _: None, lambda *_: None)
    return SimpleNamespace(
        world=world, tasks=tasks, now=lambda: now, listen=lambda *_: None, shared=False
    )


def _decided(id: str) -> Any:
    return SimpleNamespace(id=id, ts=100.0, tenant="", unit="")


def _chosen(**fields: Any) -> settings.TextsSettings:
    return settings.TextsSettings(**{"keep": "both", "ttl_s": 60.0, **fields})


async def _until(done: Any) -> None:
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.005)


async def test_what_is_too_old_goes_without_a_further_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_TRIM_S", 0.001)
    store = _store(tmp_path)
    texts = Texts(_writer(), store, _chosen(), lambda _: None)
    await texts.start()
    try:
        store.put("a", 39.0, "", Text(question="x"))
        store.put("b", 41.0, "", Text(question="x"))
        await _until(lambda: not _has(store, "a"))
        assert _has(store, "b")
    finally:
        await texts.close()


async def test_what_waits_has_a_bounded_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counter[str]()
    texts = Texts(_writer(), _store(tmp_path), _chosen(), lambda how: counted.update([how]))
    monkeypatch.setattr(keeping, "_MAX_CHARS_WAITING", MAX_CHARS + 10)
    texts.note(_decided("a"), "x" * (3 * MAX_CHARS))  # of which the beginning waits
    texts.note(_decided("b"), "x" * 6, "y" * 5)
    assert counted == {"dropped": 1}
    await texts.start()
    try:
        found = await texts.of("a")
        assert found is not None
        assert found[1].cut
        texts.note(_decided("b"), "x" * 6, "y" * 5)  # there is room again
        found = await texts.of("b")
        assert found is not None
        assert found[1] == Text(question="x" * 6, answer="y" * 5)
    finally:
        await texts.close()


async def test_what_was_made_of_texts_is_dropped_at_once_though_others_wait(
    tmp_path: Path,
) -> None:
    texts = Texts(_writer(), _store(tmp_path), _chosen(), lambda _: None)
    dropped: list[str] = []
    texts.beside.append(lambda: dropped.append("topics"))
    texts.note(_decided("a"), "of somebody else")
    what = SimpleNamespace(event=ev.Forgotten(ts=1.0, owner="of the unit"))
    texts.heard(what, SimpleNamespace())  # type: ignore[arg-type]
    assert dropped == ["topics"]
    await texts.close_store()


async def test_of_a_long_conversation_the_last_message_is_kept(tmp_path: Path) -> None:
    texts = Texts(_writer(), _store(tmp_path), _chosen(max_chars=40), lambda _: None)
    await texts.start()
    try:
        for said in ("x" * 50, "x" * (2 * MAX_CHARS)):
            texts.note(_decided("a"), f"system: {said}\nuser: Why?", "Because.")
            found = await texts.of("a")
            assert found is not None
            text = found[1]
            assert text.question == "system: xxxxxxxxx\n[...]\nxxxxx\nuser: Why?"
            assert (len(text.question), text.answer, text.cut) == (40, "Because.", True)
    finally:
        await texts.close()


@pytest.mark.parametrize("most", [1, 7, 8, 9, 10, 49, 50, 51])
def test_what_is_kept_is_never_longer(most: int) -> None:
    assert len(keeping.shortened("x" * 50, most)) == min(most, 50)


async def test_readers_push_no_text_out_of_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counter[str]()
    texts = Texts(_writer(), _store(tmp_path), _chosen(), lambda how: counted.update([how]))
    monkeypatch.setattr(keeping, "_MAX_WAITING", 2)
    monkeypatch.setattr(keeping, "_READ_S", 0.001)
    texts.note(_decided("a"), "x")
    for _ in range(3):  # while nothing is written
        assert not await texts.has("a")
    texts.note(_decided("b"), "y")
    monkeypatch.setattr(keeping, "_READ_S", 60.0)
    await texts.start()
    try:
        assert await texts.has("a")
        assert await texts.has("b")
        assert counted == {"stored": 2}
    finally:
        await texts.close()


async def test_a_text_under_a_key_that_is_gone_is_not_there_to_read(tmp_path: Path) -> None:
    store = _store(tmp_path, ONE)
    store.put("a", 100.0, "", Text(question="x"))
    store.close()
    texts = Texts(_writer(), _store(tmp_path, TWO), _chosen(), lambda _: None)
    await texts.start()
    try:
        assert not await texts.has("a")
        with pytest.raises(OtherKey):
            await texts.of("a")
    finally:
        await texts.close()


def _unwritable(tmp_path: Path) -> TextStore:
    """As on a disk that is full: what is there can be read."""
    store = _store(tmp_path)
    store.put("a", 100.0, "u", Text(question="x"))
    store.put("gone", 100.0, "u", Text(question="x"))
    store._file.execute("PRAGMA query_only = ON")
    return store


async def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    store = _unwritable(tmp_path)
    counted = Counter[str]()
    texts = Texts(_writer(), store, _chosen(), lambda how: counted.update([how]))
    with pytest.raises(Unavailable, match="the file of texts cannot be used"):
        await texts.start()
    store._file.execute("PRAGMA query_only = OFF")
    await texts.start()
    try:
        assert not _has(store, "gone")
        store._file.execute("PRAGMA query_only = ON")
        with pytest.raises(Unavailable):
            await texts.forget("u")
        texts.note(_decided("b"), "x")
        assert await texts.of("b") is None
        assert counted == {"failed": 1}
        store._file.execute("PRAGMA query_only = OFF")
        texts.note(_decided("b"), "x")
        assert await texts.of("b") is not None
    finally:
        await texts.close()


async def test_off_leaves_no_journal_that_the_next_file_would_get(tmp_path: Path) -> None:
    none: Any = None
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path)})
    for name in (assembly.TEXTS, f"{assembly.TEXTS}-journal"):
        (tmp_path / name).write_bytes(b"x")
    assert await assembly.open_texts(none, none, none, chosen) is None
    assert _raw(tmp_path) == b""


async def test_a_start_says_which_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"BANDIT_TEXTS_KEEP": "both", "BANDIT_TEXTS_KEY_ENV": "K", "K": new_key()}
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path), **environ})
    monkeypatch.setattr(assembly, "TextStore", lambda *_: _unwritable(tmp_path))
    router: Any = SimpleNamespace(writer=_writer())
    telemetry: Any = SimpleNamespace(metrics=SimpleNamespace(texts=None))
    with pytest.raises(StoreError, match=r"texts\.sqlite3: the file of texts cannot be used"):
        await assembly.open_texts(router, telemetry, telemetry, chosen)


# --- the settings -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('keep = "both"', "texts.key_env: to keep texts takes this or texts.key_file"),
        ('keep = "both"\nkey_env = "NOT_SET"', "texts.key_env: there is no NOT_SET"),
        ('keep = "both"\nkey_env = "SHORT"', "texts.key_env: must be keys of 32 bytes in base64"),
        ('keep = "both"\nkey_file = "none"', "none cannot be read"),
        ('keep = "all"', "texts.keep: "),
        ('redact = ["mail"]', "texts.redact: no rule 'mail'"),
        ('patterns = ["("]', "texts.patterns[0]: not a regular expression"),
        ('patterns = ["a*"]', "texts.patterns[0]: matches the empty text"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, toml: str, said: str) -> None:
    file = tmp_path / "bandit.toml"
    file.write_text(f"[texts]\n{toml}\n")
    with pytest.raises(settings.BadSettings) as refused:
        settings.read(file, {"SHORT": "c2hvcnQ="})
    (mistake,) = refused.value.mistakes
    assert said in mistake
    assert "c2hvcnQ" not in mistake


def test_keys_come_from_a_variable_or_a_file_and_are_in_no_text(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    file = tmp_path / "bandit.toml"
    (tmp_path / "keys").write_text(f"{first}\n{second}\n")
    for said in ('key_env = "KEYS"', 'key_file = "keys"'):
        file.write_text(f'[texts]\nkeep = "questions"\n{said}\n')
        chosen = settings.read(file, {"KEYS": f"{first} {second}"})
        assert [base64.urlsafe_b64encode(key).decode() for key in chosen.texts_keys] == [
            first,
            second,
        ]
        assert first not in repr(chosen)
        assert repr(chosen.texts_keys[0]) not in repr(chosen)
