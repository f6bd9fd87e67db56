"""Every policy still proposes what was recorded; a change is made with `make golden`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.golden.rewrite_policies import GOLDEN, Answer, proposed, variants

RECORDED: dict[str, dict[str, list[Answer]]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
VARIANTS = variants()


def test_every_policy_is_recorded() -> None:
    missing = sorted(set(VARIANTS) - set(RECORDED))
    gone = sorted(set(RECORDED) - set(VARIANTS))
    assert not missing, f"not in {GOLDEN.name}: {', '.join(missing)}; run `make golden`"
    assert not gone, f"in {GOLDEN.name} only: {', '.join(gone)}; run `make golden`"


@pytest.mark.parametrize("name", sorted(set(VARIANTS) & set(RECORDED)))
def test_a_policy_proposes_what_was_recorded(name: str) -> None:
    now, then = proposed(VARIANTS[name]), RECORDED[name]
    assert list(now) == list(then)
    for cut, answers in now.items():
        for answer, recorded in zip(answers, then[cut], strict=True):
            for part, values in answer.items():
                np.testing.assert_allclose(
                    values, recorded[part], rtol=1e-9, atol=1e-6, err_msg=f"{part} {cut}"
                )
