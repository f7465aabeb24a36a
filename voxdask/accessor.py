"""What voxdask adds to xarray objects, under ``.vd``; registered when this module is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.figure import Figure

from voxdask.plot import plot_slices
from voxdask.report import Report


class _Accessor:
    """What datasets and arrays have in common."""

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        self._data = data

    def plot_slices(
        self,
        name: str | None = None,
        *,
        time: float | Sequence[float] | None = None,
        position: Mapping[str, float] | None = None,
        cmap: str = "viridis",
        vmin: float | None = None,
        vmax: float | None = None,
    ) -> Figure:
        """Draw three orthogonal slices, one column per frame; see :func:`voxdask.plot_slices`.

        Parameters
        ----------
        name, time, position, cmap, vmin, vmax
            As for :func:`voxdask.plot_slices`.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import numpy as np, voxdask as vd
        >>> ds = vd.dataset({"c": np.zeros((4, 8, 8))}, spacing=0.5, unit="um")
        >>> figure = ds.c.vd.plot_slices(position={"x": 1.25})
        """
        return plot_slices(self._data, name=name, time=time, position=position, cmap=cmap, vmin=vmin, vmax=vmax)


@xr.register_dataarray_accessor("vd")  # type: ignore[no-untyped-call]
class DataArrayAccessor(_Accessor):
    """voxdask's additions to a DataArray."""


@xr.register_dataset_accessor("vd")  # type: ignore[no-untyped-call]
class DatasetAccessor(_Accessor):
    """voxdask's additions to a Dataset."""

    @property
    def report(self) -> Report | None:
        """What the run took that made this dataset, if one did.

        Examples
        --------
        >>> import numpy as np, voxdask as vd
        >>> ds = vd.dataset({"c": np.full(8, 0.5)})
        >>> run = vd.simulate(vd.models.ReactionDiffusion(), ds, dt=0.1, steps=3, progress=False)
        >>> run.vd.report.steps
        3
        """
        return Report.of(self._data.attrs)
