"""Whether an answer is JSON that the client's own schema allows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import referencing
from jsonschema import validators

_MAX_REFERENCES = 10_000


def valid(schema: dict[str, Any], text: str) -> float | None:
    """Whether the text is JSON that the schema allows; None if the schema cannot be used.

    The schema is the client's: nothing is fetched for it, its regular expressions are not run, and
    it may follow only so many references.
    """
    if b'"patternProperties"' in msgspec.json.encode(schema):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return 0.0
    base = validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    steps = iter(range(_MAX_REFERENCES))

    def bounded(name: str) -> Any:
        follow = base.VALIDATORS[name]

        def followed(*arguments: Any) -> Iterator[Any]:
            if next(steps, None) is None:
                raise RecursionError
            yield from follow(*arguments) or ()

        return followed

    references = ("$ref", "$dynamicRef", "$recursiveRef")
    changed = {name: bounded(name) for name in references if name in base.VALIDATORS}
    extend: Any = validators.extend
    kind = extend(base, {**changed, "pattern": lambda *_: None})
    try:
        kind.check_schema(schema)
        return float(kind(schema, registry=referencing.Registry()).is_valid(value))
    except (
        jsonschema.SchemaError,
        referencing.exceptions.Unresolvable,
        RecursionError,
        re.error,
        TypeError,
        ValueError,
    ):
        return None
