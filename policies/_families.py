"""What the arms of one family have in common, from what is known of each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies._types import Arms, Floats


def with_kin(arms: Arms) -> Arms:
    """These arms, and after them those of their families that are not eligible."""
    kin = arms.kin
    if kin is None or arms.family is None:
        return arms
    first = [each.price if each.first_price is None else each.first_price for each in (arms, kin)]
    return replace(
        arms,
        ids=arms.ids + kin.ids,
        price=np.concatenate([arms.price, kin.price]),
        first_price=np.concatenate(first),
        family=arms.family + (kin.family or ("",) * len(kin)),
        kin=None,
    )


class KinOf:
    """Which arms are of one family. share: f, the part of what varies that a family has in common.

    It is false where no family has two arms.
    """

    def __init__(self, arms: Arms, share: float) -> None:
        names = np.array(arms.family or ())
        there = sorted(set(arms.family or ()) - {""})
        found = (np.flatnonzero(names == name) for name in there)
        self._families = [family for family in found if len(family) > 1]
        self._share = share

    def __bool__(self) -> bool:
        return bool(self._families)

    def told(
        self, noise: Floats, m: Floats, n: Floats, s: Floats, varies: float
    ) -> tuple[Floats, Floats, Floats]:
        """What is believed of each arm with what its family tells, the variance of that, and by
        how much each arm varies around it.

        d = Σ (s_j − n_j·m_j)/(v·n_j + s²) / (1/c + Σ n_j/(v·n_j + s²)) over the arms of a family,
        c = f·varies, v = (1 − f)·varies; without a family 0, 0 and varies.
        """
        common, own = self._share * varies, (1.0 - self._share) * varies
        each = 1.0 / (own * n + noise)
        lack, weight = (s - m * n) * each, n * each
        told, unsure = np.zeros(lack.shape), np.zeros(lack.shape)
        varying = np.full(lack.shape, varies)
        for family in self._families:
            of_all = 1.0 / common + _total(weight, family)
            told[..., family] = _total(lack, family) / of_all
            unsure[..., family] = 1.0 / of_all
            varying[..., family] = own
        return m + told, unsure, varying


def _total(values: Floats, family: NDArray[np.intp]) -> Floats:
    """The sum over the arms of a family; in one order, however many queries there are."""
    total: Floats = np.add.reduce(np.take(values, family, axis=-1), axis=-1, keepdims=True)
    return total
