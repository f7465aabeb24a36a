"""Two species that feed on each other: patterns of Gray and Scott."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import xarray as xr

from voxdask.model import Model
from voxdask.models.factors import called, check_callable
from voxdask.symbols import div, grad


@dataclass(frozen=True)
class GrayScott(Model):
    r"""Reaction and diffusion of a substrate A and an autocatalyst B.

    .. math::

        \partial_t A &= \nabla \cdot ( D_A \nabla A ) - I + f (1 - A) \\
        \partial_t B &= \nabla \cdot ( D_B \nabla B ) + I - k B, \qquad I = A B^2

    A is fed from a reservoir where A = 1, and turns into B where there is B; B decays. Without B, the state
    A = 1 is at rest and stable; a spot of B grows into spots, stripes or corals, by f and k.

    Parameters
    ----------
    D_A, D_B : float or DataArray, default 1.0 and 0.5
        Diffusivities, in units of length squared per time; at a face the mean of its two voxels.
    feed, kill : float or DataArray, default 0.055 and 0.117
        Rates f at which A is replenished and k at which B is lost, in units of 1 / time; not negative. Some
        authors write f + k for the k of here.
    interaction : callable, optional
        ``interaction(A, B)``, the rate I at which A turns into B, written in :mod:`voxdask.symbols`;
        by default A B^2.

    Raises
    ------
    TypeError
        If a coefficient is neither a number nor a DataArray, or the interaction is no function.
    ValueError
        If a diffusivity is not positive, or a rate is negative.

    References
    ----------
    Gray and Scott (1984), Chem. Eng. Sci. 39, 1087, doi:10.1016/0009-2509(84)87017-7; Pearson (1993),
    Science 261, 189, doi:10.1126/science.261.5118.189

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"A": np.full(4, 1.0), "B": np.full(4, 0.0)})
    >>> run = vd.simulate(vd.models.GrayScott(), ds, dt=1.0, steps=5, progress=False)
    >>> run.A[-1].values   # nothing happens without B
    array([1., 1., 1., 1.])
    """

    D_A: Any = 1.0
    D_B: Any = 0.5
    feed: Any = 0.055
    kill: Any = 0.117
    interaction: Callable[[Any, Any], Any] | None = None

    fields = ("A", "B")

    def __post_init__(self) -> None:
        self._require_positive("D_A", "D_B")
        for name in ("feed", "kill"):
            rate = getattr(self, name)
            if isinstance(rate, numbers.Real) and rate < 0:
                raise ValueError(f"{name} is {rate!r}; it must not be negative")
            if isinstance(rate, xr.DataArray) or rate != 0:
                self._require_positive(name)
        check_callable("interaction", self.interaction, "A, B")

    def rhs(self, t: Any, A: Any, B: Any) -> Any:
        """Diffusion, conversion, supply and decay."""
        converted = A * B**2 if self.interaction is None else called("interaction", self.interaction, A, B)
        return (
            div(self.D_A * grad(A)) - converted + self.feed * (1 - A),
            div(self.D_B * grad(B)) + converted - self.kill * B,
        )
