"""Every policy has a page that tells every parameter with its default."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import policies

PAGES = Path(__file__).parents[2] / "docs" / "policies"


@pytest.mark.parametrize("name", policies.river_names())
def test_policies_of_river_share_a_page(name: str) -> None:
    page = (PAGES / "river.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page
    policy = policies.load(name)
    for field in dataclasses.fields(policy):  # type: ignore[arg-type]
        assert f"| `{field.name}` | `{getattr(policy, field.name)!r}` |" in page, field.name


@pytest.mark.parametrize("name", policies.names())
def test_a_policy_has_a_page_with_every_parameter(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    policy = policies.load(name)
    for field in dataclasses.fields(policy):  # type: ignore[arg-type]
        assert f"| `{field.name}` | `{getattr(policy, field.name)!r}` |" in page, field.name
    assert f"({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")
