"""Diffusion with a source, down a gradient of concentration or of a chemical potential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxdask.model import Model
from voxdask.models.factors import called, check_callable, check_factor, product, with_source
from voxdask.symbols import Position, div, grad


@dataclass(frozen=True)
class ReactionDiffusion(Model):
    r"""Diffusion of a concentration with a source.

    .. math:: \partial_t c = \nabla \cdot ( D \nabla c ) + f(t, c, x)

    Parameters
    ----------
    diffusivity : float, DataArray, callable or tuple of these, default 1.0
        D, in units of length squared per time: a number, a field on the same grid, a function of c
        written in the vocabulary of :mod:`voxdask.symbols`, or a tuple of these, of which it is the product. At
        a face a field is the mean of its two voxels, and a function takes the mean of c.
    source : callable, optional
        ``source(t, c, x)``, in units of c per time, written in the same vocabulary; the position has
        the components ``x.x``, ``x.y`` and ``x.z``.

    Raises
    ------
    TypeError
        If an argument is none of these; when the equation is read, if a function returns anything but one
        scalar expression.
    ValueError
        If a number is not positive.

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

    diffusivity: Any = 1.0
    source: Callable[[Any, Any, Position], Any] | None = None

    fields = ("c",)

    def __post_init__(self) -> None:
        check_factor("diffusivity", self.diffusivity)
        check_callable("source", self.source, "t, c, x")

    def rhs(self, t: Any, c: Any) -> Any:
        """The divergence of the flux, and the source."""
        change = div(product("diffusivity", self.diffusivity, c) * grad(c))
        return with_source(change, self.source, t, c)


@dataclass(frozen=True)
class ChemicalDiffusion(Model):
    r"""Diffusion down the gradient of a chemical potential, with a source.

    .. math:: \partial_t c = \nabla \cdot \big( M(c) \nabla \mu(c) \big) + f(t, c, x)

    It is :class:`ReactionDiffusion` with :math:`D = M \mu'`, in another discretisation: a steady state is one of
    equal chemical potential, to round-off, also where the mobility varies.

    Parameters
    ----------
    mobility : float, DataArray, callable or tuple of these
        M, in units of c times length squared per time and energy: a number, a field on the same grid, a function
        of c written in the vocabulary of :mod:`voxdask.symbols`, or a tuple of these, of which it is the product.
        At a face a field is the mean of its two voxels, and a function takes the mean of c.
    potential : callable
        :math:`\mu(c)`, in units of energy, in the same vocabulary; it must rise with c, for where it falls
        diffusion runs uphill, and what makes interfaces then is missing (see :class:`CahnHilliard`).
    source : callable, optional
        ``source(t, c, x)``, in units of c per time, in the same vocabulary.

    Raises
    ------
    TypeError
        If an argument is none of these; when the equation is read, if a function returns anything but one
        scalar expression.
    ValueError
        If a number is not positive.

    References
    ----------
    Daubner et al. (2025), arXiv:2507.21748

    Examples
    --------
    An ideal solution has the potential ln c; with the mobility D c that is diffusion as Fick has it:

    >>> import numpy as np, voxdask as vd
    >>> ideal = vd.models.ChemicalDiffusion(lambda c: 2.0 * c, vd.log)
    >>> ds = vd.dataset({"c": 0.5 + 0.01 * np.sin(2 * np.pi * np.arange(32) / 32)})
    >>> fick = vd.models.ReactionDiffusion(2.0).right_hand_side(ds)
    >>> bool(abs(ideal.right_hand_side(ds).c - fick.c).max() < 1e-3 * abs(fick.c).max())
    True
    """

    mobility: Any
    potential: Callable[[Any], Any]
    source: Callable[[Any, Any, Position], Any] | None = None

    fields = ("c",)

    def __post_init__(self) -> None:
        check_factor("mobility", self.mobility)
        if self.potential is None:
            raise TypeError("potential is None; give a function potential(c)")
        check_callable("potential", self.potential, "c")
        check_callable("source", self.source, "t, c, x")

    def rhs(self, t: Any, c: Any) -> Any:
        """The divergence of the mobility times the gradient of the potential, and the source."""
        mu = called("potential", self.potential, c)
        return with_source(div(product("mobility", self.mobility, c) * grad(mu)), self.source, t, c)
