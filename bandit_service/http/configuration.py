"""What is configured, live: sections with a revision, and API keys."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from aiohttp import web

from bandit_service import wire
from bandit_service.core.configuration import KEYS, SECTIONS
from bandit_service.core.errors import Refused
from bandit_service.http.middleware import CALLER, CONFIGURATION, body_of, reply
from bandit_service.http.responses.configuration import (
    Configuration,
    KeyRow,
    Keys,
    NewKey,
    Others,
    RevisionRow,
)
from bandit_service.runtime import live_keys
from bandit_service.runtime.live_configuration import LiveConfiguration
from bandit_service.settings.keys import ApiKey
from bandit_service.settings.live import beside_sections, sections_of, shown

_REVISION = re.compile(r'(?:W/)?"?([0-9]{1,18})"?')


async def get_configuration(request: web.Request) -> web.Response:
    """GET /v1/configuration: what is in force, with its revision as the ETag."""
    return _told(request.app[CONFIGURATION])


async def put_configuration(request: web.Request) -> web.Response:
    """PUT /v1/configuration: other sections in the place of those in force, all or none."""
    raw = wire.decode_request(await body_of(request))
    if isinstance(raw, dict) and KEYS in raw:
        raise Refused("keys: cannot be set here; use /v1/keys, one key at a time", param=KEYS)
    asked = wire.convert(raw, wire.ConfigurationRequest)
    given = {name: getattr(asked, name) for name in SECTIONS if name != KEYS}
    given = {name: each for name, each in given.items() if each is not None}
    return await _changed(
        request, asked, partial(request.app[CONFIGURATION].change, lambda _: given)
    )


async def rollback(request: web.Request) -> web.Response:
    """POST /v1/configuration/rollback: the sections as they were after a revision."""
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.RollbackRequest)
    return await _changed(request, asked, partial(request.app[CONFIGURATION].rollback, asked.to))


async def _changed(
    request: web.Request,
    asked: wire.ConfigurationRequest | wire.RollbackRequest,
    change: Callable[..., Awaitable[None]],
) -> web.Response:
    """Make a change in the caller's name, of the revision that the request names."""
    author, expected = request[CALLER].author, _expected(request)
    await change(author, asked.why, expected=expected, forget=asked.forget)
    return _told(request.app[CONFIGURATION])


async def list_keys(request: web.Request) -> web.Response:
    """GET /v1/keys: every key, without its hash."""
    configuration = request.app[CONFIGURATION]
    of_file = sections_of(configuration.file)[KEYS]
    entries = sections_of(configuration.settings)[KEYS]
    rows = [
        _row(key, "file" if entry in of_file else "api")
        for key, entry in zip(configuration.settings.keys, entries, strict=True)
    ]
    return reply(Keys(revision=configuration.known.revision, keys=rows))


async def make_key(request: web.Request) -> web.Response:
    """POST /v1/keys: a new key, told only in this answer."""
    asked = wire.convert(wire.decode_request(await body_of(request)), wire.KeyRequest)
    given = msgspec.to_builtins(asked)
    why, configuration = given.pop("why"), request.app[CONFIGURATION]
    key = await live_keys.make(configuration, given, request[CALLER].author, why)
    return _secret(configuration, asked.id, key, status=201)


async def rotate_key(request: web.Request) -> web.Response:
    """POST /v1/keys/{id}/rotate: another key under the same id."""
    raw = await body_of(request)
    asked = wire.convert(wire.decode_request(raw) if raw.strip() else {}, wire.KeyRotation)
    id, configuration = request.match_info["id"], request.app[CONFIGURATION]
    key, ends = await live_keys.rotate(
        configuration, id, asked.grace_s, request[CALLER].author, asked.why
    )
    return _secret(configuration, id, key, ends)


async def revoke_key(request: web.Request) -> web.Response:
    """DELETE /v1/keys/{id}: good no more, from here on."""
    why = request.query.get("why", "")
    if len(why) > wire.MAX_WHY:
        raise Refused(f"why: must be a text of at most {wire.MAX_WHY} characters", param="why")
    configuration = request.app[CONFIGURATION]
    await live_keys.revoke(configuration, request.match_info["id"], request[CALLER].author, why)
    return await list_keys(request)


def _told(configuration: LiveConfiguration) -> web.Response:
    known = configuration.known
    history = [
        RevisionRow(
            revision=each.number,
            ts=each.ts,
            by=each.by,
            why=each.why,
            source=each.source,
            changed=each.changed,
        )
        for each in reversed(known.revisions)
    ]
    others = msgspec.convert(beside_sections(configuration.settings), Others)
    body = Configuration(
        revision=known.revision,
        history=history,
        others=others,
        **shown(configuration.sections()),
    )
    return reply(body, headers=_tag(known.revision))


def _secret(
    configuration: LiveConfiguration, id: str, key: str, ends: str = "", status: int = 200
) -> web.Response:
    revision = configuration.known.revision
    body = NewKey(id=id, key=key, revision=revision, old_expires=ends)
    return reply(body, status, _tag(revision) | {"Cache-Control": "no-store"})


def _tag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _expected(request: web.Request) -> int | None:
    """The revision that the request changes; None for whatever is in force."""
    given = request.headers.get("If-Match", "").strip()
    if given == "*":
        return None
    found = _REVISION.fullmatch(given)
    if found is None:
        raise Refused(
            "If-Match: send the revision that you read, as its ETag has it, or * to change "
            "whatever is in force",
            param="If-Match",
        )
    return int(found[1])


def _row(key: ApiKey, source: str) -> KeyRow:
    return KeyRow(
        id=key.id,
        scopes=list(key.scopes),
        tenant=key.tenant,
        expires=key.expires,
        old_expires=key.old_expires,
        rate_per_s=key.rate_per_s,
        source=source,
    )
