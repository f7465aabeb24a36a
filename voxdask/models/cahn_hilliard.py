"""Phase separation of a conserved order parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxdask.model import Model
from voxdask.models.factors import called, check_callable, with_source
from voxdask.models.potentials import energy_of
from voxdask.symbols import Position, clip, div, dot, face, grad, laplace


@dataclass(frozen=True)
class CahnHilliard(Model):
    r"""Phase separation of a conserved order parameter c in [0, 1].

    .. math::

        \partial_t c = \nabla \cdot \big( D\, m(c) \nabla \mu \big) + f(t, c, x), \qquad
        \mu = \mu_0(c) - 2 \varepsilon \nabla^2 c

    with :math:`m = c (1 - c)`, :math:`\mu_0 = \frac{18}{\varepsilon} c (1 - c) (1 - 2 c)` and no source, unless
    others are given. With this mobility c is limited to [0, 1] in the right-hand side, never in the state. With
    another one only the mobility takes it so: what diffuses through a phase takes a composition beyond 1, or
    below 0, where the potential is above, or below, that of flat interfaces. With the default potential the flat
    interface between the phases is :math:`c = \tfrac12 (1 + \tanh(3 x / 2 \varepsilon))`.

    Parameters
    ----------
    eps : float, default 3.0
        Width of the interface, in units of length; at least about three voxels.
    diffusivity : float or DataArray, default 1.0
        D, in units of length cubed per time; D m is the mobility, taken at faces.
    potential : callable, optional
        :math:`\mu_0(c)`, the chemical potential of the homogeneous mixture, in energy per volume: one of
        :class:`DoubleWell`, :class:`RegularSolution` and :class:`Obstacle`, :func:`legendre`, or any function
        written in :mod:`voxdask.symbols`.
    mobility : callable or "constant", optional
        m(c), a function of c in the same vocabulary, which takes the mean of c at a face, limited to [0, 1];
        "constant" is 1.
    source : callable, optional
        ``source(t, c, x)``, in units of c per time, in the same vocabulary; the position has the components
        ``x.x``, ``x.y`` and ``x.z``.

    Raises
    ------
    TypeError
        If an argument is no number or function as it should be; when the equation is read, if a function
        returns anything but one scalar expression.
    ValueError
        If `eps` or `diffusivity` is not positive, or `mobility` is another word.

    References
    ----------
    Cahn and Hilliard (1958), J. Chem. Phys. 28, 258, doi:10.1063/1.1744102; in this form Daubner et al.
    (2025), arXiv:2507.21748

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> start = 0.5 + 0.05 * np.random.default_rng(0).standard_normal((16, 16, 16))
    >>> ds = vd.dataset({"c": start}, spacing=1.0)
    >>> run = vd.simulate(vd.models.CahnHilliard(eps=3.0), ds, dt=1.0, steps=10, progress=False)
    >>> bool(abs(run.c.isel(time=-1).mean() - start.mean()) < 1e-12)
    True
    """

    eps: float = 3.0
    diffusivity: Any = 1.0
    potential: Callable[[Any], Any] | None = None
    mobility: Callable[[Any], Any] | str | None = None
    source: Callable[[Any, Any, Position], Any] | None = None

    fields = ("c",)

    def __post_init__(self) -> None:
        self._require_positive("eps", "diffusivity")
        check_callable("potential", self.potential, "c")
        check_callable("source", self.source, "t, c, x")
        if isinstance(self.mobility, str):
            if self.mobility != "constant":
                raise ValueError(f'mobility is {self.mobility!r}; give "constant", a function of c, or None for c(1-c)')
        else:
            check_callable("mobility", self.mobility, "c")

    def rhs(self, t: Any, c: Any) -> Any:
        """The divergence of the mobility times the gradient of the chemical potential, and the source."""
        u = self._limited(c)
        mu = self._homogeneous(u) - 2 * self.eps * laplace(u)
        return with_source(div(self._mobility(face(clip(c, 0, 1))) * grad(mu)), self.source, t, u)

    def _limited(self, c: Any) -> Any:
        """c as the potential takes it."""
        return clip(c, 0, 1) if self.mobility is None else c

    def _homogeneous(self, c: Any) -> Any:
        """The chemical potential of the homogeneous mixture."""
        if self.potential is None:
            return 18 / self.eps * c * (1 - c) * (1 - 2 * c)
        return called("potential", self.potential, c)

    def _mobility(self, c: Any) -> Any:
        if self.mobility is None:
            return self.diffusivity * c * (1 - c)
        return self.diffusivity * called("mobility", self.mobility, c) if callable(self.mobility) else self.diffusivity

    def energy_density(self, c: Any) -> Any:
        r"""Free energy per volume, :math:`f_0(c) + \varepsilon |\nabla c|^2` with :math:`f_0' = \mu_0`.

        By default :math:`f_0 = \frac{9}{\varepsilon} c^2 (1 - c)^2`. That of another potential is its method
        ``energy``, or else its integral; TypeError if neither is known.
        """
        c = self._limited(c)
        homogeneous = 9 / self.eps * c**2 * (1 - c) ** 2 if self.potential is None else energy_of(self.potential, c)
        return homogeneous + self.eps * dot(grad(c), grad(c))
