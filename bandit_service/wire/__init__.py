"""Requests as they come over HTTP and the stream: parsed, checked, and named when wrong.

The same structs serve JSON and MessagePack, so a field means the same thing everywhere.
"""

from bandit_service.wire.checks import (
    arm_ids,
    check_constraints,
    check_names,
    check_worth,
    embedding_of,
    refuse_more,
    refuse_subject,
    required,
    text_and_size,
)
from bandit_service.wire.decoding import (
    MAX_DEPTH,
    MAX_DEPTH_PASSED,
    convert,
    decode_json,
    decode_msgpack,
    decode_passed,
    decode_request,
    read,
)
from bandit_service.wire.requests import (
    CompareRequest,
    DecideRequest,
    ExperimentMove,
    ExperimentPatch,
    ExperimentStop,
    ExplainRequest,
    PolicyRequest,
    Query,
    RewardRequest,
    VoteRequest,
    WhatIfRequest,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_DEPTH_PASSED",
    "CompareRequest",
    "DecideRequest",
    "ExperimentMove",
    "ExperimentPatch",
    "ExperimentStop",
    "ExplainRequest",
    "PolicyRequest",
    "Query",
    "RewardRequest",
    "VoteRequest",
    "WhatIfRequest",
    "arm_ids",
    "check_constraints",
    "check_names",
    "check_worth",
    "convert",
    "decode_json",
    "decode_msgpack",
    "decode_passed",
    "decode_request",
    "embedding_of",
    "read",
    "refuse_more",
    "refuse_subject",
    "required",
    "text_and_size",
]
