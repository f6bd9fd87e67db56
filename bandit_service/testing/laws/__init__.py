"""What every policy promises. Each public function of these modules is one law; its name says it.

A law takes a factory of policies and raises AssertionError when the policy breaks it:

    for law in all_laws().values():
        with contextlib.suppress(NotApplicable):  # of what the policy does not claim to do
            law(MyPolicy)

The policy's class must be importable, since one law folds events in another process.
`bandit_service.testing.PolicySuite` makes a pytest test of each.
"""

from __future__ import annotations

import inspect

from bandit_service.testing.laws import configured, lasting, learning, proposing
from bandit_service.testing.laws.parts import Factory, Law, NotApplicable

__all__ = ["Factory", "Law", "NotApplicable", "all_laws"]


def all_laws() -> dict[str, Law]:
    """Every law by its name, in the order of the files."""
    return {
        name: law
        for module in (proposing, learning, lasting, configured)
        for name, law in vars(module).items()
        if inspect.isfunction(law)
        and law.__module__ == module.__name__
        and not name.startswith("_")
    }
