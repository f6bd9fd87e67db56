"""Which conversation a request belongs to: the first of these names that it has. Pure.

1. `x-conversation`, or `auto?conversation=…`: the client's own name for it.
2. `x-session`, or a header in which an agent names its session (`AGENTS`).
3. `prompt_cache_key`.
4. `metadata`: `session_id`, `conversation_id`, `thread_id` or `chat_id`, or the session in the
   `user_id` of Anthropic's Messages API.
5. `user`, or another field that names the user.
6. Otherwise: the system's prompt, the tools and the first message of the user.

Agents ask for several conversations in one session (sub-agents, titles), applications share a
`prompt_cache_key`, and a user has many. So the names 2 to 5 are combined with the user's first
message.

The name is hashed with the caller's key and the tenant, so that nobody meets another's
conversation; its text is in no log. `x-keep-model: off` takes the request out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from bandit_service.core.errors import Refused

AGENTS = (
    ("x-claude-code-session-id", "x-claude-code-agent-id"),  # Claude Code, and its sub-agents
    ("session-id",),  # Codex
    ("session_id",),  # older Codex, pi
    ("conversation_id",),  # still older Codex
    ("x-opencode-session",),
    ("x-session-affinity",),  # OpenCode with any provider, pi
    ("x-session-id",),  # what OpenRouter takes
    ("x-amp-thread-id",),
    ("x-kilocode-taskid",),
    ("x-kilo-session",),
    ("x-task-id",),  # Cline
)
"""Headers that name an agent's session; further ones of a row tell its conversations apart."""
OFF = "x-keep-model"
_METADATA = ("session_id", "conversation_id", "thread_id", "chat_id")
_OF_CLAUDE = "_session_"


def session_of(
    headers: Mapping[str, str],
    own: Mapping[str, Any],
    body: Mapping[str, Any],
    *,
    named: str = "",
    session: str = "",
    user: str = "",
    caller: str = "",
    tenant: str = "",
) -> str:
    """The hash of the conversation's name.

    own: the request as it came; body: as a chat completion. named, session: by the client. user:
    who asks.
    """
    if named:
        parts: list[Any] = ["named", named]
    elif name := ["session", session] if session else _name(headers, own, user):
        parts = [*name, *_first(body)]
    else:
        parts = ["start", *_system(body), _plain(body.get("tools")), *_first(body)]
    return blake2b(msgspec.json.encode([caller, tenant, parts]), digest_size=16).hexdigest()


def wanted(headers: Mapping[str, str]) -> bool:
    """Whether the conversation keeps its model, as far as the request says."""
    said = headers.get(OFF, "on").strip().lower()
    if said not in ("on", "off"):
        raise Refused(f"{OFF}: must be on or off, got {said[:40]!r}", param=OFF)
    return said == "on"


def conversation(body: Mapping[str, Any]) -> str:
    """A hash of a conversation's beginning, which keeps it in one variant of an experiment.

    >>> first = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    >>> later = [*first, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    >>> conversation({"messages": first}) == conversation({"messages": later})
    True
    """
    messages = body.get("messages")
    start: object = body.get("prompt")
    if isinstance(messages, list):
        roles = [each.get("role") if isinstance(each, dict) else None for each in messages]
        start = messages[: roles.index("user") + 1 if "user" in roles else 1]
    return blake2b(msgspec.json.encode(["start", "", start]), digest_size=16).hexdigest()


def _name(headers: Mapping[str, str], own: Mapping[str, Any], user: str) -> list[str]:
    """The number of the first name that the request has, and the name; empty if it has none."""
    for names in AGENTS:
        if headers.get(names[0]):
            return [names[0], *(_utf8(headers.get(each, "")) for each in names)]
    if key := _text(own.get("prompt_cache_key")):
        return ["prompt_cache_key", key]
    metadata = own.get("metadata")
    if isinstance(metadata, dict):
        for name in _METADATA:
            if value := _text(metadata.get(name)):
                return [f"metadata.{name}", value]
        if value := _text(metadata.get("user_id")):
            return ["metadata.user_id", _of_claude(value)]
    if who := user or _text(own.get("user")):
        return ["user", who]
    return []


def _of_claude(user_id: str) -> str:
    """The session in a `user_id`: Claude Code writes an object, and before that a text.

    >>> _of_claude('{"device_id": "d", "session_id": "s1"}')
    's1'
    >>> _of_claude("user_ab_account__session_s1"), _of_claude("someone")
    ('s1', 'someone')
    """
    if user_id.startswith("{"):
        try:
            said = msgspec.json.decode(user_id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return user_id
        return _text(said.get("session_id")) or user_id
    return user_id.rpartition(_OF_CLAUDE)[2] or user_id


def _utf8(value: str) -> str:
    """A header's text, of which bytes that are not UTF-8 came as lone surrogates."""
    return value.encode(errors="backslashreplace").decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _first(body: Mapping[str, Any]) -> Iterator[Any]:
    """The first message of the user, or the prompt of a completion."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        yield _plain(body.get("prompt"))
        return
    for each in messages:
        if isinstance(each, dict) and each.get("role") == "user":
            yield _plain(each.get("content"))
            return


def _system(body: Mapping[str, Any]) -> Iterator[Any]:
    """The messages before the first one of the user."""
    messages = body.get("messages")
    for each in messages if isinstance(messages, list) else ():
        if not isinstance(each, dict) or each.get("role") == "user":
            return
        yield _plain(each.get("content"))


def _plain(content: Any) -> Any:
    """A content without the marks of what is to be cached, which move from turn to turn."""
    if not isinstance(content, list):
        return content
    parts = [
        {name: value for name, value in each.items() if name != "cache_control"}
        if isinstance(each, dict)
        else each
        for each in content
    ]
    alone = parts[0] if len(parts) == 1 else None
    if isinstance(alone, dict) and alone.keys() == {"type", "text"}:
        return alone["text"]
    return parts
