"""How large an image must be for a property of it to be that of the material."""

from __future__ import annotations

import inspect
import math
import numbers
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from voxdask.plot import ShownFigure
from voxdask.segmented import open_segmented, parse_labels
from voxdask.transport.result import Table
from voxdask.transport.scan import Scan
from voxdask.transport.tortuosity import tortuosity

#: Properties by name: numbers of a result.
_NUMBERS = ("d_eff", "tau", "porosity", "percolating_porosity")


@dataclass(frozen=True, repr=False)
class RepresentativeVolume(Table):
    r"""What :func:`representative_volume` found.

    Attributes
    ----------
    table : Dataset
        Over ``voxels`` of a sub-volume: ``mean`` and ``scatter`` (standard deviation) of so many (``count``) finite
        values, how many were infinite (``shut``), all ``values``, and ``divisions`` of an edge.
    exponent : float
        Of the scatter's fall with the volume, :math:`\sigma \propto V^{-\alpha/2}`; 1 for uncorrelated parts, and
        where none differ; NaN where those of fewer than two sizes do.
    error : float
        Relative standard deviation of the property among images of the size of the whole, as that law has it: what this
        one may be off by from the mean of the material. NaN where there is no exponent.
    name : str
        Of the property.
    options : dict
        With which it was measured, where they are not the defaults.
    """

    table: xr.Dataset
    exponent: float
    error: float
    name: str
    options: dict[str, Any]

    def voxels_for(self, error: float) -> float:
        r"""How many voxels an image would need for a relative error.

        .. math:: V = V_\mathrm{whole}\, (\epsilon_\mathrm{whole} / \epsilon)^{2 / \alpha}

        Parameters
        ----------
        error : float
            That is asked for, positive.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If `error` is not positive, or the scatter does not fall with the volume.
        """
        if not error > 0:
            raise ValueError(f"error is {error!r}; give a positive number, such as 0.01")
        if not self.exponent > 0:
            raise ValueError(f"the scatter does not fall with the volume (exponent {self.exponent:.2g}); see the table")
        whole = float(self.table.voxels.max())
        return float(whole * (self.error / error) ** (2 / self.exponent))

    def plot(self) -> Figure:
        """Mean and scatter over the size, and every value; notebooks show the figure."""
        figure = ShownFigure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        edge = self.table.voxels.values ** (1 / self._ndim)
        axes.errorbar(edge, self.table["mean"], self.table["scatter"], fmt="o-", capsize=3, label="mean and scatter")
        values = self.table["values"]
        axes.plot(np.repeat(edge, values.sizes["sample"]), values.values.ravel(), ".", color="gray", alpha=0.5)
        axes.set(xlabel="edge of a sub-volume (voxels)", ylabel=self.name, xscale="log")
        axes.set_title(f"relative error at full size: {self.error:.1%}")
        axes.legend()
        return figure

    @property
    def _ndim(self) -> int:
        return int(self.table.attrs["ndim"])

    @property
    def title(self) -> str:
        """With what is measured."""
        return f"RepresentativeVolume of {self.name}"

    @property
    def rows(self) -> dict[str, str]:
        """What a table of the result says."""
        sizes = {}
        for row in (self.table.isel(voxels=i) for i in range(self.table.sizes["voxels"])):
            count, scatter, shut = int(row["count"]), float(row["scatter"]), int(row["shut"])
            spread = f", scatter {scatter:.3g}" if math.isfinite(scatter) else ""
            parts = f"of {count + shut} parts" if shut else "part" if count == 1 else "parts"
            size = f"edge / {int(row.divisions)}, {int(row.voxels):,d} voxels"
            sizes[size] = f"{count} {parts}, mean {float(row['mean']):.5g}{spread}"
        asked = {name: repr(value) for name, value in self.options.items()}
        return {**asked, **sizes, "at full size": f"relative error about {self.error:.2g}"}


def representative_volume(
    image: xr.DataArray | str | os.PathLike[str],
    property: str | Callable[[xr.DataArray], float] = "d_eff",
    *,
    divisions: Sequence[int] = (6, 4, 3, 2, 1),
    samples: int = 12,
    seed: int = 0,
    **options: Any,
) -> RepresentativeVolume:
    r"""A property over parts of an image, ever larger ones: its mean, its scatter, and the error at full size.

    .. math:: \sigma(V) = \sigma_1\, V^{-\alpha/2}

    is fitted to the scatter of the parts; its value at the size of the whole is what another image of that size of the
    same material would differ by.

    Parameters
    ----------
    image : DataArray or path
    property : str or callable, default "d_eff"
        An attribute of :class:`voxdask.Tortuosity`, such as ``"d_eff"`` or ``"porosity"``, or a function of an image.
        Not ``"tau"`` where nothing passes through some parts: it has no mean then.
    divisions : sequence of int, default (6, 4, 3, 2, 1)
        Parts along each axis, for each size.
    samples : int, default 12
        Most parts of one size, chosen at random.
    seed : int, default 0
        Of that choice.
    **options
        For :func:`voxdask.tortuosity`.

    Returns
    -------
    RepresentativeVolume

    Raises
    ------
    ValueError
        If the property is unknown, `divisions` are no whole numbers or leave parts of less than two voxels, or fewer
        than two sizes have several parts.
    TypeError
        If an option is none of :func:`voxdask.tortuosity`.

    Warns
    -----
    UserWarning
        If parts are left out, as the property is infinite there.

    References
    ----------
    Kanit et al. (2003), Int. J. Solids Struct. 40, 3647, doi:10.1016/S0020-7683(03)00143-4, eq. 21

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> noise = (np.random.default_rng(0).random((24, 24, 24)) < 0.6).astype(np.uint8)
    >>> found = vd.representative_volume(vd.dataset({"image": noise}).image, "porosity", divisions=(6, 4, 2, 1))
    >>> found.table.voxels.values
    array([   64,   216,  1728, 13824])
    >>> 0.001 < found.error < 0.02  # sqrt(0.4 / 0.6 / 13824) = 0.007
    True
    """
    scan = Scan.of(image)
    shape, ndim = scan.grid.shape, scan.grid.ndim
    counts = sorted({int(n) for n in divisions}, reverse=True)
    if not counts or counts[-1] < 1 or set(counts) != set(divisions) or min(shape) // counts[0] < 2:
        raise ValueError(
            f"divisions={tuple(divisions)}: give whole numbers; parts need two or more of the "
            f"{' x '.join(map(str, shape))} voxels along each axis"
        )
    if sum(n > 1 for n in counts) < 2:
        raise ValueError(
            f"divisions={tuple(divisions)}: give two numbers above one or more, to see how the scatter falls"
        )
    if isinstance(property, str) and property not in _NUMBERS:
        raise ValueError(f"property is {property!r}; use a function of an image, or {', '.join(map(repr, _NUMBERS))}")
    if not isinstance(samples, numbers.Integral) or samples < 2:
        raise ValueError(f"samples is {samples!r}; give two or more")
    known = inspect.signature(tortuosity).parameters if isinstance(property, str) else ()
    if unknown := [name for name in options if name not in known or name == "image"]:
        used = f"options of tortuosity: {', '.join(list(known)[1:])}" if known else "none with a function"
        raise TypeError(f"{unknown[0]}={options[unknown[0]]!r} is no option here; use {used}")
    phase = options.get("phase", 1)
    if isinstance(property, str) and phase is not None:
        labels, segmented = parse_labels("phase", phase), open_segmented(scan.image)
        present = segmented.counts()
        segmented.require("phase", labels, [present.get(label, 0) for label in labels])
    rng = np.random.default_rng(seed)
    name = property if isinstance(property, str) else getattr(property, "__name__", "property")
    values = np.full((len(counts), samples), np.nan)
    for row, n in enumerate(counts):
        size = [length // n for length in shape]
        chosen = rng.permutation(n**ndim)[:samples]
        for column, part in enumerate(np.sort(chosen)):
            corner = np.unravel_index(part, (n,) * ndim)
            window = {
                dim: slice(int(c) * s, (int(c) + 1) * s) for dim, c, s in zip(scan.grid.dims, corner, size, strict=True)
            }
            values[row, column] = _measure(scan.image.isel(window), property, options)
    if shut := int(np.isinf(values).sum()):
        warnings.warn(
            f"{name} is infinite in {shut} of {int((~np.isnan(values)).sum())} parts: mean, scatter and error are of "
            "the others, which do not stand for all; of 'tau', ask for 'd_eff' instead",
            UserWarning,
            stacklevel=2,
        )
    return _fitted(values, shape, counts, name, options)


def _measure(part: xr.DataArray, property: str | Callable[[xr.DataArray], float], options: dict[str, Any]) -> float:
    if callable(property):
        return float(property(part))
    phase = options.get("phase", 1)
    share = float((part if phase is None else part.isin(parse_labels("phase", phase))).mean())
    if property == "porosity":
        return share
    if share == 0:
        return math.inf if property == "tau" else 0.0  # a part that holds nothing of the phase
    return float(getattr(tortuosity(part, **options), property))


def _fitted(
    values: np.ndarray, shape: Sequence[int], counts: Sequence[int], name: str, options: dict[str, Any]
) -> RepresentativeVolume:
    voxels = np.array([math.prod(length // n for length in shape) for n in counts])
    known = np.isfinite(values)
    count = known.sum(1)
    inside = np.where(known, values, 0)
    mean = np.where(count > 0, inside.sum(1) / np.maximum(count, 1), np.nan)
    square = (np.where(known, values - mean[:, None], 0) ** 2).sum(1)
    scatter = np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1)), np.nan)
    usable = (count > 1) & (scatter > 0)
    whole = voxels.max()
    even = (count > 1).sum() > 1 and not scatter[count > 1].any()
    exponent, error = (1.0, 0.0) if even else (math.nan, math.nan)
    if usable.sum() > 1 and mean[-1]:  # of nothing there is no share
        slope, level = np.polyfit(np.log(voxels[usable] / whole), np.log(scatter[usable]), 1, w=np.sqrt(count[usable]))
        exponent, error = -2 * float(slope), float(np.exp(level)) / abs(float(mean[-1]))
    table = xr.Dataset(
        {
            "mean": ("voxels", mean),
            "scatter": ("voxels", scatter),
            "count": ("voxels", count),
            "shut": ("voxels", np.isinf(values).sum(1)),
            "values": (("voxels", "sample"), values),
            "divisions": ("voxels", list(counts)),
        },
        {"voxels": voxels},
        {"ndim": len(shape)},
    )
    return RepresentativeVolume(table, exponent, error, name, options)
