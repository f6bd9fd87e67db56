"""Bradley-Terry: strengths of arms from how often each beat each.

P(i beats j) = σ(ξ_i − ξ_j), σ(x) = 1 / (1 + e^−x). RouteLLM (arXiv 2406.18665, section 4.2) scales
the same ξ by 400 / ln 10, as Elo does; here they are natural logarithms.
"""

from __future__ import annotations

import numpy as np

from policies._checks import above
from policies._types import Floats

_REACH = 4.0


def fit_bradley_terry(wins: Floats, ridge: float, *, iterations: int = 200) -> Floats:
    r"""The strengths of highest likelihood. (K, K) -> (K,), natural logarithms.

    ξ = argmax Σ_ij wins_ij·ln σ(ξ_i − ξ_j) − ridge/2·Σ_i ξ_i²

    wins:  wins_ij >= 0, how often, or with what weight, i beat j; a tie is half a win for each,
           or one for each as in RouteLLM's code. The diagonal is ignored.
    ridge: > 0, in units of a comparison. It keeps an arm that always won finite, puts the mean of
           ξ at 0 and an arm never compared there too. RouteLLM has none; 1e-6 is as good as none
           wherever every arm won and lost.

    Newton's method, O(K³) an iteration, 5 to 40 of them; where a full step would not raise the
    likelihood, a step of ln(1 + r)/r of it, r being the largest change of a difference, does
    (generalised self-concordance, Sun and Tran-Dinh, arXiv 1703.04599).

    >>> fit_bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), 1e-9).round(6).tolist()
    [0.549306, -0.549306]
    """
    wins = _checked(wins)
    above("ridge", ridge, 0.0)
    strengths = np.zeros(len(wins))
    value = _likelihood(wins, ridge, strengths)
    for _ in range(iterations if len(wins) else 0):
        step = _newton(wins, ridge, strengths)
        reach = float(step.max() - step.min())
        tried = strengths + step * min(1.0, _REACH / max(reach, 1e-300))
        raised = _likelihood(wins, ridge, tried)
        if not raised >= value:
            tried = strengths + step * (float(np.log1p(reach)) / max(reach, 1e-300))
            raised = _likelihood(wins, ridge, tried)
        strengths, value = tried, raised
        if reach <= 1e-10:
            break
    return strengths


def nearly_fit(wins: Floats, ridge: float, iterations: int) -> Floats:
    """As `fit_bradley_terry`, in a fixed number of steps, so that it costs the same every time.

    16 iterations are exact to 1e-9 at a ridge of 1 even where an arm won each of 1,000 matches.
    """
    strengths = np.zeros(len(wins))
    for _ in range(iterations if len(wins) else 0):
        step = _newton(wins, ridge, strengths)
        reach = float(step.max() - step.min())
        strengths = strengths + step * min(1.0, _REACH / max(reach, 1e-300))
    return strengths


def _newton(wins: Floats, ridge: float, strengths: Floats) -> Floats:
    """−H⁻¹g: g_i = Σ_j wins_ij − N_ij·p_ij − ridge·ξ_i, H = −Laplacian of N·p·(1 − p) − ridge·I."""
    k = len(wins)
    # beyond ±700 e^x overflows, and p is 0 or 1 in double precision long before
    behind = np.clip(np.subtract.outer(-strengths, -strengths), -700.0, 700.0)
    p = 1.0 / (1.0 + np.exp(behind))
    expected = (wins + wins.T) * p
    gradient = (wins - expected).sum(axis=1) - ridge * strengths
    curvature = expected * p.T
    hessian = -curvature
    hessian.flat[:: k + 1] += curvature.sum(axis=1) + ridge
    step: Floats = np.linalg.solve(hessian, gradient)
    # the mean of ξ is 0 at the optimum; a small ridge alone would leave it to rounding
    step -= step.mean()
    return step


def _likelihood(wins: Floats, ridge: float, strengths: Floats) -> float:
    losses = np.logaddexp(0.0, np.subtract.outer(-strengths, -strengths))
    return float(-(wins * losses).sum() - 0.5 * ridge * (strengths @ strengths))


def _checked(wins: Floats) -> Floats:
    wins = np.array(wins, dtype=np.float64)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
        raise ValueError(f"wins: must have shape (K, K), got {wins.shape}")
    if not (np.isfinite(wins).all() and (wins >= 0.0).all()):
        raise ValueError("wins: must be finite numbers >= 0")
    np.fill_diagonal(wins, 0.0)
    return wins
