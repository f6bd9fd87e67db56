"""`[texts]`: whether questions and answers are kept, for how long, and under which key."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bandit_service.parsing.suggestions import did_you_mean
from bandit_service.settings.secret_sources import of_file, of_variable

OFF, QUESTIONS, BOTH = "off", "questions", "both"
_ESCAPED = r"(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9a-fA-F]{2})"
"""Behind a character that is written as JSON or a URL writes it: its last letter is of no word."""
_START = rf"(?:\b|{_ESCAPED})"
_IP6 = r"[0-9a-fA-F]{1,4}"
RULES: Mapping[str, str] = {
    "secret": (
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]{0,20000}?(?:-----END [A-Z ]{0,40}-----|\Z)"
        rf"|{_START}(?:(?:sk|pk|rk)[-_][\w-]{{12,}}|bs_[\w-]{{20,}}|gh[pousr]_\w{{20,}}"
        r"|AKIA[0-9A-Z]{16}\b|xox[abprs]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    ),
    "email": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "iban": rf"{_START}[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?\b",
    "card": rf"{_START}\d(?:[ -]?\d){{12,18}}\b",
    "ip": (
        rf"{_START}(?:(?:\d{{1,3}}\.){{3}}\d{{1,3}}\b|(?:{_IP6}:){{4,7}}{_IP6}\b"
        rf"|(?=[0-9a-fA-F:]{{0,38}}\d)(?:{_IP6}:){{1,6}}(?::{_IP6}){{1,6}}\b)"
    ),
    "phone": rf"(?:(?<![\w.])|{_ESCAPED})(?:\+|\()?\d(?:[ ()./-]{{0,2}}\d){{7,14}}(?!\w)",
}
"""What can be taken out by name, in the order in which it is."""
MAX_PATTERNS = 32
_KEY_BYTES = 32


def keys_of(
    values: Mapping[str, Any], environ: Mapping[str, str], beside: Path | None, mistakes: list[str]
) -> tuple[bytes, ...]:
    """The keys of the texts from where the configuration says, the first for new ones.

    () if none are kept. No message has any part of a key.
    """
    if values["texts.keep"] == OFF:
        return ()
    variable, file = values["texts.key_env"], values["texts.key_file"]
    if bool(variable) == bool(file):
        mistakes.append(
            "texts.key_env: to keep texts takes this or texts.key_file, and not both; "
            "`bandit-service keys texts-key` makes a key"
        )
        return ()
    field = "texts.key_env" if variable else "texts.key_file"
    try:
        text = of_variable(field, variable, environ) if variable else of_file(field, file, beside)
    except ValueError as error:
        mistakes.append(str(error))
        return ()
    keys = [_key(each) for each in text.split()]
    if None in keys:
        mistakes.append(
            f"{field}: must be keys of {_KEY_BYTES} bytes in base64, separated by white "
            "space; `bandit-service keys texts-key` makes one"
        )
        return ()
    return tuple(each for each in keys if each is not None)


def _key(text: str) -> bytes | None:
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == _KEY_BYTES else None


def new_key() -> str:
    """A key that encrypts texts, as the configuration's variable or file has it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def redaction_mistakes(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the rules by which texts are redacted."""
    wrong = [
        f"texts.redact: no rule {name!r}{did_you_mean(name, list(RULES))}; expected some of "
        f"{', '.join(RULES)}"
        for name in values["texts.redact"]
        if name not in RULES
    ]
    patterns = values["texts.patterns"]
    if len(patterns) > MAX_PATTERNS:
        wrong.append(f"texts.patterns: at most {MAX_PATTERNS}, got {len(patterns)}")
    for i, pattern in enumerate(patterns):
        try:
            if re.compile(pattern).match(""):
                wrong.append(f"texts.patterns[{i}]: matches the empty text")
        except re.error as error:
            wrong.append(f"texts.patterns[{i}]: not a regular expression: {error}")
    return wrong
