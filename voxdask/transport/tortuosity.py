"""Tortuosity of a phase in a voxel image, and its effective diffusivity along one direction."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from voxdask.report import PeakMemory
from voxdask.transport.options import check_limits, on_device, one_of, real_dtype, warn_of_flat_voxels
from voxdask.transport.passage import Passage
from voxdask.transport.phases import Labelled, Shares
from voxdask.transport.result import Table, cost_of, name_of, relative_error, warn_unless, way_of
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Steady


@dataclass(frozen=True, repr=False)
class Tortuosity(Table):
    r"""What :func:`tortuosity` found.

    Attributes
    ----------
    tau : float
        Tortuosity factor, porosity times D over `d_eff`; infinite if nothing passes.
    d_eff : float
        Effective diffusivity, relative to that of the phase.
    porosity : float
        Share of all voxels that are of the phase.
    percolating_porosity : float
        Share of the voxels between the ends that are connected to both.
    error : float
        Estimated relative error of `tau` and `d_eff` from stopping the iteration, not from the size of voxels.
    converged : bool
        Whether that is within the tolerance.
    iterations : int
    residual : float
        Norm of the true residual relative to that at the start.
    flux : DataArray
        Mean flux through each layer of faces along the direction, in units of D times the mean gradient: `d_eff` each,
        in the limit. They err by the error of the field, of which that of `tau` is the square.
    profile : DataArray
        Tortuosity factor of each layer of voxels: its porosity times what it resists, from the energy that is lost in
        it, over what it would resist without obstacles.
    field : DataArray
        Steady concentration, from 0 at the first end to 1 at the last; NaN where nothing conducts. Lazy if it is in
        files, which go with it, or on workers, whose memory it takes as long as they and the client are there; of CuPy
        if the image is and was solved where it lies.
    phase : tuple of int, or None
        Labels of what conducts; None where the image holds shares.
    direction, sides, ends : str
    voxels : int
    wall_time : float
        Seconds.
    peak_memory : int
        Resident bytes above those at the start, of the process that took most; not those on a GPU.
    """

    tau: float
    d_eff: float
    porosity: float
    percolating_porosity: float
    error: float
    converged: bool
    iterations: int
    residual: float
    flux: xr.DataArray
    profile: xr.DataArray
    field: xr.DataArray
    phase: tuple[int, ...] | None
    direction: str
    sides: str
    ends: str
    voxels: int
    wall_time: float
    peak_memory: int

    @property
    def rows(self) -> dict[str, str]:
        """What a table of the result says."""
        spread = float(np.ptp(self.flux.values) / self.flux.mean()) if self.d_eff else 0.0
        stopped = "" if self.converged else ", NOT CONVERGED"
        return {
            "tau": f"{self.tau:.5g}, iterated to ± {self.error * self.tau:.1g}" if self.d_eff else "infinite: no path",
            "d_eff": f"{self.d_eff:.5g}",
            "phase": name_of(self.phase),
            "porosity": f"{self.porosity:.4f}, percolating {self.percolating_porosity:.4f}",
            "direction": way_of(self.direction, self.ends, self.sides),
            "solve": f"{self.iterations} iterations{stopped}",
            "field": f"fluxes of layers within {spread:.1e}, of which tau errs by the square",
            "cost": cost_of(self.voxels, self.wall_time, self.peak_memory),
        }


def tortuosity(
    image: xr.DataArray | str | os.PathLike[str],
    *,
    phase: int | tuple[int, ...] | None = 1,
    direction: str = "x",
    sides: Literal["no-flux", "periodic"] = "no-flux",
    ends: Literal["face", "centre"] = "face",
    tolerance: float = 1e-4,
    iterations: int = 100,
    dtype: Any = "float32",
    device: Literal["auto", "cpu", "gpu"] = "auto",
    memory_limit: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Tortuosity:
    r"""Tortuosity factor of a phase from steady diffusion through a segmented image.

    .. math::

        \nabla \cdot (D \nabla c) = 0, \quad c = 0 \text{ and } 1 \text{ at the ends}, \quad
        D_\mathrm{eff} = \frac{1}{V} \int D\, |L \nabla c|^2, \quad \tau = \frac{\varepsilon D}{D_\mathrm{eff}}

    Voxels exchange through their faces. A lazy image (Dask array, or file) of two million voxels or more is solved by
    the workers of an active ``distributed.Client``, a domain of layers each; others by the threads of this process,
    and so are all that are asked for within a task.

    The error of the energy is the square of that of the field; the solve ends
    when it is known to be within the tolerance. What is connected to neither end conducts nothing.

    Parameters
    ----------
    image : DataArray or path
        Labels or truth values on an even grid, of any kind of array; a file as for :func:`voxdask.open_image`.
    phase : int or sequence of int, default 1
        Label of what conducts, or labels. None: the image holds the share of each voxel that conducts, from 0 to 1.
    direction : str, default "x"
        Dim along which the flow goes.
    sides : {"no-flux", "periodic"}, default "no-flux"
        What is at the other boundaries. Periodic sides join voxels that have nothing to do with each other, unless the
        image repeats itself.
    ends : {"face", "centre"}, default "face"
        Where the concentration is held: at the outer faces of the first and last layer, or at their centres.
    tolerance : float, default 1e-4
        Relative error of `tau` at which the iteration may end.
    iterations : int, default 100
        Most iterations.
    dtype : {"float32", "float64"}
        Of the fields; sums are in float64.
    device : {"auto", "cpu", "gpu"}, default "auto"
        "auto" solves where the image lies; "gpu" on the GPU of this process, which must have room for all of it: graphs
        are made on the host, iterations are done there. "cpu" on the host.
    memory_limit : str or int, optional
        Bytes, such as "2GB", beyond which fields go to files; by default most of what is free. Workers share it.
    store : path, optional
        Folder for those files; by default the system's temporary folder, or each worker's own.

    Returns
    -------
    Tortuosity

    Raises
    ------
    TypeError
        If `image` is no image, or holds no labels where a phase is chosen.
    ValueError
        If the phase is not in the image, the direction is not one of its dims or one voxel long, or an option is
        unknown.
    MemoryError
        If not even four layers fit into the limit, or the GPU has no room for the solve.
    OSError
        If the disk has no room for the working files.
    RuntimeError
        If the active Client has no workers, or they die in solve after solve; with ``device="gpu"``, without CuPy or a
        GPU.

    Warns
    -----
    RuntimeWarning
        If the iteration ends before the tolerance is met.
    UserWarning
        If voxel sizes differ by more than a factor of ten.

    References
    ----------
    Cooper et al. (2016), SoftwareX 5, 203, doi:10.1016/j.softx.2016.09.002, eq. 3

    Examples
    --------
    A diagonal strip, whose tortuosity is known exactly:

    >>> import numpy as np, voxdask as vd
    >>> image = np.zeros((4, 5, 5), np.uint8)
    >>> for i in range(4):
    ...     image[i, i : i + 2, i : i + 2] = 1
    >>> found = vd.tortuosity(vd.dataset({"image": image}).image, direction="z", dtype="float64", tolerance=1e-9)
    >>> round(float(found.tau), 6), round(4 / 4 * (2 * 4 - 3 + 7 / 12), 6)
    (5.583333, 5.583333)
    """
    started = time.perf_counter()
    scan = Scan.of(image, direction)
    one_of("sides", sides, ("no-flux", "periodic"))
    one_of("ends", ends, ("face", "centre"))
    if scan.shape[0] < 2:
        raise ValueError(f"direction is {direction!r}, along which the image is one voxel: nothing flows there")
    check_limits(tolerance, iterations)
    warn_of_flat_voxels(scan)
    real, there = real_dtype(dtype), on_device(device, scan.image)
    with PeakMemory() as memory:
        conducting = Shares(real) if phase is None else Labelled.of(scan, phase)
        passage = Passage(scan, conducting, real, sides == "periodic", ends, there)
        found = passage.solve(tolerance, iterations, memory_limit, store)
        if isinstance(conducting, Labelled):
            conducting.require(found.amount, scan)
    steady, porosity = found.steady, float(np.sum(found.amount)) / scan.grid.size
    d_eff = steady.energy * passage.per_energy
    error = relative_error(steady)
    warn_unless(steady.converged, "tau", error, tolerance)
    return Tortuosity(
        tau=porosity / d_eff if d_eff else math.inf,
        d_eff=d_eff,
        porosity=porosity,
        percolating_porosity=found.percolating,
        error=error,
        converged=steady.converged,
        iterations=steady.iterations,
        residual=steady.residual,
        flux=passage.along(steady.layers.flux * passage.per_energy, "flux"),
        profile=passage.along(_profile(found.share, steady), "tau"),
        field=found.field,
        phase=tuple(conducting.labels) if isinstance(conducting, Labelled) else None,
        direction=direction,
        sides=sides,
        ends=ends,
        voxels=scan.grid.size,
        wall_time=time.perf_counter() - started,
        peak_memory=max(memory.above_base, found.peak_memory),
    )


def _profile(share: np.ndarray, steady: Steady) -> np.ndarray:
    """Porosity times what each layer resists, over what it would without obstacles."""
    if not len(share) or not steady.energy:
        return np.full(len(share), np.inf)
    profile: np.ndarray = share * steady.layers.by_voxels / steady.energy**2
    return profile
