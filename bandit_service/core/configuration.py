"""What the running service was told to be, beside its file: sections with their revisions. A fold.

A section is a list of entries, each plain data with a name (`named`). There is no revision until
the first change at run time, so a service that is configured by its file alone has nothing of this
in its log (docs/adr/0021).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from bandit_service.core import events as ev
from bandit_service.core.feature import takes
from bandit_service.core.resolved import Resolved

Entry: TypeAlias = dict[str, Any]
Sections: TypeAlias = Mapping[str, Sequence[Entry]]

KEYS = "keys"
SETTINGS = "settings"
"""Single settings, each with its name and value."""
SECTIONS = ("upstreams", "budgets", "judges", "routes", "metrics", "policies", SETTINGS, KEYS)
"""What can be changed at run time as a part of the configuration."""
KEPT = 20
"""So many of the newest revisions can be gone back to."""
FILE = "file"
"""The source of a change that the file made."""


@dataclass
class Revision:
    """One change. number: 0 is the file alone. sections: all of them after it, without the keys,
    which are never rolled back: what was revoked stays so.
    """

    number: int
    ts: float
    by: str
    why: str
    source: str
    changed: list[str]
    sections: dict[str, list[dict[str, Any]]]


@dataclass
class Configuration:
    """revision: the number of the newest change, 0 before the first. sections: all, as they are in
    force. file: by section and name a digest of each entry as the file last had it. revisions: the
    newest, oldest first. revoked: hashes of keys that are good no more, whatever a file says.
    """

    revision: int = 0
    sections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    file: dict[str, dict[str, str]] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there ever was a change."""
        return bool(self.revision or self.sections or self.file or self.revisions or self.revoked)

    def find(self, number: int) -> Revision | None:
        """A revision that can be gone back to."""
        return next((one for one in self.revisions if one.number == number), None)

    @takes(ev.ConfigurationChanged)
    def _changed(self, event: ev.ConfigurationChanged, _: Resolved) -> None:
        if not self.revisions:
            self.sections = _copied(event.before)
            self._note(0, event.ts, "config", "", FILE, [])
        before = self.sections.get(KEYS, [])
        self.sections = self.sections | _copied(event.sections)
        self.revision = event.revision
        if event.file:
            self.file = {name: dict(each) for name, each in event.file.items()}
        if event.source != FILE:
            good = {each for key in self.sections.get(KEYS, []) for each in hashes_of(key)}
            gone = (each for key in before for each in hashes_of(key) if each not in good)
            self.revoked += [each for each in gone if each not in self.revoked]
        changed = [name for name in SECTIONS if name in event.sections]
        self._note(event.revision, event.ts, event.by, event.why, event.source, changed)

    def _note(
        self, number: int, ts: float, by: str, why: str, source: str, changed: list[str]
    ) -> None:
        kept = {name: list(each) for name, each in self.sections.items() if name != KEYS}
        self.revisions.append(Revision(number, ts, by, why, source, changed, kept))
        del self.revisions[:-KEPT]


def named(section: str, entries: Sequence[Entry]) -> dict[str, Entry]:
    """The entries by the names that tell them apart; equal names get a number.

    >>> list(named("budgets", [{"scope": "service", "per": "day", "usd": 1.0}] * 2))
    ['service * day', 'service * day #2']
    """
    found: dict[str, Entry] = {}
    seen: Counter[str] = Counter()
    for entry in entries:
        if section == "budgets":
            name = f"{entry['scope']} {entry.get('id', '*')} {entry['per']}"
        else:
            name = str(entry["id" if "id" in entry else "name"])
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} #{seen[name]}"] = entry
    return found


def digests(sections: Sections) -> dict[str, dict[str, str]]:
    """By section and name a digest of each entry."""
    return {
        section: {name: _digest(entry) for name, entry in named(section, entries).items()}
        for section, entries in sections.items()
    }


def merged(
    live: Sections,
    file: Sections,
    said: Mapping[str, Mapping[str, str]],
    revoked: Collection[str] = (),
) -> dict[str, list[Entry]]:
    """What is in force where the file says `file`: an entry that is other there than the file last
    said is taken from it, as is its absence; everything else stays as it is live.

    said: the digests of what the file last said. revoked: hashes of keys that are not taken again,
    though the file has them.
    """
    return {
        section: _merged(
            section, live.get(section, ()), file.get(section, ()), said.get(section, {}), revoked
        )
        for section in SECTIONS
    }


def hashes_of(key: Entry) -> list[str]:
    """The hashes that an entry of `keys` is good for, or was until it was rotated."""
    given = (key.get(name) for name in ("hash", "old_hash"))
    return [each for each in given if each and isinstance(each, str)]


def without_old(key: Entry) -> Entry:
    """An entry of `keys` without the key that it took the place of."""
    return {name: value for name, value in key.items() if not name.startswith("old_")}


def _merged(
    section: str,
    live: Sequence[Entry],
    file: Sequence[Entry],
    said: Mapping[str, str],
    revoked: Collection[str],
) -> list[Entry]:
    now, there = named(section, file), named(section, live)
    if {name: _digest(entry) for name, entry in now.items()} == said:
        return list(live)
    found: dict[str, Entry] = {}
    for name, entry in now.items():
        spent = section == KEYS and entry["hash"] in revoked
        if not spent and said.get(name) != _digest(entry):
            found[name] = without_old(entry) if entry.get("old_hash") in revoked else entry
        elif name in there:
            found[name] = there[name]
    made = (name for name in there if name not in now and name not in said)
    return list((found | {name: there[name] for name in made}).values())


def _digest(entry: Entry) -> str:
    return blake2b(msgspec.json.encode(entry, order="deterministic"), digest_size=8).hexdigest()


def _copied(sections: Sections) -> dict[str, list[Entry]]:
    return {name: list(entries) for name, entries in sections.items()}
