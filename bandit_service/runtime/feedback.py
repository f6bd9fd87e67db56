"""The secrets that sign feedback tokens: in a file of the data directory, or from the environment.

Each line of the file is a secret, newest first: its time of creation, and 64 hex digits. The first
one signs; the others stay valid until the tokens that they signed have expired. A running service
checks every few seconds whether the file has changed.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bandit_service import clock
from bandit_service.core import events as ev
from bandit_service.core.feedback import FeedbackTokens, SigningKey
from bandit_service.parsing.inputs import text_of
from bandit_service.settings import BadSettings, Settings
from bandit_service.settings.keys import ApiKey

NAME = "feedback.secret"
MAX_SECRETS = 32
LOOK_S = 10.0
_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_log = logging.getLogger("bandit.feedback")
_Line = tuple[datetime, str]


class Feedback:
    """The tokens of a running service.

    path: the file of the secrets, None if they come from the environment.
    """

    def __init__(self, tokens: FeedbackTokens, path: Path | None = None) -> None:
        self._tokens, self._path = tokens, path
        self._seen = None if path is None else _mark(path)
        self._look_at = time.monotonic() + LOOK_S

    @staticmethod
    def none() -> Feedback:
        """For a service that makes no tokens."""
        return Feedback(FeedbackTokens())

    @property
    def tokens(self) -> FeedbackTokens:
        """Those of the present secrets."""
        if self._path is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._look(self._path)
        return self._tokens

    def delegate(self, keys: Sequence[ApiKey]) -> None:
        """Make tokens for the decisions of keys that may reward; of all where there is no key."""
        self._tokens = replace(self._tokens, delegates=_delegates(keys))

    def token(self, decided: ev.Decided) -> str:
        """The token of a decision; "" if it gets none."""
        return self.tokens.token(decided.id, decided.tenant, decided.caller, decided.ts)

    def _look(self, path: Path) -> None:
        if (mark := _mark(path)) == self._seen:
            return
        self._seen = mark
        try:
            self._tokens = replace(self._tokens, keys=_keys([one for _, one in _read(path)]))
        except (OSError, ValueError) as error:  # the earlier secrets stay in use
            _log.error("feedback secrets not read", extra={"file": str(path), "why": str(error)})
        else:
            _log.info("feedback secrets read", extra={"secrets": len(self._tokens.keys)})


def open_feedback(settings: Settings) -> Feedback:
    """The tokens by these settings; a missing file is created if the settings need one.

    If several processes share a log, the secrets must come from the environment: another process
    does not have this one's file, and would refuse its users' votes. Raises BadSettings for a file
    that others may read, or that has no secrets.
    """
    chosen = settings.feedback
    if chosen.ttl_s <= 0.0:
        return Feedback.none()
    delegates = _delegates(settings.keys)
    path, found = None, settings.feedback_secrets
    if not found and settings.log.shared:
        _log.warning("no feedback tokens: a shared log needs feedback.secret_env")
        return Feedback.none()
    if not found:
        path = Path(settings.data_dir) / NAME
        try:
            if not path.exists():
                _write(path, [_fresh()])
            found = tuple(one for _, one in _read(path))
        except (OSError, ValueError) as error:
            raise BadSettings([f"data_dir: {path}: {error}"]) from None
    return Feedback(FeedbackTokens(_keys(found), chosen.ttl_s, delegates), path)


def _delegates(keys: Sequence[ApiKey]) -> Collection[str] | None:
    return frozenset(key.id for key in keys if "reward" in key.scopes) if keys else None


def rotate(path: Path, ttl_s: float) -> int:
    """Put a new secret first into the file; returns how many there are now.

    A secret is dropped when no token that it signed can be valid any more, by the present ttl_s.
    Raises OSError, or ValueError if the file does not contain secrets.
    """
    before = _read(path) if path.exists() else []
    now, fresh = datetime.fromtimestamp(clock.now(), UTC), _fresh()
    kept, replaced_at = [fresh], now
    for made, secret in before:
        if now - replaced_at <= timedelta(seconds=ttl_s):
            kept.append((made, secret))
        replaced_at = made
    del kept[MAX_SECRETS:]
    _write(path, kept)
    return len(kept)


def _fresh() -> _Line:
    return datetime.fromtimestamp(clock.now(), UTC).replace(microsecond=0), secrets.token_hex(
        _BYTES
    )


def _keys(found: Sequence[str]) -> tuple[SigningKey, ...]:
    return tuple(SigningKey.of(one.encode()) for one in found)


def _mark(path: Path) -> tuple[int, int] | None:
    """A mark that changes when the file is replaced; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read(path: Path) -> list[_Line]:
    """The secrets, newest first. No error message contains any part of one."""
    if path.stat().st_mode & _OTHERS:
        raise ValueError("other users can read or write it; chmod 600 it, and rotate the secret")
    found: list[_Line] = []
    for i, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        made, _, secret = line.strip().partition(" ")
        try:
            at = datetime.fromisoformat(made)
            whole = len(bytes.fromhex(secret)) >= _BYTES and at.tzinfo is not None
        except ValueError:
            whole = False
        if not whole:
            raise ValueError(
                f"line {i} must be a time and at least {2 * _BYTES} hex digits, as "
                "`bandit-service keys rotate-feedback` writes it"
            )
        found.append((at, secret))
    if not 0 < len(found) <= MAX_SECRETS:
        raise ValueError(f"must have 1 to {MAX_SECRETS} secrets, got {len(found)}")
    return found


def _write(path: Path, lines: Sequence[_Line]) -> None:
    """Write the whole file or nothing, readable only by its owner from the first moment."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    text = "# secrets of feedback tokens, newest first; the first one signs\n"
    text += "".join(f"{made.isoformat()} {secret}\n" for made, secret in lines)
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w", encoding="ascii") as open_file:
            open_file.write(text)
            open_file.flush()
            os.fsync(open_file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
