"""The effective diffusivity tensor of a medium of several phases, or of a field of diffusivities."""

from __future__ import annotations

import math
import numbers
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
import xarray as xr

from voxdask.bounds import Bounds, hashin_shtrikman_bounds, wiener_bounds
from voxdask.report import PeakMemory
from voxdask.segmented import open_segmented
from voxdask.transport.job import Job
from voxdask.transport.options import check_limits, on_device, one_of, real_dtype, warn_of_flat_voxels
from voxdask.transport.passage import Passage
from voxdask.transport.phases import Relative
from voxdask.transport.result import Table, cost_of, relative_error, warn_unless
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver, Steady
from voxdask.transport.windings import led_around
from voxdask.transport.workplace import carry_out


@dataclass(frozen=True, repr=False)
class EffectiveDiffusivity(Table):
    r"""What :func:`effective_diffusivity` found.

    Attributes
    ----------
    tensor : DataArray, shape (dims, dims)
        :math:`D_{ij}`: the mean flux along i under a unit mean gradient along j, but for its sign. NaN where it was not
        asked for; with ends at faces only the diagonal is known.
    fractions : dict of int to float, or None
        Share of the voxels by label, where diffusivities go by label.
    wiener : Bounds
        Between which every eigenvalue of a tensor with periodic boundaries lies; see :func:`voxdask.wiener_bounds`.
    hashin_shtrikman : Bounds or None
        The same for isotropic mixtures, where diffusivities go by label; see :func:`voxdask.hashin_shtrikman_bounds`.
    error : float
        Largest estimated relative error of the diagonal from stopping the iteration.
    tensor_error : DataArray, shape (dims, dims)
        Estimated largest absolute error of every element from that: errors of energies are a scalar product, so that
        :math:`|\delta D_{ij}|^2 \le \delta D_{ii}\, \delta D_{jj}`.
    converged : bool
    iterations : dict of str to int
        By direction.
    boundary : str
    voxels : int
    wall_time : float
        Seconds.
    peak_memory : int
        Resident bytes above those at the start.
    """

    tensor: xr.DataArray
    fractions: dict[int, float] | None
    wiener: Bounds
    hashin_shtrikman: Bounds | None
    error: float
    tensor_error: xr.DataArray
    converged: bool
    iterations: dict[str, int]
    boundary: str
    voxels: int
    wall_time: float
    peak_memory: int

    @property
    def rows(self) -> dict[str, str]:
        """What a table of the result says."""
        dims = self.tensor.i.values
        stopped = "" if self.converged else ", NOT CONVERGED"
        between = self.hashin_shtrikman
        isotropic = f", {between.lower:.6g} ... {between.upper:.6g} (Hashin-Shtrikman)" if between else ""
        each = ", ".join(f"{dim}: {n}" for dim, n in self.iterations.items())
        values = self.tensor.values if self.boundary == "periodic" else np.diag(self.tensor)[:, None]
        columns = {"D": "  ".join(f"{dim:>12}" for dim in dims)} if self.boundary == "periodic" else {}
        rows = {f"D[{dim}]": "  ".join(f"{v:12.5g}" for v in row) for dim, row in zip(dims, values, strict=True)}
        beside = self.tensor_error.values[~np.eye(len(dims), dtype=bool)]
        known = np.isfinite(beside).any()
        return {
            **columns,
            **rows,
            "bounds": f"{self.wiener.lower:.6g} ... {self.wiener.upper:.6g} (Wiener){isotropic}",
            "solve": f"{each} iterations, relative error {self.error:.1e}{stopped}",
            **({"off the diagonal": f"± {np.nanmax(beside):.1g}"} if known else {}),
            "cost": cost_of(self.voxels, self.wall_time, self.peak_memory),
        }

    @property
    def title(self) -> str:
        """With what is at the boundary."""
        return f"EffectiveDiffusivity ({self.boundary})"


def effective_diffusivity(
    image: xr.DataArray | str | os.PathLike[str],
    *,
    diffusivities: Mapping[int, float] | None = None,
    directions: str | Sequence[str] = "all",
    boundary: Literal["periodic", "face"] = "periodic",
    tolerance: float = 1e-4,
    iterations: int = 200,
    dtype: Any = "float32",
    device: Literal["auto", "cpu", "gpu"] = "auto",
    memory_limit: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
) -> EffectiveDiffusivity:
    r"""Effective diffusivity of a heterogeneous medium.

    .. math::

        \nabla \cdot D (\nabla \chi_j + e_j) = 0, \quad
        D^\mathrm{eff}_{ij} = \frac{1}{V} \int D\, (\nabla \chi_i + e_i) \cdot (\nabla \chi_j + e_j)

    with periodic :math:`\chi`; or, with ends at faces, of a field held at 0 and 1 there and no flux through the sides.
    A face between two voxels conducts by the harmonic mean of both, as two layers in series do.

    Parameters
    ----------
    image : DataArray or path
        Labels, of any kind of array; or diffusivities, where `diffusivities` is None.
    diffusivities : mapping of int to float, optional
        Diffusivity of each label, in a unit of your choice; 0 where nothing passes.
    directions : "all", str, or sequence of str, default "all"
        Dims along which a mean gradient is applied.
    boundary : {"periodic", "face"}, default "periodic"
    tolerance : float, default 1e-4
        Relative error of each diagonal element at which the iteration may end.
    iterations : int, default 200
        Most iterations for each direction.
    dtype : {"float32", "float64"}
    device, memory_limit, store
        As for :func:`voxdask.tortuosity`, and so is where it is solved: lazy images on the workers of an active Client.
        What is periodic is spread over them if a side is a multiple of four voxels.

    Returns
    -------
    EffectiveDiffusivity

    Raises
    ------
    TypeError
        If `image` is no image, holds no labels where diffusivities go by label, or whole numbers where they do not.
    ValueError
        If a diffusivity is negative, NaN or infinite, a label of the image has none, or an option is unknown.
    MemoryError
        If not even four layers fit into the limit, or the GPU has no room for the solve.
    OSError
        If the disk has no room for the working files.
    RuntimeError
        As :func:`voxdask.tortuosity`.

    Warns
    -----
    RuntimeWarning
        If the iteration ends before the tolerance is met.
    UserWarning
        If voxel sizes differ by more than a factor of ten.

    References
    ----------
    Milton (2002), The Theory of Composites, doi:10.1017/CBO9780511613357, section 1.2

    Examples
    --------
    Layers: the arithmetic mean along, the harmonic mean across.

    >>> import numpy as np, voxdask as vd
    >>> layers = vd.dataset({"image": np.tile([0, 0, 1, 1], (4, 1)).astype(np.uint8)}).image
    >>> found = vd.effective_diffusivity(layers, diffusivities={0: 1.0, 1: 3.0}, dtype="float64", tolerance=1e-9)
    >>> found.tensor.values.round(6) + 0.0
    array([[2. , 0. ],
           [0. , 1.5]])
    """
    started = time.perf_counter()
    scan = Scan.of(image)
    dims = scan.grid.dims
    wanted = dims if isinstance(directions, str) and directions == "all" else _directions(directions, dims)
    one_of("boundary", boundary, ("periodic", "face"))
    warn_of_flat_voxels(scan)
    check_limits(tolerance, iterations)
    real, there = real_dtype(dtype), on_device(device, scan.image)
    with PeakMemory() as memory:
        values = _Diffusivities(scan, diffusivities, real)
        solve = _periodic if boundary == "periodic" else _through
        tensor, found, peak = solve(scan, values, wanted, tolerance, iterations, there, memory_limit, store)
    error = max(map(relative_error, found.values()))
    converged = all(s.converged for s in found.values())
    warn_unless(converged, "a diagonal element", error, tolerance)
    known = values.scale * np.diag(tensor) * [relative_error(found[dim]) if dim in found else 0.0 for dim in dims]
    errors = np.where(np.isfinite(tensor), np.sqrt(np.outer(known, known)), np.nan)
    coords = {"i": list(dims), "j": list(dims)}
    return EffectiveDiffusivity(
        tensor=xr.DataArray(values.scale * tensor, coords, ("i", "j"), "D_eff"),
        tensor_error=xr.DataArray(errors, coords, ("i", "j"), "D_eff_error"),
        fractions=values.fractions,
        wiener=values.wiener,
        hashin_shtrikman=values.hashin_shtrikman,
        error=error,
        converged=converged,
        iterations={dim: s.iterations for dim, s in found.items()},
        boundary=boundary,
        voxels=scan.grid.size,
        wall_time=time.perf_counter() - started,
        peak_memory=max(memory.above_base, peak),
    )


def _directions(directions: Any, dims: tuple[str, ...]) -> tuple[str, ...]:
    listed = tuple(directions) if isinstance(directions, Sequence) else ()
    named = (directions,) if isinstance(directions, str) else listed
    unknown = [dim for dim in named if dim not in dims]
    if unknown or not named or len(set(named)) < len(named):
        raise ValueError(f"directions is {directions!r}; each once of the dims {', '.join(map(repr, dims))}")
    return named


class _Diffusivities:
    """What each value of an image conducts, and what is known from that alone."""

    def __init__(self, scan: Scan, by_label: Mapping[int, float] | None, dtype: np.dtype) -> None:
        self.scan, self.dtype = scan, dtype
        self.fractions: dict[int, float] | None = None
        self.hashin_shtrikman: Bounds | None = None
        self._labels: np.ndarray | None = None
        self._given: np.ndarray | None = None
        if by_label is None:
            if scan.image.dtype.kind in "iu":
                raise TypeError(
                    f"image has dtype {scan.image.dtype}: of labels, give diffusivities={{label: D, ...}}; of "
                    "diffusivities, image.astype(float)"
                )
            self._look()
            return
        if not isinstance(by_label, Mapping):
            raise TypeError(f"diffusivities is {by_label!r}; give a number for each label, e.g. {{0: 1.0, 1: 0.1}}")
        for label, value in by_label.items():
            _require_diffusivity(value, f"diffusivities[{label!r}]")
        counts = open_segmented(scan.image).counts()
        missing = [label for label in counts if label not in by_label]
        if missing:
            raise ValueError(f"label {missing[0]} of the image has no entry in diffusivities={dict(by_label)}")
        self.fractions = {label: count / scan.grid.size for label, count in counts.items()}
        self._labels = np.array([*counts])
        given = self._given = np.array([by_label[label] for label in counts], np.float64)
        self.scale = float(given.max())
        self.wiener = wiener_bounds(self.fractions, by_label)
        self.hashin_shtrikman = hashin_shtrikman_bounds(self.fractions, by_label, ndim=scan.grid.ndim)

    def _look(self) -> None:
        """Read a field of diffusivities once, for its largest and its means."""
        most = total = inverse = 0.0
        for block in self.scan.blocks():
            if block.dtype.kind not in "biuf":
                raise TypeError(f"image has dtype {block.dtype}; diffusivities are real numbers")
            bad = ~((block >= 0) & np.isfinite(block))
            if bad.any():
                _require_diffusivity(block[bad][0], "a diffusivity in image")
            most, total = max(most, float(block.max())), total + float(block.sum(dtype=np.float64))
            inverse += float((1 / block.astype(np.float64)).sum()) if block.all() else math.inf
        self.scale, size = most, self.scan.grid.size
        self.wiener = Bounds(size / inverse, total / size)

    @property
    def phase(self) -> Relative:
        """What each value conducts, relative to the most."""
        return Relative(self.dtype, self.scale, self._labels, self._given)


def _require_diffusivity(value: Any, name: str) -> None:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; give a number")
    if not (math.isfinite(value) and float(value) >= 0):
        raise ValueError(f"{name} is {float(value)}; a diffusivity is finite and not negative")


def _periodic(
    scan: Scan, values: _Diffusivities, wanted: Sequence[str], tolerance: float, iterations: int,
    there: bool, memory_limit: str | int | None, store: Any,
) -> tuple[np.ndarray, dict[str, Steady], int]:  # fmt: skip
    """Every direction on one medium; mixed elements from the energy of sums of fields."""
    dims, size = scan.grid.dims, scan.grid.shape
    scan = scan.along(max(dims, key=lambda dim: math.gcd(size[dims.index(dim)], 8)))  # blocks go around without a rest
    job = Job(
        scan.grid, scan.order, values.phase, values.dtype, True, None, (False, False), fields=4 + len(wanted),
        on_device=there,
    )  # fmt: skip
    jumps = {dim: scan.jump(dim) for dim in wanted}
    done, _ = carry_out(scan, job, partial(_all_around, jumps, tolerance, iterations), memory_limit, store)
    found, both = done.result
    tensor = np.full((len(dims), len(dims)), np.nan)
    for dim, steady in found.items():
        tensor[dims.index(dim), dims.index(dim)] = steady.energy / scan.grid.size
    for (one, two), energy in both.items():
        i, j = dims.index(one), dims.index(two)
        tensor[i, j] = tensor[j, i] = (energy - found[one].energy - found[two].energy) / (2 * scan.grid.size)
    return tensor, found, done.peak_memory


def _all_around(
    jumps: Mapping[str, np.ndarray], tolerance: float, iterations: int, solver: Solver
) -> tuple[tuple[dict[str, Steady], dict[tuple[str, str], float]], bool]:
    """The flow under a mean gradient along each dim, and the energy of sums of two; there is no field."""
    team, leads, found = solver.team, led_around(solver.team.all("windings")), dict[str, Steady]()
    solver.prepare()
    for dim, jump in jumps.items():
        if not leads[int(np.argmax(jump))]:
            found[dim] = solver.nothing()
            continue
        team.all("clear")
        found[dim] = solver.solve(tolerance, iterations, jumps=tuple(jump))
        team.all("keep", dim)
    both = {}
    for one, two in combinations(jumps, 2):
        if found[one].energy and found[two].energy:
            team.all("take_sum", one, two)
            both[one, two] = solver.true_residual(jumps=tuple(jumps[one] + jumps[two])).energy
        else:
            both[one, two] = found[one].energy + found[two].energy
    return (found, both), False


def _through(
    scan: Scan, values: _Diffusivities, wanted: Sequence[str], tolerance: float, iterations: int,
    there: bool, memory_limit: str | int | None, store: Any,
) -> tuple[np.ndarray, dict[str, Steady], int]:  # fmt: skip
    """A medium for each direction, from face to face; with the most bytes of a worker, if there are any."""
    dims, found, peak = scan.grid.dims, dict[str, Steady](), 0
    tensor = np.full((len(dims), len(dims)), np.nan)
    for dim in wanted:
        passage = Passage(scan.along(dim), values.phase, values.dtype, on_device=there)
        passed = passage.solve(tolerance, iterations, memory_limit, store, field=False)
        found[dim], peak = passed.steady, max(peak, passed.peak_memory)
        tensor[dims.index(dim), dims.index(dim)] = found[dim].energy * passage.per_energy
    return tensor, found, peak
