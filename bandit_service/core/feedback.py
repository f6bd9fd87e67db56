"""Feedback tokens: a signed right to vote on one decision, until a time. Pure.

A token is 50 bytes in URL-safe base64: version (1), id of the signing key (4), expiry in seconds
since the epoch (5), the decision's UUID (16), a hash of its tenant (8), and of all these an
HMAC-SHA-256 cut to 128 bits (16). Whoever holds it may vote on that decision and nothing else.
"""

from __future__ import annotations

import hmac
import math
from base64 import urlsafe_b64decode
from binascii import Error, b2a_base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING
from uuid import UUID

from bandit_service.core.errors import Expired, Forbidden, Refused

if TYPE_CHECKING:
    from hashlib import _Hash

VOTES: Mapping[str, float | None] = {"up": 1.0, "down": 0.0, "neutral": None}
"""What a vote says of the quality; neutral takes an earlier vote back."""

MIN_SECRET = 32
"""Bytes of a secret, at least: so many has the hash."""

_VERSION = 1
_LENGTHS = (1, 4, 5, 16, 8)
_MAC, _SIZE = 16, sum(_LENGTHS) + 16
_LATEST = 2.0**40 - 1.0
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_BLOCK = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret with the id by which tokens name it."""

    secret: bytes = field(repr=False)
    id: bytes
    _inner: _Hash = field(init=False, repr=False, compare=False)
    _outer: _Hash = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Hash the secret once: of a MAC it is the greater part (RFC 2104, section 4)."""
        key = self.secret if len(self.secret) <= _BLOCK else sha256(self.secret).digest()
        key = key.ljust(_BLOCK, b"\0")
        object.__setattr__(self, "_inner", sha256(key.translate(_INNER)))
        object.__setattr__(self, "_outer", sha256(key.translate(_OUTER)))

    @staticmethod
    def of(secret: bytes) -> SigningKey:
        """The key of a secret; its id tells nothing of it."""
        if len(secret) < MIN_SECRET:
            raise ValueError(f"a secret must have at least {MIN_SECRET} bytes, got {len(secret)}")
        return SigningKey(secret, sha256(b"bandit feedback key" + secret).digest()[:4])

    def mac(self, body: bytes) -> bytes:
        """HMAC-SHA-256, cut.

        >>> key = SigningKey.of(bytes(32))
        >>> key.mac(b"a") == hmac.digest(key.secret, b"a", "sha256")[:16]
        True
        """
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()[:_MAC]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a token that is in order says. tenant: a hash of the decision's tenant."""

    decision_id: str
    expires: float
    tenant: bytes

    def is_of(self, tenant: str) -> bool:
        """Whether it was made for a decision of this tenant."""
        return hmac.compare_digest(self.tenant, _tenant_hash(tenant))


@dataclass(frozen=True, slots=True)
class FeedbackTokens:
    """Makes and reads tokens. keys: the first one signs, and the others are still good.

    ttl_s: how long a token is good; 0 makes none. delegates: ids of the API keys whose decisions
    get tokens, since they may reward these decisions themselves; None for everybody.
    """

    keys: Sequence[SigningKey] = ()
    ttl_s: float = 0.0
    delegates: Collection[str] | None = None

    def token(self, decision_id: str, tenant: str, caller: str, decided_at: float) -> str:
        """The token of one decision; "" where it gets none."""
        if not self.keys or self.ttl_s <= 0.0:
            return ""
        if self.delegates is not None and caller not in self.delegates:
            return ""
        key, expires = self.keys[0], min(_LATEST, math.ceil(decided_at + self.ttl_s))
        id = bytes.fromhex(decision_id.replace("-", ""))
        body = _beginning(key.id, int(expires)) + id + _tenant_hash(tenant)
        return _spelled(body + key.mac(body))

    def read(self, token: str, now: float) -> Claim:
        """What a token claims. Refused for none, Forbidden for one not signed here, Expired."""
        parts = _parts(token)
        key = next((key for key in self.keys if key.id == parts[1]), None)
        body, mac = b"".join(parts[:-1]), parts[-1]
        if key is None or not hmac.compare_digest(key.mac(body), mac):
            raise Forbidden(
                "token: it was not made by this service, was changed, or its secret is gone",
                param="token",
                reason="token",
            )
        expires = float(int.from_bytes(parts[2], "big"))
        if now >= expires:
            at = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            raise Expired(f"token: it expired at {at}", param="token")
        return Claim(str(UUID(bytes=parts[3])), expires, parts[4])


def decision_of(token: str) -> str | None:
    """The decision that a token names, which nobody has checked; None where it is no token."""
    try:
        return str(UUID(bytes=_parts(token)[3]))
    except Refused:
        return None


def _parts(token: str) -> tuple[bytes, ...]:
    raw = b""
    if token.isascii() and len(token) == math.ceil(_SIZE * 4 / 3):
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (Error, ValueError):
            raw = b""
    # one token has one spelling, so that what is counted by token cannot be counted anew
    if len(raw) != _SIZE or raw[0] != _VERSION or _spelled(raw) != token:
        raise Refused("token: not a valid feedback token", param="token")
    found, at = [], 0
    for length in (*_LENGTHS, _MAC):
        found.append(raw[at : at + length])
        at += length
    return tuple(found)


def _spelled(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=").decode()


@lru_cache(maxsize=16)
def _beginning(key: bytes, expires: int) -> bytes:
    """What all tokens of one key and second begin with."""
    return bytes((_VERSION,)) + key + expires.to_bytes(5, "big")


@lru_cache(maxsize=1024)
def _tenant_hash(tenant: str) -> bytes:
    return blake2b(tenant.encode(), digest_size=8).digest()
