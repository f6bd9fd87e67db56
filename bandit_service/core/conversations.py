"""Which arms a conversation was answered by, and how much of its prompt they still have cached.

A provider keeps the prompt of a turn for a while, so that the next turn is cheap with the same arm
and costs the full price with another. How much of it is found again is learned for each arm, by the
time since its last turn: a share of tokens, which begins at `PRIOR` and is worth `PRIOR_TOKENS`.
Also learned is what an arm finds of a conversation that it never had, such as a system's prompt
that all of them share.

Names of conversations are hashes (`gateway/sessions.py`); the newest `MOST` are kept, for `KEPT_S`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved
from policies import ArmId

MOST = 50_000
KEPT_S = 86_400.0
MAX_VISITS = 4
"""Arms of one conversation that are remembered; the one that answered longest ago leaves."""
MAX_CALLS = 64
"""Calls of tools of one conversation that are remembered: several may be under way that opened in
the same words, as sub-agents do, and each is bound to the arm that called."""
AGES_S = (60.0, 300.0, 3600.0)
"""Age classes of a cached prompt: up to each of these, and beyond."""
PRIOR = (0.9, 0.9, 0.5, 0.1, 0.0)
"""The share of a prompt that is taken to be found, by age; the last of one that never was there."""
PRIOR_TOKENS = 50_000.0
PRIOR_LATER, PRIOR_TALKS = 1.0, 20
"""How many turns are taken to follow one, and as how many conversations that counts."""
MOST_TOKENS = 5e6
"""After this many tokens the knowledge counts half, so that a changed provider is noticed."""
_NEVER = len(AGES_S) + 1


class Visit(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The last answer of an arm in a conversation: when, the tokens of its prompt, and where."""

    arm: ArmId
    ts: float
    tokens: int
    deployment: str = ""


class Talk(msgspec.Struct, frozen=True, gc=False):
    """A conversation. visits: one for each arm, newest last. owner: whose it is. calls: hashes of
    the calls of tools, newest last, each with the arm that called.
    """

    visits: tuple[Visit, ...]
    owner: str = ""
    calls: tuple[tuple[str, ArmId], ...] = ()


class Turn(msgspec.Struct, frozen=True, gc=False):
    """The record of a conversation when its next turn is decided.

    conversation: the hash of its name. before: the arm that answered last, "" if none is known.
    cached: tokens of the prompt that each arm is expected to have cached. warm: the same if the
    conversation had been at that arm, or will be. Of arms that are not named it is none. later: how
    many turns are expected to follow this one.
    """

    conversation: str
    before: ArmId = ArmId("")
    cached: tuple[tuple[ArmId, int], ...] = ()
    warm: tuple[tuple[ArmId, int], ...] = ()
    later: float = 0.0

    def at(self, arm: ArmId) -> int:
        """Tokens that an arm is expected to have cached."""
        return next((tokens for id, tokens in self.cached if id == arm), 0)

    def listed(
        self, tokens: tuple[tuple[ArmId, int], ...], ids: Sequence[ArmId]
    ) -> tuple[int, ...]:
        """(K,) tokens by arm; empty if none has any."""
        known = dict(tokens)
        return tuple(known.get(id, 0) for id in ids) if known else ()


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What the gateway knows of a query. prompt: all of its tokens. reason: as of `Query`.

    effort_asked: how much the client asks the model to reason. efforts: how much each arm's
    provider would be asked, where anything is. talk: the client's own name for the conversation.
    """

    prompt: int
    turn: Turn | None = None
    reason: str = ""
    effort_asked: str = ""
    efforts: Mapping[ArmId, str] = {}
    talk: str = ""


@dataclass
class Conversations:
    """talks: by the hash of a conversation's name, oldest last answer first. found: by arm and age,
    the tokens that were found in its cache and those that could have been. begun, went_on: how many
    conversations there were, and how many turns after their first.
    """

    talks: OrderedDict[str, Talk] = field(default_factory=OrderedDict)
    found: dict[ArmId, list[tuple[float, float]]] = field(default_factory=dict)
    begun: int = 0
    went_on: int = 0

    @takes(ev.Rewarded)
    def _answered(self, event: ev.Rewarded, what: Resolved) -> None:
        """An arm answered one turn: its provider has this prompt now."""
        if not event.prompt_tokens:
            return
        decided = what.decided
        if decided is None or not decided.conversation:
            return
        if what.arm != decided.arm:
            return  # another model answered, in a cache that is not known
        visits = self._visits(decided.conversation)
        at = decided.arm, event.deployment  # another one has not cached what this one has
        last = next((each for each in visits if (each.arm, each.deployment) == at), None)
        if event.cached_tokens is not None:
            self._learn(decided, last, event.prompt_tokens, event.cached_tokens)
        visit = Visit(decided.arm, event.ts, event.prompt_tokens, event.deployment)
        self._visited(decided, visit, what.owner, event.calls)

    @takes(ev.Redirected)
    def _redirected(self, event: ev.Redirected, what: Resolved) -> None:
        """Its provider continues the conversation, with an unknown cache."""
        decided = what.decided
        if event.prompt_tokens and decided is not None and decided.conversation:
            self._visited(decided, Visit(decided.arm, event.ts, 0), what.owner, event.calls)

    @takes(ev.Forgotten)
    def _forgotten(self, event: ev.Forgotten, _: Resolved) -> None:
        for name in [name for name, talk in self.talks.items() if talk.owner == event.owner]:
            del self.talks[name]

    def turn(
        self,
        conversation: str,
        prompt: int,
        arms: Iterable[ArmId],
        ts: float,
        kept_s: float,
        *,
        begins: bool = False,
    ) -> Turn:
        """What the next turn of a conversation finds. prompt: its tokens. ts: now.

        kept_s: a conversation without a request for this long starts over. begins: it starts over
        in any case, although earlier requests with the same words are cached.
        """
        visits = [each for each in self._visits(conversation) if ts - each.ts <= kept_s]
        at = {each.arm: each for each in visits}
        last = visits[-1] if visits and not begins else None
        cached, warm = [], []
        age, tokens = (0, prompt) if last is None else _found(last, prompt, ts)
        for arm in arms:
            visit = at.get(arm)
            its, size = (_NEVER, prompt) if visit is None else _found(visit, prompt, ts)
            there = int(self.share(arm, its) * size)
            if there:
                cached.append((arm, there))
            here = int(self.share(arm, age) * tokens)
            if here < there:
                here = there
            if here:
                warm.append((arm, here))
        before = ArmId("") if last is None else last.arm
        return Turn(conversation, before, tuple(cached), tuple(warm), self.later)

    def deployment_of(self, conversation: str, arm: ArmId, ts: float, kept_s: float) -> str:
        """Where an arm answered last, not longer ago than that; "" if that is not known."""
        there = (each for each in self._visits(conversation) if each.arm == arm)
        return next((each.deployment for each in there if ts - each.ts <= kept_s), "")

    def answered_by(self, conversation: str) -> tuple[Visit, ...]:
        """The last answer of each arm that is remembered, oldest first."""
        return self._visits(conversation)

    def called(self, conversation: str, calls: Sequence[str]) -> ArmId:
        """The arm that called one of these tools last; "" if none is known."""
        talk = self.talks.get(conversation)
        newest = () if talk is None else reversed(talk.calls)
        return next((arm for call, arm in newest if call in calls), ArmId(""))

    @property
    def later(self) -> float:
        """How many turns of a conversation are expected to follow one."""
        return (self.went_on + PRIOR_LATER * PRIOR_TALKS) / (self.begun + PRIOR_TALKS)

    def share(self, arm: ArmId, age: int) -> float:
        """How much of a prompt is found in an arm's cache, by the number of its age."""
        by_age = self.found.get(arm)
        if by_age is None:
            return PRIOR[age]
        found, could = by_age[age]
        return (PRIOR[age] * PRIOR_TOKENS + found) / (PRIOR_TOKENS + could)

    def _visits(self, conversation: str) -> tuple[Visit, ...]:
        talk = self.talks.get(conversation)
        return () if talk is None else talk.visits

    def _learn(self, decided: ev.Decided, last: Visit | None, prompt: int, cached: int) -> None:
        age = _NEVER if last is None else age_of(decided.ts - last.ts)
        could = float(prompt if last is None else min(prompt, last.tokens))
        by_age = self.found.setdefault(decided.arm, [(0.0, 0.0)] * (_NEVER + 1))
        before, of = by_age[age]
        kept = 0.5 if of + could > MOST_TOKENS else 1.0
        by_age[age] = (kept * before + min(float(cached), could), kept * of + could)

    def _visited(
        self, decided: ev.Decided, now: Visit, owner: str, called: tuple[str, ...]
    ) -> None:
        talk = self.talks.get(decided.conversation)
        before, calls = ((), ()) if talk is None else (talk.visits, talk.calls)
        calls = (*calls, *((call, now.arm) for call in called))[-MAX_CALLS:]
        self.begun += not decided.before  # another conversation may begin with the same words
        self.went_on += bool(decided.before)
        visits = (*(each for each in before if each.arm != now.arm), now)
        self.talks[decided.conversation] = Talk(visits[-MAX_VISITS:], owner, calls)
        self.talks.move_to_end(decided.conversation)
        self._shrink(now.ts)

    def _shrink(self, ts: float) -> None:
        while self.talks:
            oldest = next(iter(self.talks.values()))
            if len(self.talks) <= MOST and ts - oldest.visits[-1].ts <= KEPT_S:
                return
            self.talks.popitem(last=False)


def _found(visit: Visit, prompt: int, ts: float) -> tuple[int, int]:
    """The age of what is cached, and how much of a prompt it may be."""
    return age_of(ts - visit.ts), min(visit.tokens, prompt)


def age_of(seconds: float) -> int:
    """The number of an age.

    >>> age_of(10.0), age_of(120.0), age_of(1e6)
    (0, 1, 3)
    """
    return bisect_left(AGES_S, seconds)
