"""Steady flow through an image, from one end to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from voxdask import backend
from voxdask.transport.arrays import Arrays
from voxdask.transport.job import Job
from voxdask.transport.layers import Layers
from voxdask.transport.phases import Phase
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver, Steady
from voxdask.transport.workplace import carry_out


@dataclass(frozen=True)
class Passed:
    """What was found.

    Attributes
    ----------
    steady : Steady
    amount : Any
        Of what conducts, in voxels, as the phase tells it.
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
    amount: Any
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
    on_device : bool
        Whether it is solved on a GPU.
    """

    scan: Scan
    phase: Phase
    dtype: np.dtype
    periodic: bool = False
    ends: str = "face"
    on_device: bool = False

    @property
    def per_energy(self) -> float:
        """Effective diffusivity over energy, which is that of a field that rises by one over the length."""
        n0, n1, n2 = self.scan.shape
        return (n0 if self.ends == "face" else n0 - 1) / (n1 * n2)

    def solve(
        self, tolerance: float, iterations: int, memory_limit: str | int | None, store: Any, field: bool = True
    ) -> Passed:
        """The steady flow, and its field if it is wanted. See :func:`~voxdask.transport.workplace.carry_out`."""
        job = Job(
            self.scan.grid, self.scan.order, self.phase, self.dtype, self.periodic, self.ends, on_device=self.on_device
        )
        if not job.shape[0]:  # two layers, both held at their centres
            medium, amount = job.medium(self.scan, Arrays())
            energy, share = float(medium.ends[0].sum(dtype=np.float64)), np.zeros(0)
            steady = Steady(Layers(0, np.array([energy]), np.array([energy]), share), 0.0, 0.0, 0, True)
            return Passed(steady, amount, 1.0, share, self._as_field(self._nothing(job), job))
        done, values = carry_out(self.scan, job, partial(_flow, tolerance, iterations, field), memory_limit, store)
        steady, percolating, share = done.result
        values = self._as_field(self._nothing(job) if values is None else values, job)
        return Passed(steady, done.amount, percolating / math.prod(job.shape), share, values, done.peak_memory)

    def _nothing(self, job: Job) -> Any:
        """The field where nothing flows, with the axes of the image; on a GPU if that is."""
        nothing = self.scan.as_image(np.broadcast_to(self.dtype.type(np.nan), job.shape))
        there = self.on_device and backend.is_device_array(self.scan.image.data)
        return backend.to_device(nothing) if there else nothing

    def _as_field(self, values: Any, job: Job) -> xr.DataArray:
        """An array with the axes of the image, but without layers that are held at their centres."""
        kept = self.scan.image.isel({self.scan.direction: slice(job.skipped, job.skipped + job.shape[0])})
        return xr.DataArray(values, kept.coords, kept.dims, "concentration")

    def along(self, values: np.ndarray, name: str) -> xr.DataArray:
        """Values at the faces between layers, those at the ends among them or not, along the direction."""
        dim, h = self.scan.direction, self.scan.spacing[0]
        missing = self.scan.shape[0] + 1 - len(values)
        at = self.scan.grid.origin[self.scan.order[0]] + h * (np.arange(len(values)) - 0.5 + missing / 2)
        kept = self.scan.image.coords[dim].attrs if dim in self.scan.image.coords else {}
        attributes = {"units": kept["units"]} if "units" in kept else {}
        return xr.DataArray(values, {dim: (dim, at, attributes)}, (dim,), name)


def _flow(
    tolerance: float, iterations: int, field: bool, solver: Solver
) -> tuple[tuple[Steady, int, np.ndarray], bool]:
    """The flow, voxels that percolate, and those of each layer that conduct; whether there is a field."""
    steady = solver.flow_through(tolerance, iterations)
    if not (solver.percolating and field):
        return (steady, solver.percolating, np.zeros(len(steady.layers.within))), False
    return (steady, solver.percolating, np.concatenate(solver.team.all("mask_field"))), True
