"""Which model answered: the one that was asked for, or another one. Pure.

A provider may send a request to another model than it was asked for: a fallback, a redirect, a
model that it has retired. Its answer names the model. But names of the same model differ too: in
case, in the publisher, and in the version that an undated name stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import urlsplit

from bandit_service.core.deployments import upstreams_of
from bandit_service.core.events import ArmSpec
from bandit_service.settings.upstreams import UpstreamSpec

ANY = "*"
"""The alias that takes whatever name the provider gives."""
_VERSION = re.compile(
    r"""(?:
        [-@](?P<date>20\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))(?:-v\d+(?::\d+)?)?
      | -(?P<short>(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|2[3-9](?:0[1-9]|1[0-2]))
      | -(?P<count>0\d\d)
      | [-:]latest
    )(?:-preview)?$""",
    re.VERBOSE,
)
_PUBLISHER = re.compile(
    r"^(?:[a-z]{2,6}\.)?(?:ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai)\."
)


def answered_by_other(
    spec: ArmSpec, upstream: UpstreamSpec, said: object, arm: ArmSpec | None = None
) -> bool:
    """Whether another model than the arm's answered, by the name that the provider gives.

    arm: with all of its deployments, if `spec` is called at one. Each of their names is of the same
    model, since some providers answer with the name that the model has everywhere. The name of a
    file or of a deployment is its owner's choice, so it says nothing.
    """
    if not isinstance(said, str) or not said.strip():
        return False
    asked, told = spec.model or spec.id, said.strip()
    if told == asked or told in spec.aliases or ANY in spec.aliases or _own_names(upstream, told):
        return False
    names = (asked, *spec.aliases, *(_names(arm) if arm is not None else ()))
    return not any(same_model(name, told) for name in names)


@lru_cache(maxsize=4096)
def same_model(asked: str, said: str) -> bool:
    """Whether two names are of the same model.

    The last part of a path counts, without case. A version at its end (a date, `-0613`, `-001`,
    `latest`) is another one only if both names have one and they differ.

    >>> same_model("gpt-x", "gpt-x-2026-01-01"), same_model("gpt-4", "openai/GPT-4-0613")
    (True, True)
    >>> same_model("claude-y@20260101", "claude-y-20260101"), same_model("gpt-x", "gpt-x-mini")
    (True, False)
    >>> same_model("gpt-x-2026-01-01", "gpt-x-2026-06-01")
    False
    """
    (name, version), (other, another) = _parts(asked), _parts(said)
    return name == other and (not version or not another or version == another)


def arm_of(said: str, arms: Iterable[ArmSpec], upstream: str) -> ArmSpec | None:
    """The arm whose model answered, that of the same provider first; None if none is known."""
    known = [each for each in arms if any(same_model(name, said) for name in _names(each))]
    known += [each for each in arms if said in each.aliases and each not in known]
    near = (each for each in known if upstream in upstreams_of(each))
    return next(near, known[0] if known else None)


def _names(spec: ArmSpec) -> Iterator[str]:
    """What the arm's model is called, wherever it is asked."""
    yield spec.model or spec.id
    yield from (each.model for each in spec.deployments if each.model)


def _parts(name: str) -> tuple[str, str]:
    """The name without who publishes it and without its version, and that version."""
    last = _PUBLISHER.sub("", name.strip().lower().rpartition("/")[2])
    found = _VERSION.search(last)
    if found is None or not found.start():
        return last, ""
    version = found["date"] or found["short"] or found["count"] or ""
    return last[: found.start()], version.replace("-", "")


def _own_names(upstream: UpstreamSpec, said: str) -> bool:
    """Whether the provider calls models as their owner named a file or a deployment."""
    host = urlsplit(upstream.base_url).hostname or ""
    return said.lower().endswith(".gguf") or host.endswith((".azure.com", ".azure.us"))
