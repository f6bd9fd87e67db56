"""Offline routers: fitted on the training part, they choose for the test part at every setting.

A router is a frozen dataclass of hyper-parameters with `fit`; to compare another one, put it
into the map that `evaluate_offline` is given. `standard` is the set of the published tables.
"""

from bandit_service.lab.routers._extra import MissingExtra
from bandit_service.lab.routers._protocol import (
    Axis,
    Choice,
    Choices,
    Incremental,
    OfflineRouter,
    Predictor,
    QualityPredictor,
)
from bandit_service.lab.routers._trace import Trace, trace
from bandit_service.lab.routers.forc import FORC
from bandit_service.lab.routers.hybrid import HybridLLM
from bandit_service.lab.routers.linear import Logistic, Ridge
from bandit_service.lab.routers.neighbours import KNN
from bandit_service.lab.routers.policy import PolicyRouter
from bandit_service.lab.routers.references import (
    BestSingle,
    Oracle,
    TaskTable,
    Uniform,
    ZeroRouter,
)
from bandit_service.lab.routers.routellm import MatrixFactorization, SimilarityWeighted
from bandit_service.lab.routers.scikit import MLP, SVM, KMeans
from bandit_service.lab.routers.tuned import Tuned, tuned

__all__ = [
    "FORC",
    "KNN",
    "MLP",
    "SVM",
    "Axis",
    "BestSingle",
    "Choice",
    "Choices",
    "HybridLLM",
    "Incremental",
    "KMeans",
    "Logistic",
    "MatrixFactorization",
    "MissingExtra",
    "OfflineRouter",
    "Oracle",
    "PolicyRouter",
    "Predictor",
    "QualityPredictor",
    "Ridge",
    "SimilarityWeighted",
    "TaskTable",
    "Trace",
    "Tuned",
    "Uniform",
    "ZeroRouter",
    "eagle",
    "references",
    "standard",
    "trace",
    "tuned",
]


def references() -> dict[str, OfflineRouter]:
    """What every router is to be compared with."""
    return {
        "uniform": Uniform(),
        "best single": BestSingle(),
        "zero router": ZeroRouter(),
        "task label": TaskTable(),
        "oracle": Oracle(),
    }


def eagle(pairs_per_query: int | None = None, without_price: str = "budget") -> PolicyRouter:
    """Eagle as published, on comparisons alone; None for all pairs of a query's answers."""
    return PolicyRouter(
        "eagle",
        {"compare_on": "off", "trial": 0},
        feedback="comparisons",
        pairs_per_query=pairs_per_query,
        without_price=without_price,
    )


def standard() -> dict[str, OfflineRouter]:
    """The references, the papers' routers as published, and tuned kNN, ridge and k-means."""
    return {
        **references(),
        "kNN": KNN(),
        "kNN tuned": Tuned(tuple(KNN(k) for k in (5, 10, 20, 30, 40, 50, 70, 100))),
        "ridge": Ridge(),
        "ridge tuned": Tuned(tuple(Ridge(alpha) for alpha in (1.0, 3.0, 10.0, 30.0, 100.0))),
        "logistic": Logistic(),
        "MLP": MLP(),
        "MLP, stopped early": MLP(early_stopping=True),
        "SVM": SVM(),
        "k-means": KMeans(),
        "k-means tuned": Tuned(
            tuple(KMeans(c, near) for c in (10, 25, 50, 100) for near in (1, 3))
        ),
        "Avengers-Pro": KMeans(rule="alpha"),
        "RouteLLM SW": SimilarityWeighted(),
        "RouteLLM MF": MatrixFactorization(),
        "FORC": FORC(),
        "FORC, shared head": FORC(head="shared"),
        "FORC, threshold": FORC(rule="threshold"),
        "Hybrid LLM det": HybridLLM("det"),
        "Hybrid LLM prob": HybridLLM("prob"),
        "Hybrid LLM trans": HybridLLM("trans"),
        "Eagle": eagle(),
        "Eagle, 1 pair": eagle(1),
        "Eagle, threshold": eagle(without_price="dominance"),
        "MetaLLM": PolicyRouter("metallm", {"alpha": 0.0, "reward": "paper", "bias": False}),
        "MetaLLM, apart": PolicyRouter("metallm"),
    }
