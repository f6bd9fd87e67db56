"""`[[upstreams]]` tables: checked, and their keys found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from bandit_service.core.fields import Id, check_stated, doc
from bandit_service.parsing.validation import Table, every_mistake
from bandit_service.settings.proxies import Proxy, check_proxy, proxy_of
from bandit_service.settings.secret_sources import of_file, of_variable

KINDS = ("openai", "anthropic", "responses")
LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")
_Timeout = Annotated[float, doc("Seconds.", 60.0, exclusiveMinimum=0, maximum=86_400)]


class UpstreamSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider as it is configured.

    base_url: up to and with the version, such as https://api.openai.com/v1. kind: whose language it
    speaks. key_env, key_file: where the key is read from at the start. auth_header: what carries
    it, Authorization (x-api-key for anthropic) where none is named; Authorization adds "Bearer".
    query: parameters of every call, such as Azure's api-version. connect_s, first_byte_s,
    idle_s, total_s: the most time until connected, until the answer begins, between two pieces of
    it, and for all of it. resend: how often a call is sent again that found no connection, or an
    idle one just closed; resend_after_s: the pause before it, from half to one and a half of that.
    provider: its name in spans (gen_ai.provider.name), the kind where none is given. stream_usage:
    ask for the usage of streams, which a few servers refuse; without it their cost is not known.
    limit_field: the name there of the most tokens of an answer, for requests that come in another
    dialect.
    proxy: what its calls go through, http://HOST:PORT. trust_env: or what HTTPS_PROXY, HTTP_PROXY,
    ALL_PROXY and NO_PROXY say at the start.
    """

    id: Id
    base_url: str
    kind: Annotated[str, doc("Whose language it speaks.", "openai", enum=KINDS)] = "openai"
    key_env: str = ""
    key_file: str = ""
    auth_header: str = ""
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    connect_s: _Timeout = 5.0
    first_byte_s: _Timeout = 60.0
    idle_s: _Timeout = 60.0
    total_s: _Timeout = 600.0
    resend: Annotated[int, doc("Attempts after the first.", 1, minimum=0, maximum=5)] = 1
    resend_after_s: Annotated[
        float, doc("Seconds before another attempt.", 0.05, minimum=0, maximum=10)
    ] = 0.05
    provider: str = ""
    stream_usage: bool = True
    limit_field: Annotated[
        str, doc("The provider's name for the limit.", "max_completion_tokens", enum=LIMIT_FIELDS)
    ] = "max_completion_tokens"
    proxy: str = ""
    trust_env: bool = False


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with its key, which is in no log and no repr."""

    spec: UpstreamSpec
    key: str = field(default="", repr=False)
    proxy: Proxy | None = None


def check_upstream(spec: UpstreamSpec) -> None:
    """ValueError "field: what was wrong, what is allowed"."""
    if not spec.base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url: must begin with http:// or https://, got {spec.base_url!r}")
    if not urlsplit(spec.base_url).hostname or "?" in spec.base_url or "#" in spec.base_url:
        raise ValueError(
            f"base_url: must have a host, and no ? or # (parameters go into query), "
            f"got {spec.base_url!r}"
        )
    check_stated(spec)
    if spec.proxy and spec.trust_env:
        raise ValueError("proxy: set this or trust_env, not both")
    if spec.proxy:
        check_proxy(spec.proxy)


def upstreams_of(
    items: Any,
    environ: Mapping[str, str],
    beside: Path | None,
    mistakes: list[str],
    *,
    secrets: bool = True,
) -> tuple[Upstream, ...]:
    """The providers of a list of tables; each mistake as a sentence with its place.

    A key file is relative to the configuration's. A key is never part of a message. secrets: as of
    `reading.read`.
    """
    if not isinstance(items, list):
        mistakes.append(f"upstreams: must be a list of tables, got {type(items).__name__}")
        return ()
    found: list[Upstream] = []
    for i, item in enumerate(items):
        made: list[Upstream] = []

        def check(spec: UpstreamSpec, made: list[Upstream] = made) -> None:
            check_upstream(spec)
            proxy = proxy_of(spec.base_url, spec.proxy, spec.trust_env, environ)
            key = _key(spec, environ, beside) if secrets else ""
            made.append(Upstream(spec, key, proxy))

        spec, wrong = every_mistake(item, UpstreamSpec, check)
        mistakes += [f"upstreams[{i}].{each}" for each in wrong]
        if spec is None:
            continue
        if spec.id in {other.spec.id for other in found}:
            mistakes.append(f"upstreams[{i}].id: duplicate id {spec.id!r}")
        found.append(made[-1])
    return tuple(found)


def listed(
    name: str, items: Any, kind: type[Table], check: Callable[[Table], None], mistakes: list[str]
) -> tuple[Table, ...]:
    """The records of a list of tables; each mistake as a sentence with its place."""
    if not isinstance(items, list):
        mistakes.append(f"{name}: must be a list of tables, got {type(items).__name__}")
        return ()
    found: list[Table] = []
    ids: set[str] = set()
    for i, item in enumerate(items):
        spec, wrong = every_mistake(item, kind, check)
        mistakes += [f"{name}[{i}].{each}" for each in wrong]
        if spec is None:
            continue
        id = getattr(spec, "id", "*")
        if id != "*" and id in ids:
            mistakes.append(f"{name}[{i}].id: duplicate id {id!r}")
        ids.add(id)
        found.append(spec)
    return tuple(found)


def _key(spec: UpstreamSpec, environ: Mapping[str, str], beside: Path | None) -> str:
    if spec.key_env and spec.key_file:
        raise ValueError("key_env: set this or key_file, not both")
    if spec.key_env:
        return _sendable("key_env", of_variable("key_env", spec.key_env, environ))
    if spec.key_file:
        return _sendable("key_file", of_file("key_file", spec.key_file, beside))
    return ""


def _sendable(field: str, text: str) -> str:
    """A key without what stands around it; ValueError where no header could carry it."""
    key = text.removeprefix("\ufeff").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{field}: the key must be one line of ASCII characters")
    return key
