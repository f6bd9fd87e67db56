"""The answers of the service, as records whose fields are typed."""

from bandit_client.answers.catalogue import (
    Arm,
    Erased,
    Observed,
    Policies,
    PolicyState,
    Snapshot,
    Status,
)
from bandit_client.answers.decisions import (
    Decision,
    DecisionList,
    DecisionRow,
    Expected,
    Explanation,
    Measured,
    Result,
    Vote,
    WeighedArm,
)
from bandit_client.answers.experiments import Experiment, Experiments, ExperimentSpec, Rules
from bandit_client.answers.operating import (
    Configuration,
    History,
    JudgeRow,
    KeyRow,
    Keys,
    NewKey,
)
from bandit_client.answers.results import ExperimentResults
from bandit_client.answers.texts import DecisionText, Topics

__all__ = [
    "Arm",
    "Configuration",
    "Decision",
    "DecisionList",
    "DecisionRow",
    "DecisionText",
    "Erased",
    "Expected",
    "Experiment",
    "ExperimentResults",
    "ExperimentSpec",
    "Experiments",
    "Explanation",
    "History",
    "JudgeRow",
    "KeyRow",
    "Keys",
    "Measured",
    "NewKey",
    "Observed",
    "Policies",
    "PolicyState",
    "Result",
    "Rules",
    "Snapshot",
    "Status",
    "Topics",
    "Vote",
    "WeighedArm",
]
