"""Upstreams and arms as tables of a configuration file, which gets all of them or none."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bandit_service import settings
from bandit_service.cli.options import Usage
from bandit_service.data.known_models import KnownModel, Provider
from bandit_service.parsing.inputs import text_of


def upstream_table(provider: Provider) -> str:
    """The provider, whose key stays in the environment."""
    fields = {"id": provider.id, "base_url": provider.base_url, "key_env": provider.key_env}
    if provider.kind != "openai":
        fields["kind"] = provider.kind
    return table("upstreams", fields)


def arm_table(model: KnownModel, id: str, upstream: str, date: str, more: Mapping[str, Any]) -> str:
    """An arm with the model's facts; more: fields of the arm besides. date: when they were read."""
    note = f"# list prices of {date}: {model.source}\n"
    if model.dearer_above:
        note += f"# a prompt of more than {model.dearer_above} tokens costs more than these\n"
    named = {"id": id, "upstream": upstream} | ({} if id == model.model else {"model": model.model})
    return table("arms", named | model.arm_fields() | dict(more), note)


def table(name: str, fields: Mapping[str, Any], note: str = "") -> str:
    """One table of a list, with those within it after it."""
    flat = {key: value for key, value in fields.items() if not isinstance(value, Mapping)}
    text = f"\n{note}[[{name}]]\n" + _lines(flat)
    for key, inner in fields.items():
        if isinstance(inner, Mapping) and inner:
            text += f"[{name}.{key}]\n" + _lines(inner)
    return text


def _lines(fields: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


def document(path: Path) -> dict[str, Any]:
    """The content of the file. Raises Usage if it cannot be read."""
    try:
        return tomllib.loads(text_of(path))
    except OSError as error:
        raise Usage(f"--config: {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of which TOML's errors are
        raise Usage(f"--config: {path}: {error}") from None


def write_checked(path: Path, text: str) -> None:
    """Let the file have this text if a service could start with it; BadSettings where not.

    Keys that the environment has not are taken as there, since only their names are written.
    """
    trial = path.with_name(f".{path.name}.new")
    trial.write_text(text, encoding="utf-8")
    try:
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Usage(
                f"--config: {path} cannot get further tables at its end ({error}); "
                "arms written as one list, `arms = […]`, have to be tables [[arms]] for that"
            ) from None
        settings.read(trial, dict.fromkeys(_key_envs(found.get("upstreams")), "unset"))
        trial.replace(path)
    except settings.BadSettings as bad:
        mistakes = [each.replace(str(trial), str(path)) for each in bad.mistakes]
        raise settings.BadSettings(mistakes) from None
    finally:
        trial.unlink(missing_ok=True)


def _key_envs(upstreams: Any) -> Iterable[str]:
    for each in upstreams if isinstance(upstreams, list) else ():
        if isinstance(each, dict) and isinstance(each.get("key_env"), str):
            yield each["key_env"]
