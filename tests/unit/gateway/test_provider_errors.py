"""What a provider's trouble is about, told from its status, its codes and its shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.gateway.provider_errors import About, error_in, refusal

_TEXT = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}
_ENDED = {"index": 0, "message": {"role": "assistant", "content": "x"}}

TELLS: list[tuple[str, Any, int]] = [
    ("an object", {"error": {"message": "down", "type": "server_error"}}, 0),
    ("beside no choices", {"choices": [], "error": {"code": 502, "message": "no slot"}}, 502),
    ("beside choices of null", {"choices": None, "error": {"code": "503"}}, 503),
    ("beside a choice", _TEXT | {"error": {"message": "down"}}, 0),
    ("a text", {"error": "model is loading"}, 0),
    ("a text with its kind beside it", {"error": "x", "error_type": "overloaded"}, 503),
    ("a number", {"error": 429, "choices": []}, 429),
    ("true", {"error": True, "message": "down"}, 0),
    ("in a list", [{"error": {"code": 503, "status": "UNAVAILABLE"}}], 503),
    ("several", {"success": False, "errors": [{"code": 7009, "message": "Upstream"}]}, 0),
    ("Anthropic's", {"type": "error", "error": {"type": "overloaded_error"}}, 503),
    ("an event that says so", {"type": "error", "message": "down", "code": "server_error"}, 0),
    ("of object error", {"object": "error", "message": "m", "code": 404}, 404),
    ("of a choice", {"choices": [{"index": 0, "error": {"code": 502}}]}, 502),
    ("of a delta", {"choices": [{"index": 0, "delta": {"error": "lost"}}]}, 0),
    ("a reason", {"choices": [_ENDED | {"finish_reason": "error"}]}, 0),
    ("a reason in capitals", {"choices": [_ENDED | {"finish_reason": "ERROR"}]}, 0),
    ("a reason of a kind", {"choices": [_ENDED | {"finish_reason": "ERROR_LIMIT"}]}, 0),
    ("a reason that is an object",
     {"choices": [_ENDED | {"finish_reason": {"type": "abort", "status_code": 503}}]}, 503),
    ("of no resources",
     {"choices": [_ENDED | {"finish_reason": "insufficient_system_resource"}]}, 0),
    ("bare, by its code", {"code": 500, "msg": "404 NOT_FOUND", "success": False}, 500),
    ("bare, by a word", {"code": "Throttling", "message": "slow down", "request_id": "r"}, 429),
    ("bare, by its type", {"type": "rate_limit_error", "message": "m"}, 429),
    ("bare, by its status", {"status": "error", "message": "down"}, 0),
    ("a detail", {"detail": "Internal Server Error"}, 0),
    ("an exception", {"throttlingException": {"message": "Too many requests"}}, 0),
    ("an exception's type", {"__type": "ServiceUnavailableException", "message": "m"}, 503),
    ("a code of its own", {"error_code": 17, "error_msg": "daily limit reached"}, 0),
    ("a call that was malformed", {"choices": [{"index": 0, "message": {"role": "assistant"},
        "finish_reason": "function_call_filter: MALFORMED_FUNCTION_CALL"}]}, 0),
    ("in capitals", {"Error": {"Message": "down", "Code": "Throttling"}}, 429),
    ("by other names", {"fault": {"faultstring": "Rate limit quota violation"}}, 0),
    ("a status of its own", {"base_resp": {"status_code": 1008, "status_msg": "no balance"},
                             "choices": None}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("why", "answer", "status"), TELLS, ids=[each[0] for each in TELLS])
def test_an_error_is_found_in_whatever_shape_it_is_told(why: str, answer: Any, status: int) -> None:
    """Seen on 5a5a85b: only `error` without the key `choices` counted."""
    found = error_in(answer)
    assert found is not None, why
    assert found.status == status


QUIET: list[Any] = [
    _TEXT,
    _TEXT | {"error": None},
    _TEXT | {"error": {}, "errors": []},
    _TEXT | {"error": {"message": "", "type": "", "code": None}},
    _TEXT | {"error": {"code": 0, "message": "success"}, "base_resp": {"status_code": 0}},
    _TEXT | {"error": False, "error_code": 0, "code": 200, "message": "ok", "success": True},
    {"choices": [], "usage": {"prompt_tokens": 1}},
    {"choices": [], "usage": {"prompt_tokens": 1}, "code": 0, "message": "success"},
    {"usage": {"prompt_tokens": 1}, "error": None},
    {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    {"choices": [{"index": 0, "finish_reason": "stop", "delta": {}, "content_filter_results": {
        "error": {"code": "content_filter_error", "message": "not filtered"}}}]},
    {"choices": [_ENDED | {"finish_reason": "stop", "message": {
        "role": "assistant", "content": '{"error": {"code": 500}}'}}]},
    {"type": "message", "content": [{"type": "text", "text": "the error was mine"}]},
    {"type": "ping"},
    {"message": "still working"},
    {"object": "list", "data": [{"embedding": [0.5]}]},
    {}, [], None, "error", 500,
]  # fmt: skip


@pytest.mark.parametrize("answer", QUIET, ids=json.dumps)
def test_what_is_empty_or_of_the_answer_is_no_error(answer: Any) -> None:
    assert error_in(answer) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-600, 600) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "errors",
                    "choices",
                    "code",
                    "type",
                    "message",
                    "delta",
                    "finish_reason",
                    "base_resp",
                    "status",
                    "object",
                    "usage",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_whatever_comes_is_judged(answer: Any) -> None:
    found = error_in(answer)
    assert found is None or found.about in About
    assert refusal(400, json.dumps(answer).encode()).about in About


def _error(**fields: Any) -> bytes:
    return json.dumps(
        {"error": {"message": "m", "type": "invalid_request_error", **fields}}
    ).encode()


REFUSED: list[tuple[int, bytes, About]] = [
    # the arm, whoever asks
    (401, b"", About.ARM),
    (404, b"<html>", About.ARM),
    (410, b"", About.ARM),
    (429, _error(), About.ARM),
    (500, _error(code="internal_error"), About.ARM),
    (400, _error(code="rate_limit_exceeded"), About.ARM),
    (403, _error(type="insufficient_quota"), About.ARM),
    (403, b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}', About.ARM),
    (400, b'[{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": '
          b'[{"reason": "API_KEY_INVALID"}]}}]', About.ARM),
    (400, b'{"error": {"code": "DeploymentNotFound", "message": "m"}}', About.ARM),
    (400, b'{"code": "Arrearage", "type": "billing", "message": "m"}', About.ARM),
    (400, _error(message="Your credit balance is too low to access the API"), About.ARM),
    (400, _error(message="Incorrect API key provided: k***. You can get one"), About.ARM),
    (403, _error(message="Key limit exceeded (total limit)"), About.ARM),
    (400, _error(message="The model `m` has been decommissioned", code="model_x"), About.ARM),
    (400, _error(message="m is not a valid model ID"), About.ARM),
    (400, _error(message="Invalid model 'm'. Permitted models are", type="invalid_model"),
     About.ARM),
    (400, _error(message="The requested model is not supported.", code="model_not_supported"),
     About.ARM),
    (400, b'{"message": "The provided model identifier is invalid."}', About.ARM),
    (400, b'{"message": "Invocation of model ID m with on-demand throughput isn\'t supported"}',
     About.ARM),
    (400, b'{"code": "Arrearage", "message": "your account is not in good standing"}', About.ARM),
    (400, b'{"error": {"code": 400, "message": "User location is not supported for the API."}}',
     About.ARM),
    (412, b'{"error": {"message": "Account a-1 is suspended"}}', About.ARM),
    # this model with this request
    (500, _error(code="context_length_exceeded"), About.PAIR),
    (500, b'{"error": {"code": 500, "message": "image input is not supported"}}', About.PAIR),
    (404, b'{"error": {"message": "No endpoints found that support tool use."}}', About.PAIR),
    (429, _error(message="Request too large for m on tokens per min", code="rate_limit_exceeded"),
     About.PAIR),
    (400, b'{"message": "Input is too long for requested model."}', About.PAIR),
    (400, b'{"message": "extraneous key [top_k] is not permitted"}', About.PAIR),
    (400, b'{"error": {"message": "Provider returned error", "metadata": {"raw": "{\\"error\\": '
          b'{\\"message\\": \\"maximum context length is 8192\\"}}"}}}', About.PAIR),
    (400, b"prompt length 5000 exceeds max_model_len 4096", About.PAIR),
    (400, _error(message="input length and `max_tokens` exceed context limit: 9 > 8"), About.PAIR),
    (400, _error(message="image_url is only supported by certain models."), About.PAIR),
    (400, _error(message="Failed to call a function.", code="tool_use_failed"), About.PAIR),
    (422, b'{"error": "Input validation error: `inputs` must have less than 4096 tokens."}',
     About.PAIR),
    (400, _error(code="unsupported_parameter", param="max_tokens"), About.PAIR),
    (400, _error(code="unsupported_value"), About.PAIR),
    (400, _error(code="context_length_exceeded"), About.PAIR),
    (400, _error(message="max_tokens is not supported by this model"), About.PAIR),
    (400, _error(message="prompt is too long: 210000 tokens > 200000 maximum"), About.PAIR),
    (422, b'{"error": {"code": "string_above_max_length", "message": "m"}}', About.PAIR),
    (413, b"<html>Request Entity Too Large</html>", About.PAIR),
    (400, b'{"object": "error", "message": "Unrecognized request argument: seed"}', About.PAIR),
    (400, b'{"error": "this model does not support image input"}', About.PAIR),
    # nobody knows but the others
    (400, _error(), About.UNCLEAR),
    (400, b"Bad Request", About.UNCLEAR),
    (403, b"", About.UNCLEAR),
    (422, b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', About.UNCLEAR),
    (400, _error(code="content_policy_violation"), About.UNCLEAR),
    (400, _error(message="unknown role 'credit balance', a `context length`"), About.UNCLEAR),
    (400, b"<html>API key not valid</html>", About.UNCLEAR),
    (451, b"\xff\xfe", About.UNCLEAR),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "about"), REFUSED)
def test_what_a_refusal_is_about(status: int, body: bytes, about: About) -> None:
    """Seen on 5a5a85b: each 4xx beside 401, 402, 404, 408, 409, 425 and 429 was the request's.

    Seen on e98ba34: a message beside no code, in an object without `error`, in a text, or in the
    text of another server's error was not read; images to a server that answers them with 500 shut
    the arm for all.
    """
    assert refusal(status, body).about is about
