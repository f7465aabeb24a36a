"""Motion of the boundary between two phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sympy as sp
import xarray as xr

from voxdask.model import Model
from voxdask.models.factors import called, require_number
from voxdask.symbols import Position, clip, dot, grad, laplace, normal_laplace, tangential_laplace
from voxdask.symbols import t as time


@dataclass(frozen=True)
class AllenCahn(Model):
    r"""Motion of the interface between two phases; phi is 1 in one and 0 in the other.

    .. math::

        \partial_t \phi = M \Big[ \gamma \Big( \kappa \nabla^2 \phi + (1 - \kappa)\, \partial_n^2 \phi
            - \frac{9}{\varepsilon^2} \phi (1 - \phi)(1 - 2 \phi) \Big) + \frac{3}{\varepsilon} \phi (1 - \phi) F \Big]

    where :math:`\partial_n^2` is the second derivative along the normal of the interface (see
    :func:`voxdask.normal_laplace`). The flat interface is :math:`\phi = \tfrac12 (1 + \tanh(3 x / 2 \varepsilon))`.
    It moves along its normal, phase 1 growing for F > 0, with the velocity

    .. math:: v = M (F - \kappa \gamma H)

    with H the sum of the principal curvatures: a circle of phase 1 shrinks as
    :math:`R^2 = R_0^2 - 2 M \gamma \kappa t`, a sphere as :math:`R_0^2 - 4 M \gamma \kappa t`. With
    :math:`\kappa = 0` shapes stay as they are. phi is limited to [0, 1] in the right-hand side, never in the state.

    Parameters
    ----------
    eps : float, default 2.0
        :math:`\varepsilon`, width of the interface, in units of length; at least about three voxels.
    gamma : float or DataArray, default 1.0
        :math:`\gamma`, energy of the interface.
    mobility : float or DataArray, default 1.0
        M, in units of length squared per time and `gamma`.
    force : float, DataArray or callable, default 0.0
        F, in units of `gamma` per length: a number, a field, or a function ``force(t, x)`` written in
        :mod:`voxdask.symbols`, the position having the components ``x.x``, ``x.y`` and ``x.z``.
    curvature : float, default 0.01
        :math:`\kappa` in [0, 1], how much of the curvature drives.
    form : {"normal", "curvature", "full"}, default "normal"
        How the second derivatives are taken, three ways of writing the same: "normal" as above; "curvature" with
        :math:`\nabla^2 \phi - (1 - \kappa) |\nabla \phi| \nabla \cdot (\nabla \phi / |\nabla \phi|)`
        (:func:`voxdask.tangential_laplace`); "full" with :math:`\nabla^2 \phi` alone, the cheapest, which is
        all of the curvature and so needs ``curvature=1``.

    Raises
    ------
    TypeError
        If a number is none, or the force is no number, DataArray or function.
    ValueError
        If `eps`, `gamma` or `mobility` is not positive, `curvature` not in [0, 1], or not 1 for ``form="full"``,
        or `form` is another word.

    Notes
    -----
    Others write the drive as :math:`F |\nabla \phi|`. On the flat interface :math:`|\nabla \phi| =
    \frac{3}{\varepsilon} \phi (1 - \phi)`, so that both move it alike; the form here keeps its profile too, and is
    the derivative of an energy. Where :math:`|F| > 3 \gamma / \varepsilon` one of the phases is
    unstable.

    References
    ----------
    Daubner et al. (2025), arXiv:2507.21748, eq. 7; Allen and Cahn (1979), Acta Metall. 27, 1085,
    doi:10.1016/0001-6160(79)90196-2

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> x = np.arange(40.0)
    >>> ds = vd.dataset({"phi": (1 + np.tanh(3 * (x - 20) / 8)) / 2})
    >>> model = vd.models.AllenCahn(eps=4.0, force=-0.05)
    >>> run = vd.simulate(model, ds, dt=0.2, t_end=100.0, stepper="rk4", boundary="neumann", progress=False)
    >>> moved = float(run.phi[-1].sum() - run.phi[0].sum())   # phase 1 retreats by M F t = 5
    >>> abs(moved + 5) < 0.1
    True
    """

    eps: float = 2.0
    gamma: Any = 1.0
    mobility: Any = 1.0
    force: float | Any = 0.0
    curvature: float = 0.01
    form: Literal["normal", "curvature", "full"] = "normal"

    fields = ("phi",)

    def __post_init__(self) -> None:
        self._require_positive("eps", "gamma", "mobility")
        require_number("curvature", self.curvature)
        if not 0 <= self.curvature <= 1:
            raise ValueError(f"curvature is {self.curvature!r}; give a number from 0 (shapes stay) to 1 (all of it)")
        if self.form not in ("normal", "curvature", "full"):
            raise ValueError(f"form is {self.form!r}; use 'normal', 'curvature' or 'full'")
        if self.form == "full" and self.curvature != 1:
            raise ValueError(
                f"form='full' takes all of the curvature, but curvature is {self.curvature!r}; give curvature=1, or "
                "another form"
            )
        if not callable(self.force) and not isinstance(self.force, xr.DataArray):
            require_number("force", self.force)

    def rhs(self, t: Any, phi: Any) -> Any:
        """The interface energy's share, and what drives."""
        phi = clip(phi, 0, 1)
        well = 9 / self.eps**2 * phi * (1 - phi) * (1 - 2 * phi)
        drive = 3 / self.eps * phi * (1 - phi) * self._force(t)
        return self.mobility * (self.gamma * (self._second_derivatives(phi) - well) + drive)

    def _second_derivatives(self, phi: Any) -> Any:
        if self.form == "full":
            return laplace(phi)
        if self.form == "curvature":
            return laplace(phi) - (1 - self.curvature) * tangential_laplace(phi)
        return self.curvature * laplace(phi) + (1 - self.curvature) * normal_laplace(phi)

    def _force(self, t: Any) -> Any:
        return called("force", self.force, t, Position()) if callable(self.force) else self.force

    def energy_density(self, phi: Any) -> Any:
        r"""Free energy per volume, of which the equation with :math:`\kappa = 1` is the steepest descent.

        .. math::

            \gamma \Big( \tfrac12 |\nabla \phi|^2 + \frac{9}{2 \varepsilon^2} \phi^2 (1 - \phi)^2 \Big)
                - \frac{F}{\varepsilon} \phi^2 \Big( \tfrac32 - \phi \Big)

        The first part is :math:`\gamma / 2 \varepsilon` times the area of the interface. TypeError if the force
        changes in time.
        """
        force = sp.sympify(self._force(time))
        if force.has(time):
            raise TypeError("the force changes in time, so there is no energy density that does not")
        phi = clip(phi, 0, 1)
        interface = dot(grad(phi), grad(phi)) / 2 + sp.Rational(9, 2) / self.eps**2 * phi**2 * (1 - phi) ** 2
        # 3/eps phi (1 - phi), integrated
        return self.gamma * interface - force / self.eps * phi**2 * (sp.Rational(3, 2) - phi)
