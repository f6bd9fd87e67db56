"""Who takes part: every row of the table, with its parameters and the features that it reads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bandit_service.settings import Settings
from loadtest.peers import contextualbandits, mabwiser, paretobandit, river, vw
from loadtest.peers.protocol import Floored, Peer, Problem, Shifted
from policies.metallm import MetaLLM

EMBEDDING, PCA = "embedding", "pca25"
FEATURES = (EMBEDDING, PCA)
OURS = "ours"

_DEFAULTS = Settings()
SHARE = _DEFAULTS.exploration.share
_MAKE: dict[str, Callable[..., Peer]] = {
    "ParetoBandit": paretobandit.ParetoBandit,
    "MABWiser": mabwiser.MABWiser,
    "RiverLinUCB": river.RiverLinUCB,
    "RiverContextFree": river.RiverContextFree,
    "VowpalWabbit": vw.VowpalWabbit,
    "ContextualBandits": contextualbandits.ContextualBandits,
}
# package: (module, the command that installs it)
PACKAGES = {
    "paretobandit": ("pareto_bandit", paretobandit.INSTALL),
    "mabwiser": ("mabwiser", mabwiser.INSTALL),
    "river": ("river", river.INSTALL),
    "vowpalwabbit": ("vowpalwabbit", vw.INSTALL),
    "contextualbandits": ("contextualbandits", contextualbandits.INSTALL),
}


@dataclass(frozen=True, slots=True)
class Entrant:
    """One row.

    package: the library, or "ours". says: what sets this row apart from the library's others.
    make: the adapter's class, or the policy's name for ours. options: its keyword arguments.
    share: of the queries, which goes to all arms alike. slow: takes so long that it runs with few
    seeds. paced: is given our realised cost as its budget. shifted: is taught reward − 1.
    arms: runs only where these are the arms, sorted; () for any.
    """

    package: str
    says: str
    make: str
    features: str
    options: Mapping[str, Any] = field(default_factory=dict)
    share: float = 0.0
    slow: bool = False
    paced: bool = False
    shifted: bool = False
    arms: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What stands in the table."""
        who = self.make if self.package == OURS else self.package
        what = [who, *([self.says] if self.says else []), *["reward − 1"] * self.shifted]
        return f"{', '.join(what)} [{self.features}]"

    def peer(self, problem: Problem) -> Peer:
        """A fresh peer; Missing where its package is not installed."""
        peer = _MAKE[self.make](problem, **self.options)
        if self.share:
            peer = Floored(peer, problem, self.share)
        return Shifted(peer) if self.shifted else peer


def reference(share: float = SHARE) -> Entrant:
    """The row that the others are compared with: the service's default policy."""
    return _ours(_DEFAULTS.policy.name, EMBEDDING, share)


def entrants(
    policies: Sequence[str] = (),
    *,
    only: Sequence[str] = (),
    features: Sequence[str] = FEATURES,
    share: float = SHARE,
) -> list[Entrant]:
    """The reference and everyone else, all at one floor.

    policies: of ours, beside the service's default. share: of the queries, which goes to all arms
    alike in every row.
    """
    ours = [
        _ours(policy, each, share)
        for policy in dict.fromkeys([_DEFAULTS.policy.name, *policies])
        for each in FEATURES
    ]
    peers = [replace(each, share=share) for each in _peers()]
    found = [each for each in [*ours, *peers] if each.features in features]
    if only:
        found = [each for each in found if each.package in only]
    first = reference(share)
    return [first, *(each for each in found if each != first)]


def installed(package: str) -> bool:
    """Whether the package is there; it is not imported."""
    return package == OURS or importlib.util.find_spec(PACKAGES[package][0]) is not None


def _ours(policy: str, features: str, share: float) -> Entrant:
    return Entrant(OURS, "", policy, features, share=share)


def _peers() -> list[Entrant]:
    ours = MetaLLM()
    alpha, ridge = ours.alpha, ours.ridge
    as_ours = f"α {alpha:g}, λ {ridge:g}"
    found = _paretobandits(alpha, ridge, as_ours)
    for features in FEATURES:
        slow = features == EMBEDDING  # it inverts a matrix for every outcome

        def mab(says: str, features: str = features, slow: bool = slow, **options: Any) -> Entrant:
            return Entrant("mabwiser", says, "MABWiser", features, options, slow=slow)

        def vowpal(explore: str, features: str = features) -> Entrant:
            options = {"explore": explore}
            return Entrant("vowpalwabbit", explore, "VowpalWabbit", features, options)

        found += [
            mab("LinUCB", policy="LinUCB"),
            mab(f"LinUCB, {as_ours}", policy="LinUCB", alpha=alpha, ridge=ridge),
            Entrant("river", "LinUCBDisjoint", "RiverLinUCB", features),
            Entrant(
                "river",
                f"LinUCBDisjoint, {as_ours}",
                "RiverLinUCB",
                features,
                {"alpha": ridge / alpha**2, "beta": 1.0 / alpha**2},
            ),
            vowpal("--epsilon 0.1"),
            vowpal("--bag 5"),
            vowpal("--squarecb"),
            Entrant("contextualbandits", "LinUCB", "ContextualBandits", features),
            Entrant(
                "contextualbandits",
                f"LinUCB, {as_ours}",
                "ContextualBandits",
                features,
                {"alpha": alpha, "ridge": ridge, "intercept": False},
            ),
        ]
        if features == PCA:
            found.append(mab("LinTS", policy="LinTS"))
    # Whether it is the optimism that makes the difference: one row of each that begins at 0.
    optimists = ("no forgetting", "--squarecb", f"LinUCB, {as_ours}", f"LinUCBDisjoint, {as_ours}")
    found += [
        replace(each, shifted=True)
        for each in found
        if each.says.endswith(optimists) and not each.slow
    ]
    for policy, options in (("EpsilonGreedy", {"epsilon": 0.1}), ("UCB", {"delta": 1.0})):
        says = f"{policy} {next(iter(options.values())):g}, reads no query"
        found.append(
            Entrant("river", says, "RiverContextFree", EMBEDDING, {"policy": policy, **options})
        )
    return found


def _paretobandits(alpha: float, ridge: float, as_ours: str) -> list[Entrant]:
    own = tuple(paretobandit.own_arms()) if installed("paretobandit") else ()

    def row(says: str, features: str, **options: Any) -> Entrant:
        paced = options.pop("paced", False)
        arms = own if options.get("warm") else ()
        return Entrant(
            "paretobandit", says, "ParetoBandit", features, options, paced=paced, arms=arms
        )

    # What the package has for a cold start: BEST_K3_TABULA_RASA_HPARAMS, ExplorationRate.BALANCED.
    cold, balanced = 0.05, 1.0
    found = []
    for features in FEATURES:
        found += [
            row("as documented", features),
            row("as documented, α 0.05", features, alpha=cold),
            row("our reward", features, scalar=True),
            row("our reward, α 0.05", features, scalar=True, alpha=cold),
            row("our reward, α 1", features, scalar=True, alpha=balanced),
            row(f"our reward, {as_ours}", features, scalar=True, alpha=alpha, ridge=ridge),
            row(
                f"our reward, {as_ours}, no forgetting",
                features,
                scalar=True,
                alpha=alpha,
                ridge=ridge,
                forgetting=1.0,
            ),
        ]
    return [
        *found,
        row("as documented, warm", PCA, warm=True),
        row("our reward, warm", PCA, scalar=True, warm=True),
        row("as documented, paced to our cost", PCA, paced=True),
        row("as documented, warm, paced to our cost", PCA, warm=True, paced=True),
    ]
