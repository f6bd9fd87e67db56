"""Which calls of providers' APIs are not supported: status 501.

A proxy in front would read a 404 as a deleted deployment, and stop using it; 501 says that only
this call is missing.
"""

from __future__ import annotations

from bandit_service.core.errors import NotThere

ABSENT = (
    "/v1/messages/batches",
    "/v1/responses/compact",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/moderations",
    "/v1/rerank",
)
"""To which a body is sent."""

_STORES = (
    "assistants",
    "batches",
    "complete",
    "containers",
    "conversations",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "realtime",
    "responses",
    "skills",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
)
"""What a provider keeps under `/v1/`: nothing of it is here, whatever is asked of it."""


def is_absent(path: str) -> bool:
    """Whether a path that there is not is one of a provider's API."""
    parts = path.strip("/").split("/")
    return len(parts) > 1 and parts[0] == "v1" and parts[1] in _STORES


def not_there(path: str) -> NotThere:
    """What is said of one of them."""
    return NotThere(
        f"{path.rstrip('/')} is not supported; docs/gateway.md lists the calls that are"
    )
