"""What changed between two OpenAPI documents, field by field.

`python -m loadtest.openapi_diff OLD NEW` prints a line for each thing that was added, removed or
changed, references resolved by name; it ends with status 1 where something vanished. Words for
people (descriptions, examples, titles) are counted and not listed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = frozenset(("description", "example", "examples", "title", "summary"))
_SETS = frozenset(("required", "enum", "type", "security"))
"""Lists whose order says nothing."""


def flat(value: Any, at: str = "", named: bool = False) -> Iterator[tuple[str, Any]]:
    """Every leaf of a document with its place.

    named: the keys of this object are names of fields, of which one may be `description`.

    >>> dict(flat({"type": ["string", "null"], "anyOf": [{"a": 1}]}))
    {'.type[]=string': 'string', '.type[]=null': 'null', '.anyOf[0].a': 1}
    """
    key = at.rpartition(".")[2]
    if isinstance(value, dict):
        if not value:
            yield at, {}
        for name, each in value.items():
            if named or name not in WORDS:
                inside = not named and name in ("properties", "schemas", "paths", "responses")
                yield from flat(each, f"{at}.{name}", inside)
    elif isinstance(value, list) and key == "parameters":
        for each in value:
            yield from flat(each, f"{at}[{each['name']}]")
    elif isinstance(value, list) and key in _SETS:
        for each in value:
            yield f"{at}[]={each}", each
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from flat(each, f"{at}[{i}]")
    else:
        yield at, value


def plain(value: Any, whole: Any) -> Any:
    """A document in which equal meanings are written alike: references resolved, types as lists.

    >>> plain({"anyOf": [{"$ref": "#/a"}, {"type": "null"}]}, {"a": {"type": "string"}})
    {'type': ['string', 'null']}
    """
    if isinstance(value, list):
        return [plain(each, whole) for each in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        found = whole
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return plain(found, whole)
    made = {name: plain(each, whole) for name, each in value.items()}
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"]]
    made |= _merged(made)
    if made.get("anyOf") == []:
        del made["anyOf"]
    if made.get("required") == []:
        del made["required"]
    if made.get("additionalProperties") is True:
        del made["additionalProperties"]
    return made


def _merged(made: dict[str, Any]) -> dict[str, Any]:
    """Alternatives that differ by their types alone, as one; each other word is of one type."""
    options = made.get("anyOf")
    if not isinstance(options, list) or not all("type" in each for each in options):
        return {}
    names = [name for each in options for name in each if name not in WORDS and name != "type"]
    if len(names) != len(set(names)):
        return {}
    together = {name: each[name] for each in options for name in each if name not in WORDS}
    return together | {"anyOf": [], "type": [one for each in options for one in each["type"]]}


def differences(old: Any, new: Any) -> tuple[list[str], list[str], list[str]]:
    """What was removed, changed and added."""
    before, after = dict(flat(plain(old, old))), dict(flat(plain(new, new)))
    removed = [f"{at}: {before[at]}" for at in before if at not in after]
    changed = [
        f"{at}: {before[at]} -> {after[at]}"
        for at in before
        if at in after and before[at] != after[at]
    ]
    added = [f"{at}: {after[at]}" for at in after if at not in before]
    return removed, changed, added


def main(arguments: list[str]) -> int:
    """The command."""
    if len(arguments) != 2:
        print("usage: python -m loadtest.openapi_diff OLD NEW", file=sys.stderr)
        return 2
    old, new = (json.loads(Path(each).read_text(encoding="utf-8")) for each in arguments)
    lists = differences(old, new)
    for sign, lines in zip("-~+", lists, strict=True):
        print("\n".join(f"{sign} {line}" for line in sorted(lines)))
    print(
        ", ".join(
            f"{len(lines)} {word}"
            for lines, word in zip(lists, ("removed", "changed", "added"), strict=True)
        )
    )
    return 1 if lists[0] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
