"""TensorZero's tables: ChatInference or JsonInference, ModelInference, and feedback of numbers.

An inference is an answer. Its model is named by its only row of ModelInference. Feedback on an
episode belongs to the answer if the episode has no other inference.
"""

from __future__ import annotations

from bandit_service.data.exports._calls import Call, Calls, Row, asked_in, first_of, named
from bandit_service.data.rows import Malformed, Repeated
from bandit_service.parsing.inputs import plain

WHOLES = ("inferences",)


def read(row: Row, calls: Calls) -> None:
    """A row of any of the tables, recognised by its columns."""
    if "metric_name" in row and "target_id" in row:
        calls.score(named(row, "target_id"), named(row, "metric_name"), row.get("value"))
    elif "inference_id" in row and "model_name" in row:
        calls.part(named(row, "inference_id")).setdefault("models", []).append(dict(row))
    elif "function_name" in row and "input" in row:
        calls.part(named(row, "id"))["inference"] = dict(row)
    elif "target_id" in row or ("inference_id" in row and "value" in row):
        raise Repeated("feedback: a comment or a demonstration is not a score")
    else:
        raise Malformed("unknown table; expected inferences, model inferences or feedback")


def end(calls: Calls) -> None:
    """The inferences with their models."""
    for id, part in calls.parts():
        with calls.leaving():
            calls.call(_call(id, part))


def _call(id: str, part: Row) -> Call:
    if "inference" not in part:
        raise Repeated("inference_id: the inference is missing")
    inference, models = part["inference"], part.get("models", [])
    if len(models) > 1:
        raise Repeated("the inference has several model calls")
    if not models:
        raise Malformed("no row of ModelInference names the model that answered")
    (model,) = models
    took = first_of(inference, "processing_time_ms") or first_of(model, "response_time_ms")
    took = plain(took)
    return Call(
        ids=(id,),
        whole=str(inference.get("episode_id") or ""),
        text=asked_in(inference["input"], "input"),
        model=named(model, "model_name"),
        cost_usd=first_of(model, "cost"),
        in_tok=model.get("input_tokens"),
        out_tok=model.get("output_tokens"),
        latency_s=took / 1e3 if isinstance(took, int | float) else None,
        task=inference.get("function_name"),
    )
