"""What a property would be at voxels of no size, from copies of an image that are coarser and coarser."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from voxdask.segmented import open_segmented, parse_labels
from voxdask.transport.result import Table, name_of, way_of
from voxdask.transport.scan import Scan, require_labels
from voxdask.transport.tortuosity import tortuosity

#: Safety factor of an error bar from two grids.
_SAFETY = 4.0
#: Levels that differ by more than this share are too coarse to be extrapolated from.
_COARSE = 0.25
#: The same of the image and of what its voxels conduct when they are put together by eights.
_OPENED = 0.3


@dataclass(frozen=True, repr=False)
class Extrapolation(Table):
    """What :func:`extrapolated_tortuosity` found.

    Attributes
    ----------
    tau, d_eff : float
        At voxels of no size; NaN where larger voxels change too much to tell.
    error : float
        Error bar of `tau`.
    levels : DataArray
        `d_eff` over the voxel size, in voxels of the image.
    porosity : float
    voxel_tau : float
        Of the image as it is.
    phase : tuple of int, or None
        Labels of what conducts; None where the image holds shares.
    direction, sides, ends : str
    """

    tau: float
    d_eff: float
    error: float
    levels: xr.DataArray
    porosity: float
    voxel_tau: float
    phase: tuple[int, ...] | None
    direction: str
    sides: str
    ends: str

    @property
    def rows(self) -> dict[str, str]:
        """What a table of the result says."""
        levels = zip(self.levels.coarsening.values, self.levels.values, strict=True)
        unknown = "infinite: no path" if np.isinf(self.tau) else "not known: larger voxels differ"
        return {
            "tau": f"{self.tau:.5g} ± {self.error:.2g}" if np.isfinite(self.tau) else unknown,
            "of the image": f"{self.voxel_tau:.5g}",
            "phase": name_of(self.phase),
            "porosity": f"{self.porosity:.4f}",
            "direction": way_of(self.direction, self.ends, self.sides),
            **{f"d_eff, {n} x voxel": f"{value:.5g}" for n, value in levels},
        }


def extrapolated_tortuosity(
    image: xr.DataArray | str | os.PathLike[str],
    *,
    phase: int | tuple[int, ...] | None = 1,
    direction: str = "x",
    **options: Any,
) -> Extrapolation:
    r"""Tortuosity factor of what an image shows, as far as it can be told from its voxels.

    .. math::

        D_0 = D_h + (D_h - D_{2h}), \qquad \delta D = 4\, |D_h - D_{2h}|

    Stairs of voxels along a smooth surface err in proportion to the voxel size h. Copies of the image with voxels of h
    and 2h, which conduct by the share of the phase in them, therefore tell what is in the limit: h is that of the image
    if it holds shares, else twice that of the image. Where pores or walls are only a few voxels thick, larger voxels
    close or open them; then there is nothing to extrapolate from, which the levels show.

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

    Warns
    -----
    UserWarning
        If the levels differ by more than a quarter of the lesser, or the finer and the image by more than three tenths.

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
        low, high = float(share.min()), float(share.max())
        if not 0 <= low <= high <= 1:
            raise ValueError(f"image holds {low:g} to {high:g} where a share between 0 and 1 is needed (phase=None)")
    else:
        require_labels(scan.image)
        labels, segmented = parse_labels("phase", phase), open_segmented(scan.image)
        present = segmented.counts()
        segmented.require("phase", labels, [present.get(label, 0) for label in labels])
        share = scan.image.isin(labels).astype(np.float32)
    whole = {dim: slice(0, n // 4 * 4) for dim, n in zip(scan.grid.dims, scan.grid.shape, strict=True)}
    share, factors = share.isel(whole), (1, 2) if phase is None else (2, 4)
    porosity = float(share.mean(dtype=np.float64))
    fine, rough = (_coarse(share, factor, scan, direction, options) for factor in factors)
    as_is = tortuosity(scan.image.isel(whole), phase=phase, direction=direction, **options)
    telling = abs(fine - rough) <= _COARSE * min(fine, rough) and abs(fine - as_is.d_eff) <= _OPENED * min(
        fine, as_is.d_eff
    )
    d_eff = fine + (fine - rough) if telling else np.nan
    nothing = np.inf if fine == rough == 0 else np.nan
    tau = porosity / d_eff if d_eff > 0 else nothing
    error = _SAFETY * abs(fine - rough) / d_eff * tau if d_eff > 0 else nothing
    levels = xr.DataArray([fine, rough], {"coarsening": list(factors)}, ("coarsening",), "d_eff")
    if not telling:
        warnings.warn(
            f"larger voxels change d_eff from {as_is.d_eff:.3g} to {fine:.3g} and {rough:.3g}: they close or open "
            "what conducts, and tell nothing of the limit; scan at a finer resolution, or go by tau of the image as "
            "it is",
            UserWarning,
            stacklevel=2,
        )
    asked = (as_is.phase, direction, as_is.sides, as_is.ends)
    return Extrapolation(tau, d_eff, error, levels, porosity, as_is.tau, *asked)


def _coarse(share: xr.DataArray, factor: int, scan: Scan, direction: str, options: dict[str, Any]) -> float:
    """The effective diffusivity with larger voxels."""
    coarse = share.coarsen(dict.fromkeys(scan.grid.dims, factor)).mean().clip(0, 1)
    for dim, h in zip(scan.grid.dims, scan.grid.spacing, strict=True):
        coarse[dim].attrs["spacing"] = factor * h
    return tortuosity(coarse, phase=None, direction=direction, **options).d_eff
