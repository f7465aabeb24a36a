"""Steady flow through an image, from one end to the other: here, or on a cluster."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from voxdask import backend
from voxdask.clients import active_client
from voxdask.transport import cluster
from voxdask.transport.domain import Domain
from voxdask.transport.layers import Layers
from voxdask.transport.options import arrays_for
from voxdask.transport.phases import Phase
from voxdask.transport.scan import Scan, medium_of
from voxdask.transport.solver import Solver, Steady


@dataclass(frozen=True)
class Passed:
    """What was found.

    Attributes
    ----------
    steady : Steady
    amount : float
        Of what conducts, in voxels.
    percolating : float
        Share of the voxels between the ends that are connected to both.
    share : ndarray
        Conducting voxels of each layer.
    field : DataArray
        NaN where nothing conducts; lazy if it is in files or on a cluster.
    peak_memory : int
        Resident bytes of a worker above those at the start, where there is a cluster.
    """

    steady: Steady
    amount: float
    percolating: float
    share: np.ndarray
    field: xr.DataArray
    peak_memory: int = 0


@dataclass(frozen=True)
class Passage:
    """From one end of an image to the other.

    Attributes
    ----------
    scan : Scan
    phase : Phase
    dtype : dtype
        Of fields.
    periodic : bool
        Whether the sides are.
    ends : str
        "face" or "centre".
    """

    scan: Scan
    phase: Phase
    dtype: np.dtype
    periodic: bool = False
    ends: str = "face"

    @property
    def per_energy(self) -> float:
        """Effective diffusivity over energy, which is that of a field that rises by one over the length."""
        n0, n1, n2 = self.scan.shape
        return (n0 if self.ends == "face" else n0 - 1) / (n1 * n2)

    def solve(self, tolerance: float, iterations: int, memory_limit: str | int | None, store: Any) -> Passed:
        """The steady field; one of no flux if nothing passes. A lazy image with an active client goes to its cluster.

        Raises
        ------
        MemoryError
            If not even four layers fit into the limit.
        """
        client = active_client() if isinstance(self.scan.image.data, da.Array) else None
        if client is not None and cluster.is_worth_it(self.scan, self.ends):
            job = cluster.Job(self.scan.grid, self.scan.order, self.phase, self.dtype, self.periodic, self.ends)
            found = cluster.solve(client, self.scan, job, tolerance, iterations, memory_limit, store)
            return Passed(
                found.steady, found.amount, found.percolating / math.prod(job.shape), found.share,
                self._as_field(found.field), found.peak_memory,
            )  # fmt: skip
        return self._solve_here(tolerance, iterations, memory_limit, store)

    def _solve_here(self, tolerance: float, iterations: int, memory_limit: str | int | None, store: Any) -> Passed:
        arrays, slabs = arrays_for(self.scan, self.phase.kind, self.dtype, memory_limit, store)
        periodic = (False, self.periodic, self.periodic)
        medium, amount = medium_of(
            self.scan, self.phase.read, self.phase.kind, arrays, self.dtype, periodic=periodic, ends=self.ends
        )
        share = np.zeros(medium.shape[0])
        nothing = np.broadcast_to(self.dtype.type(np.nan), medium.shape)
        if not len(share):  # two layers, both held at their centres
            energy = float(medium.ends[0].sum(dtype=np.float64))
            layers = Layers(0, np.array([energy]), np.array([energy]), share)
            steady = Steady(layers, 0.0, 0.0, 0, True)
            return Passed(steady, amount, 1.0, share, self._as_field(self.scan.as_image(nothing)))
        domain = Domain(medium, arrays, backend.cpu_count(), slabs)
        solver = Solver.alone(domain)
        steady = solver.flow_through(tolerance, iterations)
        if solver.percolating:
            share = domain.mask_field()
        view: Any = self.scan.as_image(domain.field() if solver.percolating else nothing)
        if arrays.spilled:
            view = da.from_array(_Mapped(view), name=f"concentration-{uuid.uuid4().hex}", asarray=False)
        return Passed(steady, amount, solver.percolating / math.prod(medium.shape), share, self._as_field(view))

    def _as_field(self, values: Any) -> xr.DataArray:
        """An array with the axes of the image, but without layers that are held at their centres."""
        dim, skipped = self.scan.direction, 0 if self.ends == "face" else 1
        kept = self.scan.image.isel({dim: slice(skipped, self.scan.shape[0] - skipped)})
        return xr.DataArray(values, kept.coords, kept.dims, "concentration")

    def along(self, values: np.ndarray, name: str) -> xr.DataArray:
        """Values at the faces between layers, those at the ends among them or not, along the direction."""
        dim, h = self.scan.direction, self.scan.spacing[0]
        missing = self.scan.shape[0] + 1 - len(values)
        at = self.scan.grid.origin[self.scan.order[0]] + h * (np.arange(len(values)) - 0.5 + missing / 2)
        return xr.DataArray(values, {dim: at}, (dim,), name)


class _Mapped:
    """An array in a file, which Dask would copy if it knew."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(self.array[index])
