"""Authorization: API keys, scopes, tenants, rates, and a key's share of the outcomes. Pure.

A key is 256 random bits, so a plain SHA-256 of it can be stored: there is nothing to guess, and a
slow hash would only make every request slow. The presented hash is compared with every stored one
by `hmac.compare_digest`, without an early end, so the time reveals nothing about a secret.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bandit_service.core.errors import Denied, Forbidden, RateLimited, ShareExceeded
from bandit_service.http.route import Scope
from bandit_service.settings.keys import SCOPES, ApiKey, expiry_of, hash_of, is_good

ALWAYS = 10
"""The number of the newest outcomes that any key may send, whatever its share, so that a key can
begin.
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; the default is anybody, where there are no keys. tenant: None acts for any.

    hash: that of the key that was sent.
    """

    key: str = ""
    tenant: str | None = None
    scopes: frozenset[str] = frozenset(SCOPES)
    self_contained: bool = True
    hash: str = ""

    @property
    def author(self) -> str:
        """As whose a change is recorded."""
        return self.key or "anonymous"

    def needs(self, scope: str) -> None:
        """Raise Forbidden unless the key has this scope."""
        if scope not in self.scopes:
            raise Forbidden(f"this key does not have the scope {scope!r}", reason="scope")

    def tenant_for(self, named: str) -> str:
        """The tenant to act for if a request names this one.

        Raises Forbidden if it is another's.
        """
        if self.tenant is None:
            return named
        if named not in ("", self.tenant):
            raise Forbidden(
                "tenant: this key acts for another tenant", param="tenant", reason="tenant"
            )
        return self.tenant

    def require_self_contained(self) -> None:
        """Raise Forbidden unless outcomes without a decision are allowed."""
        if not self.self_contained:
            raise Forbidden(
                "decision_id: this key may only send outcomes of decisions (self_contained)",
                param="decision_id",
                reason="scope",
            )


ANYBODY = Caller()


def _caller(key: ApiKey, digest: str) -> Caller:
    scopes = frozenset(key.scopes)
    return Caller(key.id, key.tenant or None, scopes, key.self_contained, digest)


@dataclass(slots=True)
class Bucket:
    """Token bucket: `burst` at most, refilled by `rate_per_s`."""

    rate_per_s: float
    burst: float
    tokens: float
    at: float = 0.0

    def take(self, now: float) -> float:
        """0 if a token was available, otherwise the seconds until one is."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate_per_s)
        self.at = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate_per_s


@dataclass
class Gate:
    """Checks every request.

    Without keys everybody may do everything. scopes: the scope of each method of each path; an
    unknown path needs `admin`.
    """

    scopes: Mapping[tuple[str, str], Scope]
    keys: Sequence[ApiKey] = ()
    open_metrics: bool = True
    window: int = 1000
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _recent: deque[str] = field(default_factory=deque)
    _counts: Counter[str] = field(default_factory=Counter)
    _under_way: Counter[str] = field(default_factory=Counter)

    def take(self, keys: Sequence[ApiKey]) -> None:
        """Admit by these keys from here on. What one has used of an unchanged rate stays used."""
        rates = {key.id: (key.rate_per_s, key.burst) for key in self.keys}
        for key in keys:
            if rates.get(key.id) != (key.rate_per_s, key.burst):
                self._buckets.pop(key.id, None)
        self.keys = keys

    def needed(self, method: str, route: str) -> str:
        """The scope of a route;

        "" if it reveals nothing, "open" if it reveals something without a key.
        """
        route = route.rstrip("/") or route
        scope = self.scopes.get(("GET" if method == "HEAD" else method, route), "admin")
        return "open" if scope == "metrics" and self.open_metrics else scope

    def admit(self, method: str, route: str, authorization: str, utc: float, now: float) -> Caller:
        """The caller of this route; `utc` and `now` (monotonic) in seconds.

        Raises Denied (401), Forbidden (403) or RateLimited (429).
        """
        scope = self.needed(method, route)
        if not self.keys or scope in ("", "open"):
            return ANYBODY
        key, digest = self._known(authorization, utc)
        self._use(key, utc, now)
        caller = _caller(key, digest)
        if scope in ("metrics", "totals") and key.tenant:
            raise Forbidden(
                "these figures cover all tenants; this key is limited to one", reason="tenant"
            )
        if scope != "stream":
            caller.needs("read" if scope in ("metrics", "totals") else scope)
        return caller

    def tenant_of(self, authorization: str, utc: float) -> str | None:
        """The tenant of the key that is sent, "" for a key of none; None for no known key."""
        if not self.keys:
            return ""
        try:
            return self._known(authorization, utc)[0].tenant
        except Denied:
            return None

    def delegated(self, key: str, utc: float) -> Caller:
        """The caller if a feedback token of a decision of this key is sent instead of the key.

        Raises Denied if the key may no longer send rewards.
        """
        if not self.keys or not key:
            return ANYBODY
        found = next((one for one in self.keys if one.id == key), None)
        if found is None or "reward" not in found.scopes or utc >= expiry_of(found):
            raise Denied("the key that requested this answer may not reward it", reason="token")
        return Caller(found.id, found.tenant or None, frozenset(found.scopes))

    def again(self, caller: Caller, utc: float, now: float) -> None:
        """One more request of a caller that was admitted; raises as `admit` does."""
        key = self.still(caller, utc)
        if key is not None:
            self._use(key, utc, now)

    def still(self, caller: Caller, utc: float) -> ApiKey | None:
        """The key by which a caller was admitted. Denied where it was revoked or rotated since, or
        keys are asked for now.
        """
        if not self.keys:
            return None
        key = self._key_of(caller)
        if key is None or not is_good(key, caller.hash, utc):
            raise Denied("the key was revoked; ask for a new one", reason="revoked")
        if _caller(key, caller.hash) != caller:
            raise Denied("what the key may do was changed; connect again", reason="revoked")
        return key

    @contextmanager
    def teaching(self, caller: Caller) -> Iterator[None]:
        """A running outcome counts as learned.

        Raises ShareExceeded if that is too many. It still counts if its sender left before the
        answer, since it may be learned.
        """
        self.may_teach(caller)
        self._under_way[caller.key] += 1
        try:
            yield
        except CancelledError:
            self.taught(caller)
            raise
        finally:
            self._under_way[caller.key] -= 1

    def may_teach(self, caller: Caller) -> None:
        """Raise ShareExceeded if too many of the newest outcomes are this key's already."""
        key, seen = self._key_of(caller), len(self._recent)
        others = any("reward" in other.scopes for other in self.keys if other is not key)
        if key is None or key.reward_share >= 1.0 or not others:
            return
        share, count = key.reward_share, self._counts[caller.key]
        if count + self._under_way[caller.key] + 1 > max(ALWAYS, share * seen):
            raise ShareExceeded(
                f"this key sent {count} of the last {seen} outcomes, and may "
                f"send {share:.0%}; retry when others have sent theirs"
            )

    def taught(self, caller: Caller) -> None:
        """One outcome of this caller was accepted."""
        self._recent.append(caller.key)
        self._counts[caller.key] += 1
        if len(self._recent) > self.window:
            self._counts[self._recent.popleft()] -= 1

    def _known(self, authorization: str, utc: float) -> tuple[ApiKey, str]:
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Denied(
                "send `Authorization: Bearer <key>` or `x-api-key: <key>`", reason="missing"
            )
        digest, found = hash_of(presented.strip()), None
        for key in self.keys:
            if is_good(key, digest, utc):
                found = key
        if found is None:
            raise Denied("no such key", reason="unknown")
        return found, digest

    def _key_of(self, caller: Caller) -> ApiKey | None:
        return next((key for key in self.keys if key.id == caller.key), None)

    def _use(self, key: ApiKey, utc: float, now: float) -> None:
        if key.expires and utc >= expiry_of(key):
            raise Denied("the key has expired; ask for a new one", reason="expired")
        if not key.rate_per_s:
            return
        most = float(key.burst or max(1.0, key.rate_per_s))
        bucket = self._buckets.setdefault(key.id, Bucket(key.rate_per_s, most, most, now))
        wait = bucket.take(now)
        if wait:
            raise RateLimited(f"more than {key.rate_per_s:g} requests a second", wait)
