"""Options shared by several commands, each declared and checked once."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import policies
from bandit_service.core.errors import Refused
from bandit_service.core.prior import strength_of
from bandit_service.core.tags import tags_of
from bandit_service.offline.candidates import Candidate, checked, parsed
from bandit_service.parsing.inputs import text_of
from bandit_service.settings import Settings, named, read, service_asked

if TYPE_CHECKING:
    from bandit_service.data.recordings import Recorded

USAGE_ERROR = 2
DEFAULTS = Settings()
POLICY = "NAME[:KEY=VALUE...]"
"""How every command takes a policy with its parameters."""

_SHOWN_ROWS = 5
_MAX_COUNT = 10**9


class Usage(ValueError):
    """The command line asks for something that is not there."""


def config(parser: argparse.ArgumentParser) -> None:
    """`--config`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML configuration file (optional)"
    )


def pool(parser: Any) -> None:
    """`--pool`: the pool of tenants whose log is meant."""
    parser.add_argument(
        "--pool", default="", metavar="NAME", help="the pool of tenants (default: the default one)"
    )


def settings_of(args: argparse.Namespace, log: str | None = None) -> Settings:
    """The settings of `--config` for the log of `--pool`. log: where it is read from, if not from
    where the settings say: the pool is then one of the service of that URL. Raises Usage.
    """
    whole = read(args.config)
    if log and "://" in log:
        return whole
    try:
        return named(whole, args.pool)
    except LookupError as error:
        raise Usage(f"--pool: {error.args[0]}") from None


def port(parser: argparse.ArgumentParser, what: str, default: int | None = None) -> None:
    """--port."""
    parser.add_argument("--port", type=bounded(int, 0, 65_535), default=default, help=what)


def tags(parser: Any, what: str) -> None:
    """`--tag`, repeatable: a decision has to have all of them."""
    parser.add_argument(
        "--tag", action="append", default=[], type=_tag, metavar="TAG", help=f"{what}; repeatable"
    )


def route(parser: Any, what: str, default: str | None = None) -> None:
    """`--route`: the id of one; `auto` is the default route."""
    parser.add_argument(
        "--route", default=default, metavar="ID", help=f"{what}; auto: the default route"
    )


def _tag(text: str) -> str:
    try:
        return tags_of([text])[0]
    except Refused as refused:
        raise argparse.ArgumentTypeError(refused.message.removeprefix("tags: ")) from None


def service(parser: argparse.ArgumentParser, key: str, *, suppressed: bool = False) -> None:
    """`--url` and `--key` of a command that asks a running service.

    key: what the key needs. suppressed: a default was set by the command around it.
    """
    url_there, key_there = service_asked()
    parser.add_argument(
        "--url",
        default=argparse.SUPPRESS if suppressed else url_there,
        help="address of the service (default: BANDIT_URL, or http://127.0.0.1:8080)",
    )
    parser.add_argument(
        "--key",
        default=argparse.SUPPRESS if suppressed else key_there,
        help=f"an API key{key} (default: BANDIT_KEY)",
    )
    parser.add_argument(
        "--pool",
        default=argparse.SUPPRESS if suppressed else "",
        metavar="NAME",
        help="the pool of tenants that is asked (default: the default one)",
    )


def log_key(parser: Any) -> None:
    """`--key` and `--ca`, for a log that is read from a running service."""
    add = parser.add_argument
    add(
        "--key",
        default="",
        metavar="KEY",
        help="with a URL: an API key with admin, or @FILE; default: BANDIT_KEY",
    )
    add("--ca", type=Path, metavar="FILE", help="with an https URL: trust this PEM file")


def moment(text: str) -> float:
    """UTC seconds of ISO 8601, of local clocks only with their offset, or of a number."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be like 2026-03-01 or 2026-03-01T12:00:00Z, got {text!r}"
            ) from None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise argparse.ArgumentTypeError(f"must be a finite number of seconds, got {text!r}")
    return seconds


def key_for(url: str | None, given: str) -> str:
    """The key for a service that a URL names: as it was given, a file's by @FILE, or BANDIT_KEY."""
    if not given and url and "://" in url:
        given = service_asked()[1]
    if not given.startswith("@"):
        return given
    try:
        return text_of(Path(given[1:])).strip()
    except OSError as error:
        raise Usage(f"--key: {given[1:]}: {error.strerror}") from None


def data(parser: Any, *, more: str = "", **how: Any) -> None:
    """`--data`: a recording. more: other kinds of files that the command takes."""
    from bandit_service.data.recordings import PARETOBANDIT, SPECIALISTS

    parser.add_argument(
        "--data",
        metavar="FILE",
        help=f"NAME.jsonl or NAME.jsonl.gz with NAME.meta.json next to it, {more}{SPECIALISTS} "
        f"(part of this package), or {PARETOBANDIT} (that package's prompts)"
        + ("; repeatable" if how.get("action") == "append" else ""),
        **how,
    )


def limit(parser: argparse.ArgumentParser, minimum: int = 1) -> None:
    """`--limit`."""
    parser.add_argument(
        "--limit",
        type=bounded(int, minimum, _MAX_COUNT),
        metavar="N",
        help="use only the first N queries",
    )


def embedding(parser: argparse.ArgumentParser) -> None:
    """`--backend`, `--model` and `--data-dir`: the embedding model, and where it is stored."""
    parser.add_argument(
        "--backend",
        choices=("onnx", "torch", "static"),
        default=DEFAULTS.embedding.backend,
        help="runtime of the embedding model (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULTS.embedding.model,
        help="name of the embedding model, or path of its directory (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(DEFAULTS.data_dir),
        metavar="DIR",
        help="directory for models and embeddings, kept between runs (default: %(default)s)",
    )


def willingness_to_pay(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """`--willingness-to-pay`; a list where `several` may be given, empty where none was.

    `--worth` is its old name in `evaluate`, accepted until the next version.
    """
    worth = DEFAULTS.reward.willingness_to_pay
    parser.add_argument(
        "--willingness-to-pay",
        type=bounded(float, 1e-9, 1e6),
        metavar="USD",
        help="what one unit of quality is worth; reward = quality - cost / this"
        + ("; several give curves at equal cost" if several else "")
        + f" (default: {worth})",
        **({"action": "append", "default": None} if several else {"default": worth}),
    )
    if several:
        parser.add_argument(
            "--worth",
            action="append",
            dest="willingness_to_pay",
            type=bounded(float, 1e-9, 1e6),
            help=argparse.SUPPRESS,
        )


def strength(parser: argparse.ArgumentParser, flag: str, default: float, where: str) -> None:
    """As how many outcomes a warm start counts."""
    parser.add_argument(
        flag,
        type=_outcomes_or_full,
        default=default,
        metavar="N",
        help=f"{where}the warm start counts as at most N outcomes of each arm; `full` counts each "
        f"outcome as one (default: {default:g})",
    )


def candidate(text: str) -> Candidate:
    """A policy with its parameters, in the notation of `POLICY`.

    Raises Usage for an unknown one.
    """
    try:
        return parsed(text)
    except (ValueError, TypeError) as error:
        raise Usage(f"--policy {text}: {error}") from None


def candidates(texts: Sequence[str], every: Sequence[str]) -> list[Candidate]:
    """Those of `texts`, each once; `all` stands for `every`."""
    wanted = [name for text in texts for name in (every if text == "all" else [text])]
    return [candidate(text) for text in dict.fromkeys(wanted)]


def with_params(chosen: Sequence[Candidate], params: Sequence[str]) -> list[Candidate]:
    """With `[POLICY.]KEY=VALUE`, the old notation of `replay`, added to those that have the key."""
    for param in params:
        key, equals, value = param.partition("=")
        only, dot, field = key.rpartition(".")
        taking = [
            one
            for one in chosen
            if (not dot or one.name == only) and field in policies.parameters_of(one.name)
        ]
        if not equals or not taking:
            there_are = "; ".join(
                f"{one.name}: {', '.join(policies.parameters_of(one.name)) or '-'}"
                for one in chosen
            )
            raise Usage(f"--param {param}: must be KEY=VALUE or POLICY.KEY=VALUE; {there_are}")
        chosen = [_with(one, field, value) if one in taking else one for one in chosen]
    return list(chosen)


def _with(one: Candidate, key: str, text: str) -> Candidate:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    try:
        return checked(Candidate(name=one.name, parameters=one.parameters | {key: value}))
    except (ValueError, TypeError) as error:
        raise Usage(f"--param {error}") from None


def bounded(kind: type[int] | type[float], low: float, high: float) -> Any:
    """An argparse type: a number from low to high, or an error that says so."""

    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}, got {text}")
        return value

    return number


def tell_skipped(recorded: Recorded) -> None:
    """Say on stderr which rows were malformed and how many."""
    for bad in recorded.left_out[:_SHOWN_ROWS]:
        print(f"skipped {bad}", file=sys.stderr)
    more = len(recorded.left_out) - _SHOWN_ROWS
    if more > 0:
        print(f"skipped {more} more rows", file=sys.stderr)
    if recorded.left_out:
        rows = len(recorded) + len(recorded.left_out)
        print(f"{len(recorded.left_out)} of {rows} rows were skipped", file=sys.stderr)


def _outcomes_or_full(text: str) -> float | None:
    try:
        return strength_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
