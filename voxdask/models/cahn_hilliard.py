"""Phase separation of a conserved order parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from voxdask.model import Model
from voxdask.symbols import clip, div, dot, face, grad, laplace


@dataclass(frozen=True)
class CahnHilliard(Model):
    r"""Phase separation of a conserved order parameter c in [0, 1].

    .. math::

        \partial_t c = \nabla \cdot \big( D\, c (1 - c) \nabla \mu \big), \qquad
        \mu = \frac{18}{\varepsilon} c (1 - c) (1 - 2 c) - 2 \varepsilon \nabla^2 c

    c is limited to [0, 1] in the right-hand side, never in the state. The flat interface between the
    phases is :math:`c = \tfrac12 (1 + \tanh(3 x / 2 \varepsilon))`.

    Parameters
    ----------
    eps : float, default 3.0
        Width of the interface, in units of length; at least about three voxels.
    diffusivity : float or DataArray, default 1.0
        D, in units of length cubed per time; D c (1 - c) is the mobility, taken at faces.

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

    fields = ("c",)

    def __post_init__(self) -> None:
        self._require_positive("eps", "diffusivity")

    def rhs(self, t: Any, c: Any) -> Any:
        """The divergence of the mobility times the gradient of the chemical potential."""
        c = clip(c, 0, 1)
        mu = 18 / self.eps * c * (1 - c) * (1 - 2 * c) - 2 * self.eps * laplace(c)
        mobility = self.diffusivity * face(c) * (1 - face(c))
        return div(mobility * grad(mu))

    def energy_density(self, c: Any) -> Any:
        r"""Free energy per volume, :math:`\frac{9}{\varepsilon} c^2 (1-c)^2 + \varepsilon |\nabla c|^2`."""
        c = clip(c, 0, 1)
        return 9 / self.eps * c**2 * (1 - c) ** 2 + self.eps * dot(grad(c), grad(c))
