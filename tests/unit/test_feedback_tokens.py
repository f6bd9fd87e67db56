"""Feedback tokens: what one says, what is none, and secrets that change."""

from __future__ import annotations

import dataclasses
import hmac
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import pytest

from bandit_service import clock, settings
from bandit_service.cli import main
from bandit_service.core.errors import Expired, Forbidden, Refused
from bandit_service.core.feedback import FeedbackTokens, SigningKey
from bandit_service.runtime import feedback
from bandit_service.settings import BadSettings, LogSettings, Settings, digest_of

ID = "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d"
NEW, OLD = (SigningKey.of(letter * 32) for letter in (b"n", b"o"))
TOKENS = FeedbackTokens([NEW, OLD], 60.0)


def _token(tokens: FeedbackTokens = TOKENS, tenant: str = "acme", at: float = 1000.5) -> str:
    return tokens.token(ID, tenant, "", at)


def test_a_token_names_its_decision_its_tenant_and_its_end_and_fits_into_a_header() -> None:
    token = _token()
    assert len(token) == 67
    claim = TOKENS.read(token, 1060.9)
    assert (claim.decision_id, claim.expires) == (ID, 1061.0)
    assert claim.is_of("acme")
    assert not claim.is_of("")
    assert not claim.is_of("globex")
    with pytest.raises(Expired, match="1970-01-01 00:17:41 UTC"):
        TOKENS.read(token, 1061.0)


@pytest.mark.parametrize("length", [32, 63, 64, 65, 200])
def test_the_mac_of_a_secret_of_any_length_is_hmac_sha_256(length: int) -> None:
    key = SigningKey.of(b"s" * length)
    assert key.mac(b"said") == hmac.digest(key.secret, b"said", "sha256")[:16]


def test_no_bit_of_a_token_may_be_another() -> None:
    token = _token()
    raw = urlsafe_b64decode(token + "=")
    for i in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[i // 8] ^= 1 << i % 8
        with pytest.raises((Forbidden, Refused)):
            TOKENS.read(urlsafe_b64encode(changed).rstrip(b"=").decode(), 1001.0)


@pytest.mark.parametrize(
    "text", ["", "x", "x" * 67, "é" * 67, "=" * 67, "\x00" * 67, "A" * 10_000, "-" * 68]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="token: not a valid feedback token"):
        TOKENS.read(text, 0.0)


def test_a_token_has_one_spelling() -> None:
    """The last character has two bits that no byte needs; decoders pass over them."""
    token = _token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    assert urlsafe_b64decode(other + "=") == urlsafe_b64decode(token + "=")
    with pytest.raises(Refused):
        TOKENS.read(other, 1001.0)


def test_an_old_secret_verifies_and_does_not_sign() -> None:
    before = FeedbackTokens([OLD], 60.0)
    assert TOKENS.read(_token(before), 1001.0).decision_id == ID
    with pytest.raises(Forbidden):
        before.read(_token(), 1001.0)


def test_a_token_is_for_whoever_may_reward_the_decision_anyway() -> None:
    tokens = FeedbackTokens([NEW], 60.0, frozenset({"app"}))
    assert tokens.token(ID, "", "app", 0.0)
    assert tokens.token(ID, "", "reader", 0.0) == ""
    assert FeedbackTokens([NEW], 0.0).token(ID, "", "app", 0.0) == ""


def test_no_text_of_a_secret_is_shown() -> None:
    assert "nnnn" not in repr(TOKENS)
    secret = "s3cret" * 6
    read = settings.read(
        None, {"BANDIT_FEEDBACK_SECRET_ENV": "MINE", "MINE": f"{secret} {'o' * 32}"}
    )
    assert read.feedback_secrets == (secret, "o" * 32)
    assert secret not in repr(read)
    other = settings.read(None, {"BANDIT_FEEDBACK_SECRET_ENV": "MINE", "MINE": "x" * 32})
    assert digest_of(other) == digest_of(read)
    assert feedback.open_feedback(read).tokens.keys[1] == SigningKey.of(b"o" * 32)


def test_what_is_wrong_with_the_environments_secrets_is_told_without_them() -> None:
    for value, wrong in (
        ("", "MINE is empty in"),
        ("short", "secret 1 of MINE must have at least 32"),
    ):
        with pytest.raises(BadSettings, match=wrong) as refused:
            settings.read(None, {"BANDIT_FEEDBACK_SECRET_ENV": "MINE", "MINE": value})
        assert "short" not in str(refused.value)


def test_the_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    chosen = Settings(data_dir=str(tmp_path / "var"))
    first = feedback.open_feedback(chosen).tokens
    path = tmp_path / "var" / feedback.NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert feedback.open_feedback(chosen).tokens == first
    path.chmod(0o644)
    with pytest.raises(BadSettings, match="other users can read or write it; chmod 600"):
        feedback.open_feedback(chosen)


def test_where_processes_share_a_log_only_a_shared_secret_makes_tokens(tmp_path: Path) -> None:
    chosen = Settings(data_dir=str(tmp_path), log=LogSettings(engine="postgres"))
    assert not feedback.open_feedback(chosen).tokens.keys
    assert list(tmp_path.iterdir()) == []
    shared = dataclasses.replace(chosen, feedback_secrets=("s" * 32,))
    assert feedback.open_feedback(shared).tokens.keys == (SigningKey.of(b"s" * 32),)


@pytest.mark.parametrize("text", ["", "# nothing\n", "2026-01-01T00:00:00+00:00 abc\n", "x\n"])
def test_a_file_without_secrets_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / feedback.NAME
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(BadSettings, match=r"feedback.secret: (line 1 must|must have 1 to 32)"):
        feedback.open_feedback(Settings(data_dir=str(tmp_path)))


def test_a_running_service_takes_the_new_secret_and_keeps_the_old_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(feedback, "LOOK_S", 0.0)
    monkeypatch.setenv("BANDIT_DATA_DIR", str(tmp_path))
    running = feedback.open_feedback(settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path)}))
    token = _token(running.tokens)
    assert main(["keys", "rotate-feedback"]) == 0
    assert "a new secret signs; 1 older are still good" in capsys.readouterr().out
    assert len(running.tokens.keys) == 2
    assert running.tokens.keys[1] == SigningKey.of(
        (tmp_path / feedback.NAME).read_text().split()[-1].encode()
    )
    assert running.tokens.read(token, 1001.0).decision_id == ID
    assert _token(running.tokens) != token
    (tmp_path / feedback.NAME).write_text("broken")
    assert len(running.tokens.keys) == 2  # what was there goes on


def test_a_secret_is_dropped_when_no_token_of_it_can_be_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / feedback.NAME, 1_000_000.0
    counts = []
    for later in (0.0, 10.0, 20.0, 130.0):
        monkeypatch.setattr(clock, "now", lambda later=later: now + later)
        counts.append(feedback.rotate(path, 100.0))
    # at 130 s the first two were replaced 120 and 110 s ago, the third signed until now
    assert counts == [1, 2, 3, 2]
    assert [each.name for each in tmp_path.iterdir()] == [feedback.NAME]
