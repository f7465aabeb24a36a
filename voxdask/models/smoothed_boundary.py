"""Physics inside a body of any shape, which an indicator field marks out on the voxel grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import xarray as xr

from voxdask.equation import Weight
from voxdask.model import Model
from voxdask.models.cahn_hilliard import CahnHilliard
from voxdask.models.factors import called, check_callable, check_factor, product, require_number, with_source
from voxdask.symbols import Position, Vector, clip, div, face, grad, norm

#: The indicator is not taken below this, so that the equation can be divided by it.
LEAST = 1e-4


def bounded(psi: Any) -> Any:
    """The indicator as a divisor: limited to [1e-4, 1]."""
    return clip(psi, LEAST, 1)


def inside(flow: Vector, psi: Any) -> Any:
    r"""The divergence of a flow that the indicator confines to a body, :math:`\nabla\cdot(\psi\,v) / \psi`."""
    return div(face(bounded(psi)) * flow) / bounded(psi)


class _SmoothedBoundary(Model):
    """What smoothed-boundary models share: the field, its indicator, the influx at the wall."""

    fields = ("c",)
    auxiliary = ("psi",)
    weights: ClassVar[dict[str, Weight]] = {"c": Weight("psi", least=LEAST)}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"psi": (0.0, 1.0)}
    # where psi falls by a factor r per voxel, the equation is (1 + r)^2 / 4r times stiffer: 1.6 for three voxels
    stiffness: ClassVar[float] = 2.0

    flux: Any
    source: Any

    def _check_supply(self) -> None:
        """Raise unless flux and source are what they may be."""
        if not callable(self.flux) and not isinstance(self.flux, xr.DataArray):
            require_number("flux", self.flux)
        check_callable("source", self.source, "t, c, x")

    def _supply(self, t: Any, c: Any, psi: Any) -> Any:
        """What comes in through the wall and from sources."""
        flux = called("flux", self.flux, t, c, Position()) if callable(self.flux) else self.flux
        return with_source(norm(grad(psi)) * flux / bounded(psi), self.source, t, c)


@dataclass(frozen=True)
class SmoothedBoundaryDiffusion(_SmoothedBoundary):
    r"""Diffusion inside a body with a source, and an influx through its surface.

    .. math::

        \partial_t c = \frac{1}{\psi} \Big[ \nabla \cdot ( \psi D \nabla c ) + |\nabla \psi|\, j \Big] + f(t, c, x)

    The indicator :math:`\psi` is 1 inside the body, 0 outside, and passes smoothly from one to the other
    over a few voxels; :math:`|\nabla \psi|` stands for the surface. As the interface gets thinner the solution
    tends to that of diffusion in the body with :math:`D\, \partial_n c = j` on its surface. The equation
    conserves: the sum of :math:`\psi c` changes by what comes in alone, with :math:`\psi` limited to
    [1e-4, 1] as it is in the equation. What c is outside means nothing, and does not matter.

    Parameters
    ----------
    diffusivity : float, DataArray, callable or tuple, default 1.0
        D, in units of length squared per time: a number, a field, a function of c, or a product of these. At a
        face a field is the mean of its two voxels, and a function takes the mean of c.
    source : callable, optional
        ``source(t, c, x)``, in units of c per time, written in :mod:`voxdask.symbols`.
    flux : float, DataArray or callable, default 0.0
        j, in units of c times length per time, positive into the body: a number, a field, or a function
        ``flux(t, c, x)``, such as ``lambda t, c, x: k * (1 - c)`` for exchange with a reservoir.

    Notes
    -----
    The dataset needs the indicator as a field ``psi``; :func:`voxdask.indicator` makes one from a segmented
    image. An interface of three to six voxels is a good choice. Explicit steps have to be about half as long as
    without an indicator. Semi-implicit ones conserve the sum of :math:`\psi c` too.

    Raises
    ------
    TypeError
        If the flux or the source is none of these.
    ValueError
        If the diffusivity is a number that is not positive; when run, if psi leaves [0, 1].

    References
    ----------
    Yu, Chen and Thornton (2012), Modelling Simul. Mater. Sci. Eng. 20, 075008,
    doi:10.1088/0965-0393/20/7/075008; in the form with u = psi c Daubner et al. (2025), arXiv:2507.21748

    Examples
    --------
    A slab of width 12 takes up 0.1 per area and time on either side:

    >>> import numpy as np, voxdask as vd
    >>> x = np.arange(24.0) + 0.5
    >>> psi = (np.tanh(x - 6) - np.tanh(x - 18)) / 2
    >>> ds = vd.dataset({"c": np.zeros(24), "psi": psi})
    >>> model = vd.models.SmoothedBoundaryDiffusion(flux=0.1)
    >>> run = vd.simulate(model, ds, dt=0.01, t_end=3.0, stepper="rk4", boundary="neumann", progress=False)
    >>> round(float((psi * run.c[-1]).sum()), 3)
    0.6
    """

    diffusivity: Any = 1.0
    source: Callable[[Any, Any, Position], Any] | None = None
    flux: Any = 0.0

    def __post_init__(self) -> None:
        check_factor("diffusivity", self.diffusivity)
        self._check_supply()

    def rhs(self, t: Any, c: Any, psi: Any) -> Any:
        """Flow inside, influx through the surface, and the source."""
        return inside(product("diffusivity", self.diffusivity, c) * grad(c), psi) + self._supply(t, c, psi)


@dataclass(frozen=True)
class SmoothedBoundaryCahnHilliard(_SmoothedBoundary, CahnHilliard):
    r"""Phase separation inside a body, with an influx through its surface.

    .. math::

        \partial_t c = \frac{1}{\psi} \Big[ \nabla \cdot ( \psi D\, m(c) \nabla \mu ) + |\nabla \psi|\, j \Big]
        + f(t, c, x), \qquad \mu = \mu_0(c) - \frac{2 \varepsilon}{\psi} \nabla \cdot ( \psi \nabla c )

    Everything of :class:`CahnHilliard`, inside the body that the indicator :math:`\psi` marks out as for
    :class:`SmoothedBoundaryDiffusion`. Interfaces between the phases meet its surface at a right angle: it
    prefers neither. The sum of :math:`\psi c` changes by what comes in alone.

    Parameters
    ----------
    eps, diffusivity, potential, mobility, source
        As for :class:`CahnHilliard`.
    flux : float, DataArray or callable, default 0.0
        j, in units of c times length per time, positive into the body, as for :class:`SmoothedBoundaryDiffusion`;
        a function gets c as the potential takes it.

    Notes
    -----
    Here the interface of the indicator had better be five voxels wide: with three, semi-implicit steps of
    4 h^4 / (eps D) and more, for voxels of size h, make c wander outside the body, and by a per cent inside. With a
    constant mobility they have to be below h^4 / (eps D), or the run ends in infinity.

    Raises
    ------
    TypeError
        If an argument is no number or function as it should be.
    ValueError
        If `eps` or `diffusivity` is not positive; when run, if psi leaves [0, 1].

    References
    ----------
    Yu, Chen and Thornton (2012), Modelling Simul. Mater. Sci. Eng. 20, 075008,
    doi:10.1088/0965-0393/20/7/075008

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> x = np.arange(24.0) + 0.5
    >>> psi = np.broadcast_to((np.tanh(x - 6) - np.tanh(x - 18)) / 2, (24, 24))
    >>> start = 0.5 + 0.05 * np.random.default_rng(0).standard_normal((24, 24))
    >>> ds = vd.dataset({"c": start, "psi": psi})
    >>> run = vd.simulate(vd.models.SmoothedBoundaryCahnHilliard(), ds, dt=0.5, steps=20, progress=False)
    >>> bool(abs((np.clip(psi, 1e-4, 1) * (run.c[-1] - start)).sum()) < 1e-9)
    True
    """

    flux: Any = 0.0

    stiffness = 3.0  # the square of the 1.6 above, about

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_supply()

    def rhs(self, t: Any, c: Any, psi: Any) -> Any:  # type: ignore[override]
        """Flow down the gradient of the chemical potential, influx through the surface, and the source."""
        u = self._limited(c)
        mu = self._homogeneous(u) - 2 * self.eps * inside(grad(u), psi)
        return inside(self._mobility(face(clip(c, 0, 1))) * grad(mu), psi) + self._supply(t, u, psi)

    def energy_density(self, c: Any, psi: Any) -> Any:  # type: ignore[override]
        r"""Free energy per volume of the grid, :math:`\psi` times that per volume of the body."""
        return bounded(psi) * super().energy_density(c)
