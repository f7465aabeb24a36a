"""What the effective diffusivity of a mixture can be, given how much there is of each phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

#: How far fractions may be from a sum of 1.
_TOLERANCE = 1e-6

#: A number for each phase: by label, or in the same order as others.
PerPhase = xr.DataArray | Mapping[int, float] | Sequence[float]


class Bounds(NamedTuple):
    """Limits between which something lies."""

    lower: float
    upper: float


def wiener_bounds(fractions: PerPhase, diffusivities: PerPhase) -> Bounds:
    r"""The bounds of the effective diffusivity of any mixture in any direction, isotropic or not.

    .. math:: \Big( \sum_i \varphi_i / D_i \Big)^{-1} \le D_\mathrm{eff} \le \sum_i \varphi_i D_i

    Layers across the flow take the lower one, layers along it the upper one.

    Parameters
    ----------
    fractions : DataArray, mapping or sequence
        Volume fraction of each phase, dimensionless, as of :func:`voxdask.volume_fractions`, a mapping by label, or one
        after the other. They sum to 1.
    diffusivities : DataArray, mapping or sequence
        Of each phase, with the same labels or in the same order; zero or more, in any unit.

    Returns
    -------
    Bounds
        ``lower`` and ``upper``, in the unit of the diffusivities.

    Raises
    ------
    ValueError
        If a phase has no diffusivity, the numbers of both differ, fractions are negative or do not sum to 1, or a
        diffusivity is negative or not finite.

    References
    ----------
    Wiener (1912), Abh. Math.-Phys. Kl. Königl. Sächs. Ges. Wiss. 32, 509

    Examples
    --------
    >>> wiener_bounds({0: 0.5, 1: 0.5}, {0: 1.0, 1: 3.0})
    Bounds(lower=1.5, upper=2.0)
    """
    share, diffusivity = _checked(fractions, diffusivities)
    return Bounds(_lower_mean(share, diffusivity, 0.0), float(share @ diffusivity))


def hashin_shtrikman_bounds(fractions: PerPhase, diffusivities: PerPhase, *, ndim: int = 3) -> Bounds:
    r"""The bounds of the effective diffusivity of a mixture that is isotropic, of any number of isotropic phases.

    .. math::

        D(s) \le D_\mathrm{eff} \le D(S), \qquad
        D(s) = \Big( \sum_i \frac{\varphi_i}{D_i + (d - 1) s} \Big)^{-1} - (d - 1) s

    in d dimensions, with the least diffusivity s and the largest one S of the phases that are there. Coated spheres,
    or discs, take them where there are two phases. In one dimension, both are the lower one of Wiener.

    Parameters
    ----------
    fractions : DataArray, mapping or sequence
        Volume fraction of each phase, dimensionless, as of :func:`voxdask.volume_fractions`, a mapping by label, or one
        after the other. They sum to 1.
    diffusivities : DataArray, mapping or sequence
        Of each phase, with the same labels or in the same order; zero or more, in any unit.
    ndim : {1, 2, 3}, default 3
        Number of dimensions d.

    Returns
    -------
    Bounds
        ``lower`` and ``upper``, in the unit of the diffusivities.

    Raises
    ------
    ValueError
        If a phase has no diffusivity, the numbers of both differ, fractions are negative or do not sum to 1, a
        diffusivity is negative or not finite, or `ndim` is not 1, 2 or 3.

    References
    ----------
    Hashin and Shtrikman (1962), J. Appl. Phys. 33, 3125, doi:10.1063/1.1728579

    Examples
    --------
    >>> bounds = hashin_shtrikman_bounds({"pore": 0.4, "solid": 0.6}, {"pore": 1.0, "solid": 0.0})
    >>> bounds.lower, round(bounds.upper, 4)  # the upper one is that of Maxwell: 2 * 0.4 / (3 - 0.4)
    (0.0, 0.3077)
    """
    if ndim not in (1, 2, 3):
        raise ValueError(f"ndim is {ndim!r}; use 1, 2 or 3")
    share, diffusivity = _checked(fractions, diffusivities)
    ends = (diffusivity.min(), diffusivity.max())
    return Bounds(*(_lower_mean(share, diffusivity, (ndim - 1) * float(end)) for end in ends))


def _lower_mean(share: np.ndarray, diffusivity: np.ndarray, shift: float) -> float:
    """The harmonic mean of what is larger by a shift, less the shift; zero where a phase conducts nothing."""
    shifted = diffusivity + shift
    return float(1 / (share @ (1 / shifted)) - shift) if shifted.min() > 0 else 0.0


def _checked(fractions: PerPhase, diffusivities: PerPhase) -> tuple[np.ndarray, np.ndarray]:
    """Fractions and diffusivities of the phases that are there, in one order."""
    share, diffusivity = _by_label("fractions", fractions), _by_label("diffusivities", diffusivities)
    if isinstance(share, dict) and isinstance(diffusivity, dict):
        missing = [label for label, fraction in share.items() if label not in diffusivity and fraction != 0]
        if missing:
            raise ValueError(f"diffusivities has none for the phase {missing[0]!r}, which fractions holds; give one")
        share = {label: fraction for label, fraction in share.items() if label in diffusivity}
        diffusivity = {label: diffusivity[label] for label in share}
    a, b = (np.array([*each.values()] if isinstance(each, dict) else each, float) for each in (share, diffusivity))
    if len(a) != len(b):
        raise ValueError(f"fractions has {len(a)} phases, diffusivities {len(b)}; give as many of both")
    if not np.all(a >= 0) or not math.isclose(a.sum(), 1, abs_tol=_TOLERANCE):
        raise ValueError(f"fractions are {a.tolist()}, of sum {a.sum():g}; they must be zero or more, and sum to 1")
    if not np.all((b >= 0) & np.isfinite(b)):
        raise ValueError(f"diffusivities are {b.tolist()}; each must be zero or more, and finite")
    return a[a > 0], b[a > 0]


def _by_label(argument: str, values: Any) -> dict[Any, float] | list[float]:
    """Numbers by label, where there are labels."""
    try:
        if isinstance(values, xr.DataArray) and values.dims == ("phase",):
            return dict(zip(values.phase.values.tolist(), map(float, values.values), strict=True))
        if isinstance(values, Mapping):
            return {label: float(value) for label, value in values.items()}
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} is {values!r}; give a number for each phase, e.g. {{0: 0.4, 1: 0.6}}") from error
