"""Diffusion with a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxdask.model import Model
from voxdask.symbols import Position, div, grad


@dataclass(frozen=True)
class ReactionDiffusion(Model):
    r"""Diffusion of a concentration with a source.

    .. math:: \partial_t c = \nabla \cdot ( D \nabla c ) + f(t, c, x)

    Parameters
    ----------
    diffusivity : float, DataArray or callable, default 1.0
        D, in units of length squared per time: a number, a field on the same grid, or a function of c
        written in the vocabulary of :mod:`voxdask.symbols`. At a face a field is the mean of its two
        voxels, and a function takes the mean of c.
    source : callable, optional
        ``source(t, c, x)``, in units of c per time, written in the same vocabulary; the position has
        the components ``x.x``, ``x.y`` and ``x.z``.

    References
    ----------
    Daubner et al. (2025), arXiv:2507.21748

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> logistic = vd.models.ReactionDiffusion(0.1, source=lambda t, c, x: c * (1 - c))
    >>> ds = vd.dataset({"c": np.full(8, 0.5)})
    >>> run = vd.simulate(logistic, ds, dt=0.01, t_end=1.0, stepper="rk4", progress=False)
    >>> bool(abs(run.c[-1, 0] - 1 / (1 + np.exp(-1.0))) < 1e-9)
    True
    """

    diffusivity: float | Any = 1.0
    source: Callable[[Any, Any, Position], Any] | None = None

    fields = ("c",)

    def __post_init__(self) -> None:
        if not callable(self.diffusivity):
            self._require_positive("diffusivity")

    def rhs(self, t: Any, c: Any) -> Any:
        """The divergence of the flux, and the source."""
        diffusivity = self.diffusivity(c) if callable(self.diffusivity) else self.diffusivity
        change = div(diffusivity * grad(c))
        return change if self.source is None else change + self.source(t, c, Position())
