"""Routing policies as pure state machines: numpy in, numpy out.

A file of this package without a leading underscore is a policy, named as its file; `river:NAME` is
one of `river.bandit`.
"""

from policies._bradley_terry import fit_bradley_terry
from policies._checks import above, one_of, within
from policies._elo import elo_expected, elo_match
from policies._explore import draw, floor, lift, mix
from policies._factorization import train_factorization
from policies._protocol import (
    Correctable,
    Forgetful,
    LearnsMany,
    ManyAtOnce,
    OwnAlarms,
    Policy,
    Watchful,
    fold_of,
    order_free,
    reads_neighbours,
    watches_arms,
)
from policies._registry import (
    add_directory,
    directories,
    exists,
    load,
    names,
    no_such,
    parameters_of,
    policy_class,
    river_names,
    there_are,
)
from policies._types import (
    SURFACE,
    ArmId,
    Arms,
    Compared,
    Comparison,
    Context,
    Contexts,
    Floats,
    Neighbour,
    Outcome,
    Proposal,
    Proposals,
    Rewarded,
    Vector,
)

__distribution__ = "bandit-service"

__all__ = [
    "SURFACE",
    "ArmId",
    "Arms",
    "Compared",
    "Comparison",
    "Context",
    "Contexts",
    "Correctable",
    "Floats",
    "Forgetful",
    "LearnsMany",
    "ManyAtOnce",
    "Neighbour",
    "Outcome",
    "OwnAlarms",
    "Policy",
    "Proposal",
    "Proposals",
    "Rewarded",
    "Vector",
    "Watchful",
    "above",
    "add_directory",
    "directories",
    "draw",
    "elo_expected",
    "elo_match",
    "exists",
    "fit_bradley_terry",
    "floor",
    "fold_of",
    "lift",
    "load",
    "mix",
    "names",
    "no_such",
    "one_of",
    "order_free",
    "parameters_of",
    "policy_class",
    "reads_neighbours",
    "river_names",
    "there_are",
    "train_factorization",
    "watches_arms",
    "within",
]
