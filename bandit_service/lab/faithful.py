"""Each paper's own setting of our policies, as far as the paper states one.

`NAME@paper` in `bandit-service evaluate` is the policy NAME with `FAITHFUL[NAME]`. A value is
listed if the paper or its authors' code states it, even if it is our default, and if it switches
off an addition of ours. What a paper leaves open keeps our documented default; `STATED[NAME]` says
what that is. `uniform` has no parameters: it is its paper's rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

FAITHFUL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "eagle": {
            "blend": 0.5,
            "neighbours": 20,
            "k_factor": 32.0,
            "compare_on": "off",
            "trial": 0,
        },
        "metallm": {
            "reward": "paper",
            "bias": False,
            "ridge": 12.94,
            "cost_weight": 0.001,
            "comparison_weight": 0,
        },
        "pickllm_gradient": {"learning_rate": 0.5, "reward": "ratio", "comparison_weight": 0},
        "pickllm_q": {"initial": 0.0, "reward": "ratio", "comparison_weight": 0},
        "knn": {
            "neighbours": 40,
            "weighting": "uniform",
            "shrinkage": 0,
            "alpha": 0,
            "comparison_weight": 0,
        },
        "routellm_sw": {"compare_on": "off", "trial": 0, "tie_wins": 1, "ridge": 1e-6},
        "routellm_mf": {
            "dim": 128,
            "learning_rate": 3e-4,
            "weight_decay": 1e-5,
            "compare_on": "off",
            "trial": 0,
            "tie_weight": 0,
        },
        "forc": {
            "strategy": "threshold",
            "threshold": 0.5,
            "fallback": "biggest",
            "alpha": 0,
            "prior": 0.5,
            "comparison_weight": 0,
        },
        "hybrid_llm": {"compare_on": "quality", "alpha": 0, "comparison_weight": 0},
    }
)

STATED: Mapping[str, str] = MappingProxyType(
    {
        "eagle": "Stated: P = 0.5, N = 20, K = 32, comparisons only, a budget that masks (arXiv "
        "2409.15518v2, section 2 and appendix A). Open: the initial rating, of which only "
        "differences matter; the order of replay; what is averaged in the average rating; how a "
        "second answer is explored.",
        "metallm": "Stated: reward a − p·c with a fixed price relative to the largest, ridge and "
        "upper confidence bound on the embedding, p = 0.001 in the best row (arXiv 2407.10834v3, "
        "sections 3 and 4); λ = 12.94 in the released script. Open: α, which the paper never "
        "reports; the script has 0, its class 1, and ours stays at its default.",
        "pickllm_gradient": "Stated by secondary sources alone: linear reward-inaction, the "
        "reward as a fraction with log latency below, b = 0.5 (arXiv 2412.12170). Open: the "
        "weights, the scale and unit of latency, the rule of convergence.",
        "pickllm_q": "Stated: stateless Q-learning with ε-greedy (abstract of arXiv 2412.12170), "
        "and by a secondary source the reward. Open: α, ε and its decay, the weights, the rule of "
        "convergence; Q begins at the textbook's 0.",
        "uniform": "Stated: one model drawn evenly at each turn, on the shared conversation "
        "(Blending, arXiv 2401.02994). Open: nothing.",
        "knn": "Stated: the mean quality of the 40 nearest by cosine (RouterBench, arXiv "
        "2403.12031, and Eagle's appendix A.2), from data in which every arm answered. Open: what "
        "to do where the nearest queries know no outcome of an arm.",
        "routellm_sw": "Stated: weighted Bradley-Terry with γ = 10, a tie as a win each way, no "
        "penalty (arXiv 2406.18665v4, section 4.2, and lm-sys/RouteLLM); the ridge only keeps the "
        "fit finite. Open: the threshold, which is calibrated on traffic.",
        "routellm_mf": "Stated: h = 128 in the code, Adam at 3e-4 with decay 1e-5, ties dropped "
        "(arXiv 2406.18665v4, section 4.2). Open: the threshold; the epochs and the noise are "
        "those of offline training, not of this policy.",
        "forc": "Stated: the cheapest model with p̂ > 0.5, else the biggest (arXiv 2308.06077 and "
        "epfl-dlab/forc). Ours: a logistic head on the frozen embedding in place of the "
        "fine-tuned predictor, with nothing believed beforehand.",
        "hybrid_llm": "Stated: the small model where the router's score reaches the threshold "
        "(arXiv 2404.14618). Ours: logistic heads, the gap from single answers, more than two "
        "arms. Open: the threshold, which is calibrated on 500 queries.",
    }
)

OURS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "nested": {
            "ucb": {"explore": "ucb"},
            "embedding": {"surface": 0.0},
            "steady": {"alarm": 0.0},
            "no-price": {"slope": 0.0, "slope_variance": 1e-6},
            "alike": {"specialists": 0.0},
            "own-cell": {"borrow": 0.0},
            "groups": {"evidence": "groups", "specialists": 0.02},
        }
    }
)
"""Settings of our own policies that the tables show beside the default, as `NAME@SETTING`."""
