"""A client of bandit-service: decide which model answers a query, and reward the answer.

>>> from bandit_client import Client
>>> with Client("http://127.0.0.1:8080") as client:  # doctest: +SKIP
...     decision = client.decide("What is 17 * 23?", max_cost_usd=0.01)
...     client.reward(decision, quality=1.0, cost_usd=0.0004)
"""

from importlib import metadata

from bandit_client._outbox import Batching, Delivery
from bandit_client._retry import Retries
from bandit_client._stream import AsyncStream
from bandit_client.answers import (
    Arm,
    Configuration,
    Decision,
    DecisionList,
    DecisionRow,
    DecisionText,
    Erased,
    Expected,
    Experiment,
    ExperimentResults,
    Experiments,
    ExperimentSpec,
    Explanation,
    History,
    JudgeRow,
    KeyRow,
    Keys,
    Measured,
    NewKey,
    Observed,
    Policies,
    PolicyState,
    Result,
    Rules,
    Snapshot,
    Status,
    Topics,
    Vote,
    WeighedArm,
)
from bandit_client.asynchronous import AsyncClient
from bandit_client.client import Client, Stream
from bandit_client.errors import (
    BadAnswer,
    BanditError,
    Busy,
    Conflict,
    Denied,
    Expired,
    Invalid,
    Lost,
    NoAnswer,
    NotInstalled,
    NotReached,
    QueueFull,
    ServiceError,
    TimedOut,
    Unavailable,
    Undelivered,
    Unknown,
)

try:
    __version__ = metadata.version("bandit-client")
except metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0.2.0.dev0"

__all__ = [
    "Arm",
    "AsyncClient",
    "AsyncStream",
    "BadAnswer",
    "BanditError",
    "Batching",
    "Busy",
    "Client",
    "Configuration",
    "Conflict",
    "Decision",
    "DecisionList",
    "DecisionRow",
    "DecisionText",
    "Delivery",
    "Denied",
    "Erased",
    "Expected",
    "Experiment",
    "ExperimentResults",
    "ExperimentSpec",
    "Experiments",
    "Expired",
    "Explanation",
    "History",
    "Invalid",
    "JudgeRow",
    "KeyRow",
    "Keys",
    "Lost",
    "Measured",
    "NewKey",
    "NoAnswer",
    "NotInstalled",
    "NotReached",
    "Observed",
    "Policies",
    "PolicyState",
    "QueueFull",
    "Result",
    "Retries",
    "Rules",
    "ServiceError",
    "Snapshot",
    "Status",
    "Stream",
    "TimedOut",
    "Topics",
    "Unavailable",
    "Undelivered",
    "Unknown",
    "Vote",
    "WeighedArm",
    "__version__",
]
