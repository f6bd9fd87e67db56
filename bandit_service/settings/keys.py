"""`[[keys]]`: API keys by their hashes, with what each may do."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from bandit_service.core.fields import Id, check_stated, doc

SCOPES = ("decide", "reward", "read", "texts", "admin")


PREFIX = "bs_"


AUTHORS = ("anonymous", "config", "system")
"""Who a change is by where no key made it; no key may pass for them."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key as it is configured.

    hash: hex SHA-256 of the key. tenant: the key acts for that tenant only. rate_per_s, burst: of
    requests; 0 is no limit. reward_share: the most of the newest outcomes that may be its, in
    (0, 1]. self_contained: may send outcomes that no decision stands behind. expires: ISO 8601.
    old_hash, old_expires: of the key that this one takes the place of, which is good until then.
    """

    id: Id
    hash: str
    scopes: tuple[str, ...]
    tenant: str = ""
    rate_per_s: Annotated[
        float, doc("Requests per second; 0: no limit.", 50.0, minimum=0, maximum=1e6)
    ] = 0.0
    burst: Annotated[int, doc("Requests at once.", 100, minimum=0, maximum=1e6)] = 0
    reward_share: Annotated[
        float,
        doc(
            "Share of the newest outcomes that may be this key's.",
            1.0,
            exclusiveMinimum=0,
            maximum=1,
        ),
    ] = 1.0
    self_contained: bool = False
    expires: str = ""
    old_hash: str = ""
    old_expires: str = ""


def check_key(key: ApiKey) -> None:
    """ValueError "field: what was wrong, what is allowed"."""
    check_stated(key)
    if key.id in AUTHORS:
        raise ValueError(f"id: {key.id!r} is reserved for the service itself; choose another")
    for name, given in (("hash", key.hash), ("old_hash", key.old_hash)):
        if (name == "hash" or given) and not _is_hash(given):
            raise ValueError(f"{name}: must be 64 hex digits; `bandit-service keys new` makes one")
    wrong = [scope for scope in key.scopes if scope not in SCOPES]
    if wrong or not key.scopes:
        raise ValueError(f"scopes: must be some of {', '.join(SCOPES)}, got {list(key.scopes)}")
    if key.tenant and "admin" in key.scopes:
        raise ValueError("scopes: a key with a tenant cannot have admin, which acts on all")
    if bool(key.old_hash) != bool(key.old_expires):
        raise ValueError("old_expires: belongs to old_hash; set both or none")
    expiry_of(key)
    _moment("old_expires", key.old_expires)


def _is_hash(given: str) -> bool:
    return len(given) == 64 and not set(given) - set("0123456789abcdef")


def new_key() -> tuple[str, str]:
    """A fresh key, and the hash to configure."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hash_of(key)


def hash_of(key: str) -> str:
    """The hex SHA-256 by which a key is stored."""
    # a header's bytes that are no UTF-8 come as surrogates
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def expiry_of(key: ApiKey) -> float:
    """Seconds since the epoch at which the key ends; infinity where it does not."""
    return _moment("expires", key.expires)


def is_good(key: ApiKey, digest: str, utc: float) -> bool:
    """Whether a hash is the key's, or that of the one before it, which is still good then."""
    new = hmac.compare_digest(key.hash, digest)
    old = bool(key.old_hash) and hmac.compare_digest(key.old_hash, digest)
    return new or (old and utc < _moment("old_expires", key.old_expires))


def _moment(field: str, text: str) -> float:
    if not text:
        return float("inf")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{field}: must be an ISO 8601 time, got {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
