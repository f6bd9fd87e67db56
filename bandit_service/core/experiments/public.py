"""An experiment as people write and read it, where the log has other names for some fields."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import field, structs

from bandit_service.core.experiments.spec import IN_THE_LOG, Audience, Experiment, Guardrail
from bandit_service.core.fields import doc


class PublicAudience(Audience, frozen=True, kw_only=True):
    """Whose queries take part; an empty list allows all. callers: ids of API keys."""

    min_tokens: Annotated[int, doc("Only queries of at least this many tokens.", 0, minimum=0)] = (
        field(default=0, name="min_tokens")
    )
    max_tokens: Annotated[
        int | None, doc("Only queries of at most this many tokens.", 4_000, minimum=0)
    ] = field(default=None, name="max_tokens")


class PublicGuardrail(Guardrail, frozen=True, kw_only=True):
    """What a variant must keep, by mean and by a sequence that holds at every look.

    Exactly one of min, max and max_regression.
    """

    min: Annotated[float | None, doc("The mean must not be below this.", 0.7)] = field(
        default=None, name="min"
    )
    max: Annotated[float | None, doc("The mean must not be above this.", 0.01)] = field(
        default=None, name="max"
    )
    max_regression: Annotated[
        float | None, doc("How much worse than the control's mean it may be.", 0.05)
    ] = field(default=None, name="max_regression")


class PublicExperiment(Experiment, frozen=True, kw_only=True):
    """An experiment as it is configured."""

    audience: Annotated[PublicAudience, doc("Whose queries take part.")] = PublicAudience()
    guardrails: Annotated[
        tuple[PublicGuardrail, ...], doc("What variants must keep; at most 20.")
    ] = ()


def respelled(body: Any) -> Any:
    """A table of an experiment in which the names of before 0.2 are those of now.

    >>> respelled({"guardrails": [{"metric": "quality", "least": 0.7}]})
    {'guardrails': [{'metric': 'quality', 'min': 0.7}]}
    """
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if "audience" in body:
        body["audience"] = _respelled(body["audience"])
    if isinstance(body.get("guardrails"), list):
        body["guardrails"] = [_respelled(each) for each in body["guardrails"]]
    return body


def _respelled(table: Any) -> Any:
    if not isinstance(table, dict):
        return table
    names = {old: new for new, old in IN_THE_LOG.items() if new not in table}
    return {names.get(name, name): value for name, value in table.items()}


def stored(spec: PublicExperiment) -> Experiment:
    """The record that the log keeps."""
    changed: Experiment = _changed(spec, Experiment, Audience, Guardrail)
    return changed


def published(spec: Experiment) -> PublicExperiment:
    """The same for people."""
    changed: PublicExperiment = _changed(spec, PublicExperiment, PublicAudience, PublicGuardrail)
    return changed


def _changed(spec: Experiment, to: Any, audience: Any, guardrail: Any) -> Any:
    values = structs.asdict(spec)
    values["audience"] = audience(**structs.asdict(spec.audience))
    values["guardrails"] = tuple(guardrail(**structs.asdict(each)) for each in spec.guardrails)
    return to(**values)
