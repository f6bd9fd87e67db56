"""`[[keys]]`: API keys by their hashes, with what each may do."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from bandit_service.core.fields import Id, check_stated, doc

SCOPES = ("decide", "reward", "read", "admin")


PREFIX = "bs_"


AUTHORS = ("anonymous", "config", "system")
"""Who a change is by where no key made it; no key may pass for them."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key as it is configured.

    hash: hex SHA-256 of the key. tenant: the key acts for that tenant only. rate_per_s, burst: of
    requests; 0 is no limit. reward_share: the most of the newest outcomes that may be its, in
    (0, 1]. self_contained: may send outcomes that no decision stands behind. expires: ISO 8601.
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


def check_key(key: ApiKey) -> None:
    """ValueError "field: what was wrong, what is allowed"."""
    check_stated(key)
    if key.id in AUTHORS:
        raise ValueError(f"id: {key.id!r} is how the log names the service itself; take another")
    if len(key.hash) != 64 or set(key.hash) - set("0123456789abcdef"):
        raise ValueError("hash: must be 64 hex digits; `bandit-service keys new` makes one")
    wrong = [scope for scope in key.scopes if scope not in SCOPES]
    if wrong or not key.scopes:
        raise ValueError(f"scopes: must be some of {', '.join(SCOPES)}, got {list(key.scopes)}")
    if key.tenant and "admin" in key.scopes:
        raise ValueError("scopes: a key with a tenant cannot have admin, which acts on all")
    expiry_of(key)


def new_key() -> tuple[str, str]:
    """A fresh key, and the hash to configure."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hash_of(key)


def hash_of(key: str) -> str:
    """The hex SHA-256 by which a key is stored."""
    # a header's bytes that are no UTF-8 come as surrogates
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def expiry_of(key: ApiKey) -> float:
    """Seconds since the epoch at which the key expires; infinity if it does not."""
    if not key.expires:
        return float("inf")
    try:
        moment = datetime.fromisoformat(key.expires)
    except ValueError:
        raise ValueError(f"expires: must be an ISO 8601 time, got {key.expires!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
