"""Bounds against the formulas as they were first written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxdask as vd

MIXTURES = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 100)), min_size=2, max_size=5)


def as_first_written(share: list[float], diffusivity: list[float], first: int, ndim: int) -> float:
    """D1 + A / (1 - a A) with a = 1 / (d D1) and A the sum of v_i / (1 / (D_i - D1) + a), of Hashin and Shtrikman."""
    d1 = diffusivity[first]
    a = 1 / (ndim * d1)
    others = [(v, d) for v, d in zip(share, diffusivity, strict=True) if d != d1]
    total = sum(v / (1 / (d - d1) + a) for v, d in others)
    return d1 + total / (1 - a * total)


@given(MIXTURES, st.sampled_from([2, 3]))
def test_bounds_are_as_first_written(mixture: list[tuple[float, float]], ndim: int) -> None:
    share, diffusivity = (list(each) for each in zip(*mixture, strict=True))
    share = [v / sum(share) for v in share]
    lower, upper = vd.hashin_shtrikman_bounds(share, diffusivity, ndim=ndim)
    low, high = int(np.argmin(diffusivity)), int(np.argmax(diffusivity))
    assert lower == pytest.approx(as_first_written(share, diffusivity, low, ndim), rel=1e-9)
    assert upper == pytest.approx(as_first_written(share, diffusivity, high, ndim), rel=1e-9)
    wiener = vd.wiener_bounds(share, diffusivity)
    rounding = 1e-12 * wiener.upper
    assert wiener.lower <= lower + rounding and lower <= upper + rounding and upper <= wiener.upper + rounding
    line = vd.hashin_shtrikman_bounds(share, diffusivity, ndim=1)
    assert line == pytest.approx((wiener.lower, wiener.lower), rel=1e-12)


def test_pores_in_a_solid_that_conducts_nothing() -> None:
    """The upper bounds are those of Maxwell and Rayleigh: spheres 2 p / (3 - p), cylinders p / (2 - p)."""
    for porosity in (0.1, 0.5, 0.9):
        share, diffusivity = {1: porosity, 0: 1 - porosity}, {0: 0.0, 1: 1.0}
        assert vd.wiener_bounds(share, diffusivity) == pytest.approx((0, porosity))
        for ndim, upper in ((2, porosity / (2 - porosity)), (3, 2 * porosity / (3 - porosity))):
            assert vd.hashin_shtrikman_bounds(share, diffusivity, ndim=ndim) == pytest.approx((0, upper))


def test_a_phase_that_is_not_there_does_not_matter() -> None:
    for bounds in (vd.wiener_bounds, vd.hashin_shtrikman_bounds):
        expected = bounds([0.5, 0.5], [1.0, 2.0])
        assert bounds([0.5, 0.0, 0.5], [1.0, 0.0, 2.0]) == expected
        assert bounds({0: 0.5, 7: 0.5}, {7: 2.0, 3: 0.0, 0: 1.0}) == expected
        assert bounds([1.0], [3.0]) == (3.0, 3.0)


def test_fractions_of_an_image() -> None:
    ds = vd.dataset({"image": np.array([[0, 0, 0, 85]])})
    assert vd.wiener_bounds(vd.volume_fractions(ds.image), {0: 1.0, 85: 3.0}).upper == 1.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vd.wiener_bounds({0: 0.5, 1: 0.5}, {0: 1.0}), "diffusivities has none for the phase 1, which"),
        (lambda: vd.wiener_bounds([0.5, 0.5], [1.0]), "fractions has 2 phases, diffusivities 1"),
        (lambda: vd.wiener_bounds([0.5, 0.4], [1.0, 2.0]), r"fractions are \[0.5, 0.4\], of sum 0.9; .* sum to 1"),
        (lambda: vd.wiener_bounds([1.5, -0.5], [1.0, 2.0]), "must be zero or more"),
        (lambda: vd.wiener_bounds([0.5, np.nan], [1.0, 2.0]), "must be zero or more"),
        (lambda: vd.wiener_bounds([0.5, 0.5], [1.0, -2.0]), r"diffusivities are \[1.0, -2.0\]; each must be zero or"),
        (lambda: vd.wiener_bounds([0.5, 0.5], [1.0, np.inf]), "each must be zero or more, and finite"),
        (lambda: vd.wiener_bounds(0.5, [1.0]), "fractions is 0.5; give a number for each phase"),  # type: ignore[arg-type]
        (lambda: vd.hashin_shtrikman_bounds([1.0], [1.0], ndim=4), "ndim is 4; use 1, 2 or 3"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
