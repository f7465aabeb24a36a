"""Phases that move to lower the energy of their interfaces."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import xarray as xr

from voxdask.families import deviation, onto_simplex, total
from voxdask.model import Model
from voxdask.symbols import laplace, normal_laplace


@dataclass(frozen=True)
class MultiPhaseAllenCahn(Model):
    r"""N phases, such as the grains of a polycrystal, whose interfaces move to lower their energy.

    .. math::

        \partial_t \phi_\alpha = -M \gamma \Big( \mu_\alpha - \frac{1}{N} \sum_\beta \mu_\beta \Big)
        + M \frac{3}{\varepsilon} \Big( q_\alpha^2 \sum_\beta (e_\beta - e_\alpha) q_\beta
        + q_\alpha \sum_\beta (e_\beta - e_\alpha) q_\beta^2 \Big)
        + M \gamma \frac{9}{\varepsilon^2} (q_\alpha - \phi_\alpha)

    .. math::

        \mu_\alpha = -\kappa \nabla^2 q_\alpha - (1 - \kappa)\, \partial_n^2 q_\alpha + \frac{9}{2 \varepsilon^2} \Big(
        3 q_\alpha \sum_{\beta \ne \alpha} q_\beta^2 + q_\alpha^3 - q_\alpha \Big)

    q is phi on the Gibbs simplex, where no fraction is negative and all sum to 1: it is projected in the right-hand
    side, never in the state. Rates of change sum to zero. The last term is zero on the simplex. Without it the mean
    over all phases would make those that are absent from a triple junction ever more negative there, until boundaries
    that come by later stick. A flat interface between two phases is
    :math:`\phi_1 = \tfrac12 (1 + \tanh(3 x / 2 \varepsilon))`; where two phases meet, the equation is that of
    :class:`AllenCahn`, and where three meet, they do so at 120 degrees. The phases are those along the dim ``phase``
    of the dataset, any number; :func:`voxdask.phases_from_labels` makes them.

    Parameters
    ----------
    eps : float, default 3.0
        Width of the interface, in units of length; at least about three voxels.
    gamma : float, default 1.0
        Interfacial energy.
    mobility : float, default 1.0
        M; a curved interface moves at M gamma kappa times its curvature.
    curvature : float, default 1.0
        kappa, from 0 to 1: how much of the curvature drives.
    bulk_energies : sequence of float or DataArray, optional
        e, energy per volume of each phase, in units of gamma per length: a flat interface moves towards the higher one
        at M times the difference.
    projection : {"fast", "exact"}, default "fast"
        "fast" cuts negative fractions and divides by the sum, "exact" takes the nearest point of the simplex.

    Raises
    ------
    TypeError
        If a number is none, or `bulk_energies` is no sequence.
    ValueError
        If `eps`, `gamma` or `mobility` is not positive, `curvature` not in [0, 1], a bulk energy not finite, or
        `projection` another word; when run, if fractions don't sum to 1.

    References
    ----------
    Steinbach (2009), Modelling Simul. Mater. Sci. Eng. 17, 073001, doi:10.1088/0965-0393/17/7/073001; Garcke, Nestler,
    Stoth (1999), SIAM J. Appl. Math. 60, 295, doi:10.1137/S0036139998334895; in this form Daubner et al. (2025),
    arXiv:2507.21748

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> labels = xr.DataArray(np.arange(64).reshape(8, 8) // 24, dims=("y", "x"), coords={"y": range(8), "x": range(8)})
    >>> ds = vd.phases_from_labels(labels).to_dataset(name="phi")
    >>> run = vd.simulate(vd.models.MultiPhaseAllenCahn(), ds, dt=0.5, steps=10, boundary="neumann", progress=False)
    >>> run.phi.dims, bool(abs(run.phi.sum("phase") - 1).max() < 1e-5)
    (('time', 'phase', 'y', 'x'), True)
    """

    eps: float = 3.0
    gamma: float = 1.0
    mobility: float = 1.0
    curvature: float = field(default=1.0, metadata={"symbolic": False})  # what 1 - kappa multiplies is dear
    bulk_energies: Any = None
    projection: Literal["fast", "exact"] = "fast"

    fields = ("phi",)
    family: ClassVar[str] = "phase"
    family_total: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        self._require_positive("eps", "gamma", "mobility")
        kappa = self.curvature
        if not isinstance(kappa, numbers.Real) or isinstance(kappa, bool) or not 0 <= float(kappa) <= 1:
            raise ValueError(f"curvature is {kappa!r}; give a number from 0 to 1")
        if self.projection not in ("fast", "exact"):
            raise ValueError(f"projection is {self.projection!r}; use 'fast' or 'exact'")
        if self.bulk_energies is not None:
            object.__setattr__(self, "bulk_energies", _of_phases("bulk_energies", self.bulk_energies))

    def rhs(self, t: Any, phi: Any) -> Any:
        """The deviation of the driving force from its mean, the way back to the simplex, and the bulk energies."""
        q = onto_simplex(phi, exact=self.projection == "exact")
        squares = total(q**2)
        well = 3 * q * (squares - q**2) + q**3 - q
        kappa, bend = self.curvature, laplace(q)
        if kappa != 1:
            bend = kappa * bend + (1 - kappa) * normal_laplace(q)
        rate = -self.mobility * self.gamma * deviation(9 / (2 * self.eps**2) * well - bend)
        rate += 9 * self.mobility * self.gamma / self.eps**2 * (q - phi)
        if self.bulk_energies is None:
            return rate
        e = self.bulk_energies
        drive = q**2 * (total(e * q) - e) + q * (total(e * q**2) - e * squares)
        return rate + 3 * self.mobility / self.eps * drive


def _of_phases(name: str, values: Any) -> xr.DataArray:
    """One number for each phase as a DataArray."""
    if isinstance(values, xr.DataArray) and values.dims == ("phase",) and values.dtype.kind in "iuf":
        return values
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} is {values!r}; give a sequence of numbers, or a DataArray with the dim 'phase'")
    for value in values:
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"{name} holds {value!r}; give one finite number for each phase")
    return xr.DataArray([float(value) for value in values], dims="phase")
