"""The page at `/` and its files in the package: no build step, no third-party assets.

Files are read once, sent with a hash as their ETag, and revalidated at each visit. The page's
content security policy allows only scripts and styles of its own origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from aiohttp import ETag, web

from bandit_service.core.errors import Unknown

DIRECTORY = Path(__file__).parents[1] / "web"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page."""

    body: bytes
    kind: str
    etag: str


@cache
def files() -> dict[str, File]:
    """Every file by its name; no other file is served."""
    found = {}
    for path in sorted(DIRECTORY.iterdir()):
        if path.suffix in TYPES:
            body = path.read_bytes()
            hashed = blake2b(body, digest_size=16).hexdigest()
            found[path.name] = File(body, TYPES[path.suffix], hashed)
    return found


def wanted(request: web.Request) -> bool:
    """Whether the client of `/` is a browser, which accepts text/html."""
    return "text/html" in request.headers.get("Accept", "")


def document(request: web.Request) -> web.Response:
    """The page itself."""
    return _sent(request, files()["index.html"])


async def reference(request: web.Request) -> web.Response:
    """GET /docs: the API's reference, which the page renders from /openapi.json."""
    return _sent(request, files()["docs.html"])


async def asset(request: web.Request) -> web.Response:
    """GET /web/{name}: one file of the page."""
    found = files().get(request.match_info["name"])
    if found is None:
        raise Unknown("no such file of the page")
    return _sent(request, found)


def _sent(request: web.Request, file: File) -> web.Response:
    known = request.if_none_match or ()
    response = web.Response(headers=HEADERS)
    if any(tag.value in (file.etag, "*") for tag in known):
        response.set_status(304)
    else:
        response.body, response.content_type, response.charset = file.body, file.kind, "utf-8"
    response.etag = ETag(file.etag)
    return response
