"""Every policy keeps every law, and nobody is left out."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import policies
from bandit_service.testing import laws
from policies import Policy

LAWS = laws.all_laws()
NAMES = (*policies.names(), *policies.river_names())
EXEMPTIONS = Path(__file__).with_name("exemptions.toml")
NOT_APPLICABLE: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("not_applicable.toml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Variant:
    """A policy as it is tried: by default, or as one of its own examples."""

    name: str
    policy: Policy[Any]
    of: str

    def __call__(self) -> Policy[Any]:
        """A new instance, since a policy may hold no memory of its own."""
        return dataclasses.replace(self.policy)  # type: ignore[type-var]


def _variants(name: str) -> list[Variant]:
    cls = policies.policy_class(name)
    found = [Variant(name, cls(), name)]
    for i, example in enumerate(getattr(cls, "examples", list)(), start=1):
        found.append(Variant(f"{name}-{i}", example, name))
    return found


def every_case() -> set[str]:
    """What a whole run of `test_law` must have run: each variant of each policy × each law."""
    return {f"{v.name}-{law}" for name in NAMES for v in _variants(name) for law in laws.all_laws()}


VARIANTS = {variant.name: variant for name in NAMES for variant in _variants(name)}
CASES = list(product(VARIANTS, LAWS))


@pytest.mark.parametrize(("variant", "law"), CASES)
def test_law(variant: str, law: str) -> None:
    case = VARIANTS[variant]
    reason = getattr(case.policy, "exempt", {}).get(law)
    if reason is None:
        reviewed = case.of in NOT_APPLICABLE.get(law, ())
        why = ""
        try:
            LAWS[law](case)
        except laws.NotApplicable as lacking:
            why = str(lacking)
        listed = f'"{case.of}" under {law} in tests/laws/not_applicable.toml'
        assert not why or reviewed, f"not applicable: {why}; if that is meant, add {listed}"
        assert why or not reviewed, f"the law holds: remove {listed}"
        if why:
            pytest.skip(f"not applicable: {why}")
        return
    with pytest.raises(AssertionError):  # an exemption that is not needed is not true
        LAWS[law](case)
    pytest.skip(f"exempt: {reason}")


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_of_the_wrong_type_is_refused_by_name(name: str) -> None:
    cls: Any = policies.policy_class(name)
    for field in dataclasses.fields(cls):
        wrong: list[Any] = [[], {}, None if field.default is not None else "much"]
        wrong.append("much" if not isinstance(field.default, str) else 3)
        if isinstance(field.default, int):
            wrong.append(2.5)
        for value in wrong:
            with pytest.raises(ValueError, match=f"^{field.name}: must be "):
                policies.load(name, **{field.name: value})


def test_exemptions_are_those_that_were_reviewed() -> None:
    claimed = {
        name: dict(exempt)
        for name in NAMES
        if (exempt := getattr(policies.policy_class(name), "exempt", {}))
    }
    with EXEMPTIONS.open("rb") as file:
        reviewed = tomllib.load(file)
    assert claimed == reviewed
    unknown = {law for exempt in claimed.values() for law in exempt} - set(LAWS)
    assert not unknown, "an exemption names no law"
