"""The parameters of requests: in the path, the query, and headers."""

from __future__ import annotations

from typing import Any

from bandit_service.core import pools
from bandit_service.http.route import Parameter
from bandit_service.offline.history.fold import GROUPS as GROUPS_BY
from bandit_service.offline.history.fold import PERIODS

_STRING: dict[str, Any] = {"type": "string"}


def _named(name: str, what: str, example: str) -> Parameter:
    return Parameter(name, "path", _STRING, what, example)


ARM = _named("id", "The id of the arm.", "gpt-5-mini")
DECISION = _named("id", "The id of the decision.", "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d")
EXPERIMENT = _named("id", "The id of the experiment.", "cheaper-models")
MODEL = _named("id", "The id of the model.", "auto")
POLICY = _named("name", "The name of the policy.", "metallm")
POOL_NAME = _named("name", "The name of the pool.", "acme")
UNIT = _named("unit", "The unit that is erased.", "user-17")
TOKEN = _named("token", "As the answer's x-feedback-token.",
               "AdO2x3QAaSzfwAGS8bZ8Hnqqnb5fDWsaLD1eXmJcGq8v0pQyB2kQ6VtbXv9qkgqS1bU")  # fmt: skip
TENANT = Parameter("tenant", "query", _STRING, "The tenant of the unit.", "acme")
WHY = Parameter("why", "query", _STRING | {"maxLength": 1_000},
                "The reason, recorded in the log.", "no longer needed")  # fmt: skip
API_KEY = _named("id", "The id of the key.", "app")
IF_MATCH = Parameter("If-Match", "header", _STRING,
                     "The revision that you change, as its ETag; * for any.",
                     '"7"')  # fmt: skip
TIMEOUT = Parameter(
    "X-Request-Timeout", "header", {"type": "number", "minimum": 0.001, "maximum": 3600},
    "Time limit for the decision, in seconds.", 2,
)  # fmt: skip
KEY = Parameter("Idempotency-Key", "header", _STRING | {"maxLength": 256},
                "A resend of the same body with the same key gets the same decision.",
                "4f0c6d1e")  # fmt: skip
POOL = Parameter(pools.POOL, "header", _STRING,
                 "The pool to call, for keys without a tenant.", "main")  # fmt: skip
AFTER = Parameter("after", "query", {"type": "integer", "minimum": 0},
                  "Only events after this offset.", 12_000)  # fmt: skip
LEARNED = Parameter(
    "x-bandit-after", "header", {"type": "integer", "minimum": 0},
    "Wait until this replica has applied this offset: an answer's x-bandit-offset.", 12_043,
)  # fmt: skip
LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1},
                  "Maximum number of events in one answer.", 500)  # fmt: skip
TAG = Parameter("tag", "query", {"type": "array", "items": {"type": "string"}},
                "Only decisions with this tag; of several, with all of them.",
                ["checkout"])  # fmt: skip
OF_ARM = Parameter("arm", "query", _STRING, "Only decisions of this arm.", "gpt-5-mini")
OF_ROUTE = Parameter(
    "route",
    "query",
    _STRING,
    "Only decisions of this route; `auto` is the default one.",
    "support-bot",
)
BEFORE = Parameter("before", "query", _STRING | {"format": "uuid"},
                   "Only decisions older than this one, which may have expired.",
                   "0192f1b6-7c1e-7aaa-9c1e-5f0d6b1a2c3d")  # fmt: skip
PER = Parameter("per", "query", _STRING | {"enum": list(PERIODS)},
                "The length of a period; default: `day`.", "day")  # fmt: skip
BY = Parameter("by", "query", _STRING | {"enum": list(GROUPS_BY)},
               "What to group by; default: `arm`.", "arm")  # fmt: skip
SINCE = Parameter(
    "since", "query", {"type": "number", "minimum": 0},
    "Only decisions from this time on, UTC seconds; default: 48 hours, 31 days, 13 weeks or 12 "
    "months before `until`.", 1730419200,
)  # fmt: skip
UNTIL = Parameter("until", "query", {"type": "number", "minimum": 0},
                  "Only decisions before this time, UTC seconds; default: now.",
                  1732924800)  # fmt: skip
GROUPS = Parameter(
    "groups", "query", {"type": "integer", "minimum": 1, "maximum": 100},
    "Show this many groups, those with the highest spend; default: 20.", 20,
)  # fmt: skip
MAX_DECISIONS = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 500},
                           "Maximum number of decisions in one answer; default: 50.",
                           50)  # fmt: skip
