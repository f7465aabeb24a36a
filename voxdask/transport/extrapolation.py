"""What a property would be at voxels of no size, from copies of an image that are coarser and coarser."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from voxdask.segmented import parse_labels
from voxdask.transport.scan import Scan, labels_in, require_labels
from voxdask.transport.tortuosity import tortuosity

#: Safety factor of an error bar from two grids.
_SAFETY = 3.0


@dataclass(frozen=True)
class Extrapolation:
    """What :func:`extrapolated_tortuosity` found.

    Attributes
    ----------
    tau, d_eff : float
        At voxels of no size.
    error : float
        Error bar of `tau`.
    levels : DataArray
        `d_eff` over the voxel size, in voxels of the image.
    porosity : float
    """

    tau: float
    d_eff: float
    error: float
    levels: xr.DataArray
    porosity: float

    def __repr__(self) -> str:
        sizes = "  ".join(f"{int(n)}: {float(v):.5g}" for n, v in zip(self.levels.coarsening, self.levels, strict=True))
        return f"tau {self.tau:.5g} ± {self.error:.2g} (d_eff by voxel size {sizes})"


def extrapolated_tortuosity(
    image: xr.DataArray | str | os.PathLike[str],
    *,
    phase: int | tuple[int, ...] | None = 1,
    direction: str = "x",
    **options: Any,
) -> Extrapolation:
    r"""Tortuosity factor of what an image shows, as far as it can be told from its voxels.

    .. math::

        D_0 = D_h + (D_h - D_{2h}), \qquad \delta D = 3\, |D_h - D_{2h}|

    Stairs of voxels along a smooth surface err in proportion to the voxel size h. Copies of the image with voxels of h
    and 2h, which conduct by the share of the phase in them, therefore tell what is in the limit: h is that of the image
    if it holds shares, else twice that of the image.

    Parameters
    ----------
    image, phase, direction
        As for :func:`voxdask.tortuosity`. What a multiple of four voxels leaves over at the far ends is left out.
    **options
        For :func:`voxdask.tortuosity`.

    Returns
    -------
    Extrapolation

    Raises
    ------
    TypeError, ValueError
        As :func:`voxdask.tortuosity`; if an axis has fewer than eight voxels.

    References
    ----------
    Roache (1994), J. Fluids Eng. 116, 405, doi:10.1115/1.2910291: grid convergence index for two grids

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> image = vd.dataset({"image": np.ones((8, 8, 8), np.uint8)}).image
    >>> round(vd.extrapolated_tortuosity(image).tau, 3)
    1.0
    """
    scan = Scan.of(image, direction)
    short = [dim for dim, n in zip(scan.grid.dims, scan.grid.shape, strict=True) if n < 8]
    if short:
        raise ValueError(f"image has {scan.image.sizes[short[0]]} voxels along {short[0]!r}; eight are needed")
    if phase is None:
        share = scan.image
    else:
        require_labels(scan.image)
        share = scan.image.isin(parse_labels("phase", phase)).astype(np.float32)
    whole = {dim: slice(0, n // 4 * 4) for dim, n in zip(scan.grid.dims, scan.grid.shape, strict=True)}
    share, factors = share.isel(whole), (1, 2) if phase is None else (2, 4)
    porosity = float(share.mean(dtype=np.float64))
    if porosity == 0:
        raise ValueError(f"phase {phase} is not in the image, which holds {', '.join(map(str, labels_in(scan)[:20]))}")
    fine, rough = (_coarse(share, factor, scan, direction, options) for factor in factors)
    d_eff = fine + (fine - rough)
    tau = porosity / d_eff if d_eff > 0 else np.inf
    error = _SAFETY * abs(fine - rough) / d_eff * tau if d_eff > 0 else 0.0
    levels = xr.DataArray([fine, rough], {"coarsening": list(factors)}, ("coarsening",), "d_eff")
    return Extrapolation(tau, d_eff, error, levels, porosity)


def _coarse(share: xr.DataArray, factor: int, scan: Scan, direction: str, options: dict[str, Any]) -> float:
    """The effective diffusivity with larger voxels."""
    coarse = share.coarsen(dict.fromkeys(scan.grid.dims, factor)).mean().clip(0, 1)
    for dim, h in zip(scan.grid.dims, scan.grid.spacing, strict=True):
        coarse[dim].attrs["spacing"] = factor * h
    return tortuosity(coarse, phase=None, direction=direction, **options).d_eff
