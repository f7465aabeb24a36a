"""Blocking electrodes: the pores of an image against a reservoir, with a capacitance on their walls."""

from __future__ import annotations

import math
import numbers
import os
import time
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from voxdask.report import PeakMemory
from voxdask.transport.job import Job
from voxdask.transport.options import check_limits, on_device, one_of, real_dtype, warn_of_flat_voxels
from voxdask.transport.phases import Labelled
from voxdask.transport.result import Table, cost_of, name_of, relative_error, warn_unless
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver, Steady
from voxdask.transport.walls import Walls
from voxdask.transport.workplace import carry_out

#: Solves behind the spectrum are this much more accurate than that behind the tortuosity, which errs by the square.
_SHARPER = 1e-3
#: Relative change by the last moment beyond which an impedance is not known.
_UNKNOWN = 0.01


@dataclass(frozen=True, repr=False)
class Electrode(Table):
    r"""What :func:`electrode_tortuosity` found.

    Attributes
    ----------
    tau : float
        Electrode tortuosity factor, from the ionic resistance at low frequency; infinite if no pore is open to the
        reservoir, NaN if what is open has no walls.
    porosity : float
        Share of all voxels that are of the phase.
    open_porosity : float
        Share of all voxels that are of the phase and connected to the reservoir.
    wall_area : float
        Faces of those to other phases, per volume of the image, in 1 / `unit`.
    error : float
        Estimated relative error of `tau` from stopping the iteration.
    converged : bool
    iterations : int
        Of the first solve.
    resistance : float
        Low-frequency limit of Re Z, for a conductivity of one: a third of the ionic resistance of the pores. Of images
        of fewer than three dims, this and `capacitance` are for a unit of length of depth.
    capacitance : float
        Of the walls, for one per area.
    ladder : ndarray, shape (2, moments)
        Diagonal and off-diagonal of the matrix that stands for the electrode at all frequencies.
    phase : tuple of int
        Labels of the electrolyte.
    direction, reservoir, sides : str
    unit : str or None
        Of lengths, if the image says.
    voxels : int
    wall_time : float
        Seconds.
    peak_memory : int
        Resident bytes above those at the start.
    """

    tau: float
    porosity: float
    open_porosity: float
    wall_area: float
    error: float
    converged: bool
    iterations: int
    resistance: float
    capacitance: float
    ladder: np.ndarray
    phase: tuple[int, ...]
    direction: str
    reservoir: str
    sides: str
    unit: str | None
    voxels: int
    wall_time: float
    peak_memory: int

    def impedance(self, frequency: Any, *, conductivity: float = 1.0, capacitance: float = 1.0) -> xr.DataArray:
        r"""Impedance of the pores between the reservoir and the walls.

        .. math::

            Z = \frac{1}{i \omega c A \,(1 - s R A\, e_1^T (1 + s T)^{-1} e_1)}, \quad s = i \omega c / \kappa

        with the area A of the walls, the low-frequency resistance R for :math:`\kappa = 1`, and the tridiagonal matrix
        T of the moments: a ladder of resistors and capacitors, exact at low frequency to twice as many orders as there
        are moments. A cell of two such electrodes has twice that.

        Parameters
        ----------
        frequency : array_like
            In cycles per unit of time, positive.
        conductivity : float
            Of the pores, per unit of length of the image.
        capacitance : float
            Of the walls, per area.

        Returns
        -------
        DataArray of complex
            Over the dim ``frequency``; the coordinate ``error`` holds the relative change by the last moment. NaN where
            that is more than a hundredth: beyond about as many radians per time constant (`resistance` times
            `capacitance`, times c / :math:`\kappa`) as there are moments.

        Raises
        ------
        ValueError
            If a frequency, the conductivity or the capacitance is not positive, or no wall is open to the reservoir.

        Warns
        -----
        UserWarning
            If there are too few moments for a frequency.

        Examples
        --------
        A line of resistors and capacitors, whose real part goes to a third of the resistance:

        >>> import numpy as np, voxdask as vd
        >>> image = np.zeros((3, 3, 50), np.uint8)
        >>> image[1, 1] = 1
        >>> cell = vd.electrode_tortuosity(vd.dataset({"image": image}).image)
        >>> z = cell.impedance([1e-6, 1e-5])
        >>> z.dims, (z.real / (50 / 3)).values.round(2)
        (('frequency',), array([1., 1.]))
        """
        f = np.atleast_1d(np.asarray(frequency, np.float64))
        if not (np.isfinite(f) & (f > 0)).all() or f.ndim != 1:
            raise ValueError(f"frequency is {frequency!r}; give positive numbers in one dimension")
        for name, value in (("conductivity", conductivity), ("capacitance", capacitance)):
            if not (isinstance(value, numbers.Real) and 0 < value < math.inf):
                raise ValueError(f"{name} is {value!r}; give a positive number")
        if not self.capacitance:
            raise ValueError("no wall is open to the reservoir: there is no impedance")
        s = 2j * np.pi * f * capacitance / conductivity
        z, shorter = (self._impedance(s, n) / conductivity for n in (self.ladder.shape[1], self.ladder.shape[1] - 1))
        error = abs(z - shorter) / abs(z)
        unknown = error > _UNKNOWN
        if unknown.any():
            warnings.warn(
                f"the impedance is NaN from a frequency of {f[unknown].min():.3g} on: moments={self.ladder.shape[1]} "
                "do not tell it there; give more moments",
                UserWarning,
                stacklevel=2,
            )
        z[unknown] = complex(np.nan, np.nan)
        coords = {"frequency": f, "error": ("frequency", error)}
        return xr.DataArray(z, coords, ("frequency",), "impedance")

    def _impedance(self, s: np.ndarray, moments: int) -> np.ndarray:
        diagonal, beside = self.ladder[:, :moments]
        t = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        unit = np.eye(max(moments, 1))
        first = np.array([np.linalg.solve(unit + each * t, unit[0])[0] if moments else 0 for each in s])
        z: np.ndarray = 1 / (s * self.capacitance * (1 - s * self.resistance * self.capacitance * first))
        return z

    @property
    def rows(self) -> dict[str, str]:
        """What a table of the result says."""
        stopped = "" if self.converged else ", NOT CONVERGED"
        nothing = "not defined: no walls" if self.open_porosity else "infinite: no open pore"
        return {
            "tau": f"{self.tau:.5g}, iterated to ± {self.error * self.tau:.1g}" if self.resistance else nothing,
            "phase": name_of(self.phase),
            "porosity": f"{self.porosity:.4f}, open {self.open_porosity:.4f}",
            "walls": f"{self.wall_area:.5g} / {self.unit or 'unit of length'}",
            "direction": f"{self.direction}, reservoir at the {self.reservoir} layer, {self.sides} sides",
            "solve": f"{self.iterations} iterations, {self.ladder.shape[1]} moments{stopped}",
            "cost": cost_of(self.voxels, self.wall_time, self.peak_memory),
        }


def electrode_tortuosity(
    image: xr.DataArray | str | os.PathLike[str],
    *,
    phase: int | tuple[int, ...] = 1,
    direction: str = "x",
    reservoir: Literal["first", "last"] = "first",
    sides: Literal["no-flux", "periodic"] = "no-flux",
    moments: int = 8,
    tolerance: float = 1e-4,
    iterations: int = 200,
    dtype: Any = "float32",
    device: Literal["auto", "cpu", "gpu"] = "auto",
    memory_limit: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Electrode:
    r"""Tortuosity factor of a blocking electrode, as impedance of a symmetric cell measures it, and its spectrum.

    .. math::

        \nabla \cdot \kappa \nabla \varphi = 0, \quad
        -\kappa\, \partial_n \varphi = i \omega c\, \varphi \text{ at walls}, \quad
        \varphi = V \text{ at the reservoir}, \quad
        \tau = \frac{3\, \varepsilon \kappa A}{L} \lim_{\omega \to 0} \operatorname{Re} Z

    Unlike flow from end to end, this asks for the way from the reservoir to all walls, dead ends among them. At low
    frequency every wall charges at the same rate, which makes it one steady solve; each further moment is another. The
    length L is that of the image, which pores need not fill: a blind pore that ends half way has a small tau. Both ends
    give different values where the image is not the same from both.

    Parameters
    ----------
    image, phase, direction, sides, tolerance, iterations, dtype, device, memory_limit, store
        As for :func:`voxdask.tortuosity`; `phase` is the electrolyte.
    reservoir : {"first", "last"}, default "first"
        The end that is open; the other is a current collector, at which nothing happens.
    moments : int, default 8
        Solves behind the spectrum of :meth:`Electrode.impedance`, each up to a thousand times as sharp as `tolerance`;
        1 is enough for `tau`, and takes a fraction of the time.

    Returns
    -------
    Electrode

    Raises
    ------
    TypeError, ValueError, MemoryError, OSError, RuntimeError
        As :func:`voxdask.tortuosity`.

    Warns
    -----
    RuntimeWarning
        If the iteration ends before the tolerance is met.

    References
    ----------
    Nguyen et al. (2020), npj Comput. Mater. 6, 123, doi:10.1038/s41524-020-00386-4, eq. 5. Landesfeind et al. (2016),
    J. Electrochem. Soc. 163, A1373, doi:10.1149/2.1141607jes

    Examples
    --------
    A straight pore has a tortuosity factor of one, but for what the first half voxel is short of:

    >>> import numpy as np, voxdask as vd
    >>> image = np.zeros((3, 3, 50), np.uint8)
    >>> image[1, 1] = 1
    >>> round(float(vd.electrode_tortuosity(vd.dataset({"image": image}).image).tau), 3)
    1.0
    """
    started = time.perf_counter()
    scan = Scan.of(image, direction)
    one_of("reservoir", reservoir, ("first", "last"))
    one_of("sides", sides, ("no-flux", "periodic"))
    if not isinstance(moments, numbers.Integral) or isinstance(moments, bool) or moments < 1:
        raise ValueError(f"moments is {moments!r}; give a positive whole number")
    if scan.shape[0] < 2:
        raise ValueError(f"direction is {direction!r}, along which the image is one voxel: nothing flows there")
    check_limits(tolerance, iterations)
    warn_of_flat_voxels(scan)
    real, there = real_dtype(dtype), on_device(device, scan.image)
    with PeakMemory() as memory:
        held = (reservoir == "first", reservoir == "last")
        labelled, fields = Labelled.of(scan, phase), 6 if moments == 1 else 8
        job = Job(scan.grid, scan.order, labelled, real, sides == "periodic", "face", held, Walls, fields, there)
        done, _ = carry_out(scan, job, partial(_charging, moments, tolerance, iterations), memory_limit, store)
        labelled.require(done.amount, scan)
    found, connected = done.result
    converged = found is None or found.error <= tolerance
    if found is not None:
        warn_unless(converged, "tau or a moment", found.error, tolerance)
    (h0, h1, h2), (n0, n1, n2), porosity = scan.spacing, scan.shape, int(done.amount.sum()) / scan.grid.size
    charge = found.charge if found else 0.0
    resistance = found.steady.energy / charge**2 if found and charge else 0.0
    return Electrode(
        tau=3 * porosity * resistance * n1 * n2 / n0 if resistance else math.nan if connected else math.inf,
        porosity=porosity,
        open_porosity=connected / scan.grid.size,
        wall_area=charge / (scan.grid.size * h0),
        error=relative_error(found.steady) if found else 0.0,
        converged=converged,
        iterations=found.steady.iterations if found else 0,
        resistance=resistance * h0 / (h1 * h2),
        capacitance=charge * h1 * h2,
        ladder=found.ladder * h0 if found else np.zeros((2, 0)),
        phase=tuple(labelled.labels),
        direction=direction,
        reservoir=reservoir,
        sides=sides,
        unit=scan.grid.unit,
        voxels=scan.grid.size,
        wall_time=time.perf_counter() - started,
        peak_memory=max(memory.above_base, done.peak_memory),
    )


@dataclass(frozen=True)
class _Moments:
    steady: Steady
    charge: float
    ladder: np.ndarray
    error: float  # the largest of all solves


def _charging(
    count: int, tolerance: float, iterations: int, solver: Solver
) -> tuple[tuple[_Moments | None, int], bool]:
    """The moments of the pores that are open, if any, and their voxels; there is no field."""
    found = _moments(solver, count, tolerance, iterations) if solver.connected else None
    return (found, solver.connected), False


def _moments(solver: Solver, count: int, tolerance: float, iterations: int) -> _Moments | None:
    """Lanczos's recursion for inverse operator times wall area, from uniform charging on."""
    team = solver.team
    solver.prepare()
    charge = sum(team.all("find_walls", count > 1))
    if not charge:
        return None
    sharp = tolerance if count == 1 else min(tolerance, max(_SHARPER * tolerance, 1e-9))
    steady = solver.solve(sharp, iterations, charged=True)
    ladder, error = np.zeros((2, count)), relative_error(steady)
    size = steady.energy**0.5
    for k in range(count):
        if count == 1:
            ladder[0, 0] = sum(team.all("weigh_field")) / size**2
            break
        ladder[0, k] = sum(team.all("advance", 1 / size))
        if k == count - 1:
            break
        team.all("clear")
        error = max(error, relative_error(solver.solve(sharp, iterations, charged=True)))
        team.all("orthogonalize", ladder[0, k], ladder[1, k - 1] if k else 0.0)
        size = ladder[1, k] = solver.true_residual().energy ** 0.5
        if size <= 1e-6 * ladder[0, 0]:  # the ladder is as long as the electrode has modes
            ladder = ladder[:, : k + 1]
            break
    return _Moments(steady, float(charge), ladder, error)
