"""Every law as a pytest test of a policy of your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from bandit_service.testing.laws import NotApplicable, all_laws
from policies import Policy

_LAWS = all_laws()


class PolicySuite:
    """Subclass it, name the policy, and pytest runs every law on it.

    policy:  the class, or any function without arguments that makes a new policy. The class must be
             importable, since one law folds events in another process.
    exempt:  law → reason. An exemption that is not needed fails, so that none outlives its reason.

    A law about something optional that the policy does not do (corrections, forgetting) is skipped
    and says so.
    """

    policy: ClassVar[Callable[[], Policy[Any]]]
    exempt: ClassVar[Mapping[str, str]] = {}

    @pytest.mark.parametrize("law", _LAWS)
    def test_law(self, law: str) -> None:
        """One law."""
        make = type(self).policy
        reason = self.exempt.get(law)
        if reason is not None:
            with pytest.raises(AssertionError):
                _LAWS[law](make)
            pytest.skip(f"exempt: {reason}")
        try:
            _LAWS[law](make)
        except NotApplicable as lacking:
            pytest.skip(f"not applicable: {lacking}")

    def test_exemptions_name_laws(self) -> None:
        """A misspelt exemption exempts from nothing."""
        assert set(self.exempt) <= set(_LAWS), f"expected one of {', '.join(_LAWS)}"
