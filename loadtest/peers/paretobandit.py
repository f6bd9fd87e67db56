"""ParetoBandit: LinUCB with forgetting and a budget pacer, through `BanditRouter`.

Source: arXiv 2604.00136, and the documentation of the package, whose calls are these: `create`,
`route`, `log.cost_usd = bill`, `process_feedback`.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from bandit_service.data.recordings import Recorded
from loadtest.peers.protocol import Asked, Outcome, Problem, need
from policies import Floats, Vector

INSTALL = "pip install paretobandit==0.1.1"


class ParetoBandit:
    """The router on features that are computed beforehand, as the package allows.

    warm: the priors that the package ships, for its own arms and its own features.
    scalar: learn the reward that all are judged by, with no cost penalty of its own; else the
        quality, and its own penalty on the logarithm of the list price, as documented.
    alpha, ridge, forgetting: None leaves the package's default.
    A target in the problem turns the pacer on, in its default mode.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        warm: bool = False,
        scalar: bool = False,
        alpha: float | None = None,
        ridge: float | None = None,
        forgetting: float | None = None,
    ) -> None:
        package = need("pareto_bandit", INSTALL)
        _quiet()
        given = {"alpha": alpha, "init_lambda": ridge, "forgetting_factor": forgetting}
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if scalar:
            options["config"] = package.RouterConfig(reward_min=-2.0, reward_max=1.0)
            options["cost_penalty"] = 0.0
        if problem.target_usd is not None:
            pacer = need("pareto_bandit.budget_pacer", INSTALL)
            options["budget_pacer"] = pacer.BudgetPacer(target_avg_spend_usd=problem.target_usd)
        registry = {
            str(arm.id): {
                "input_cost_per_m": arm.usd_per_mtok_in,
                "output_cost_per_m": arm.usd_per_mtok_out,
            }
            for arm in problem.arms
        }
        self._names = problem.ids
        self._ids = {id: k for k, id in enumerate(self._names)}
        self._scalar = scalar
        self._router = package.BanditRouter.create(
            model_registry=None if warm else registry,
            feature_service=package.FeatureService.for_precomputed(problem.dim + 1),
            priors="warmup" if warm else "none",
            bandit_seed=problem.seed,
            **options,
        )
        self._log: Any = None

    def choose(self, asked: Asked) -> tuple[int, None]:
        """`route` on the features and the constant that its feature service ends with."""
        model, self._log = self._router.route(asked.with_constant, input_tokens=asked.tokens)
        return self._ids[model], None

    def learn(self, _asked: Asked, arm: int, _propensity: float | None, outcome: Outcome) -> None:
        """`process_feedback`, the log having been told the bill, which the pacer reads, and which
        model answered, where that is the floor's draw and not its own."""
        self._log.selected_model = self._names[arm]
        self._log.cost_usd = outcome.cost_usd
        reward = outcome.reward if self._scalar else outcome.quality
        self._router.process_feedback(self._log.request_id, reward=reward)


def own_features(recorded: Recorded, embeddings: Vector) -> Floats:
    """(n, 25) what its feature service makes of MiniLM's embeddings: its PCA, whitened.

    The PCA comes with the package and was fitted on other prompts. Its encoder is
    all-MiniLM-L6-v2; the embeddings given here must be of that model.
    """
    package, config = need("pareto_bandit", INSTALL), need("pareto_bandit.config", INSTALL)
    known = dict(zip(recorded.texts, embeddings, strict=True))
    with warnings.catch_warnings():
        # The PCA was saved by another version of scikit-learn; only its arrays are used.
        warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
        service = package.FeatureService(
            custom_encoder=known.__getitem__,
            embedding_dim=embeddings.shape[1],
            pca_path=config.DEFAULT_PCA_PATH,
        )
        whole: Floats = service.extract_features_batch(list(recorded.texts))
    return np.ascontiguousarray(whole[:, :-1])


def own_arms() -> list[str]:
    """The ids of the arms that its shipped priors know, sorted."""
    config = need("pareto_bandit.config", INSTALL)
    return sorted(config.K3_ARM_ORDER)


def held_out(recorded: Recorded) -> Recorded:
    """The rows of `load_paretobandit()` that are in its test split."""
    data = need("pareto_bandit.data", INSTALL)
    json = need("msgspec", "pip install msgspec").json
    lines = data.get_example_holdout_path().read_bytes().splitlines()
    prompts = {json.decode(line)["prompt"] for line in lines if line.strip()}
    return recorded.take(
        np.flatnonzero(np.array([text in prompts for text in recorded.texts])).astype(np.int64)
    )


def _quiet() -> None:
    # It tells of every relaxed ceiling and every router made.
    logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
