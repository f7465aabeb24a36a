"""Evolve a dataset under a model: check what was asked, plan it, and run the time loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from voxdask import backend, trial
from voxdask.clients import active_client, cluster_memory, free_memory
from voxdask.costs import Rates
from voxdask.device_planning import plan_on_device
from voxdask.equation import HasEquation, equation_of
from voxdask.evaluate import problem_of
from voxdask.forecast import forecast, with_traffic
from voxdask.identity import as_text, description, start_of
from voxdask.loop import Callback, Loop, planned_for
from voxdask.lowering import inlined
from voxdask.march import AdaptiveMarch, FixedMarch, March
from voxdask.places import folder_of, store_path
from voxdask.planning import make_plan, plan_in_memory
from voxdask.plans import Plan
from voxdask.prepare import Prepared, prepare
from voxdask.problem import Problem
from voxdask.rehearsal import routes
from voxdask.schedule import make_schedule, make_span, whole_number
from voxdask.spilling import Route
from voxdask.stability import warn_if_unstable
from voxdask.steppers import Stepper, is_adaptive, stepper_of
from voxdask.store import MANIFEST, RunStore
from voxdask.units import format_bytes, parse_bytes

Device = Literal["auto", "cpu", "gpu"]


def simulate(
    model: HasEquation,
    ds: xr.Dataset,
    *,
    dt: float | None = None,
    t_end: float | None = None,
    steps: int | None = None,
    stepper: str | Stepper = "imex",
    boundary: Any = "periodic",
    save_every: int | None = None,
    save_at: Sequence[float] | None = None,
    store: str | os.PathLike[str] | None = None,
    resume: bool = True,
    chunks: int | None = None,
    device: Device = "auto",
    memory_limit: str | int | None = None,
    fft: str = "scipy",
    progress: bool = True,
    callbacks: Iterable[Callback] = (),
) -> xr.Dataset:
    r"""Evolve the fields of a dataset under a model.

    .. math:: \partial_t u = \mathrm{rhs}(t, u), \qquad u(t_0) = u_0

    The array decides where it runs: NumPy on this machine as one block, CuPy on the GPU, Dask chunk by
    chunk on local threads or, with an active ``distributed.Client``, on its cluster. What does not fit
    into `memory_limit` is spilled to files in `store`, a few rows at a time.

    Parameters
    ----------
    model : Model
    ds : Dataset
        Start: every field of the model, on an even grid. A scalar coordinate ``time`` is the start time,
        else it is 0. float32 and float64 are kept, other numbers become float32.
    dt : float, optional
        Time step, in units of time. The first step to try for a stepper that chooses its steps, which can do without.
    t_end : float, optional
        Time at the end; a whole number of steps from the start, unless the stepper chooses them.
    steps : int, optional
        Number of steps, instead of `t_end`; a stepper that chooses them needs `t_end`.
    stepper : str or Stepper, default "imex"
        Semi-implicit "imex" and "sbdf2", exponential "etd1" and "etdrk4", explicit "euler", "rk4", "rkc1" and
        "rkc2"; "tsit5" (explicit) and "adaptiveimex" choose steps by a tolerance; or an instance from
        :mod:`voxdask.steppers` with options.
    boundary : str, Dirichlet, Neumann, tuple or mapping, default "periodic"
        For all axes, or by dim: ``"periodic"``, ``"neumann"`` (zero flux), ``"dirichlet"`` (zero),
        :class:`voxdask.Neumann`, :class:`voxdask.Dirichlet`, or a pair (lower end, upper end) of these.
        Dims that a mapping leaves out are periodic.
    save_every : int, optional
        Keep a frame every so many steps, the start and the end among them. By default start and end.
    save_at : sequence of float, optional
        Keep frames at these times, and at the end; whole numbers of steps from the start, unless the stepper
        chooses them.
    store : path, optional
        Zarr group to hold the run, on a local disk, or on one that all workers of a cluster see. Killed at any instant,
        it opens and can be resumed.
    resume : bool, default True
        Go on from the last frame of a run of the same model, parameters, start, step and boundary that
        `store` holds; with False, anything there is refused.
    chunks : int, optional
        Run chunk by chunk, in slabs of so many rows along the first axis.
    device : {"auto", "cpu", "gpu"}, default "auto"
        "auto" works where the arrays lie; "gpu" on a GPU, slab by slab through it if that has not the memory for all,
        which for arrays of NumPy gives frames of NumPy; "cpu" on the host.
    memory_limit : str or int, optional
        Bytes that the run may take beside `ds`, such as ``"2GB"``; by default most of what is free. Compiled code,
        100 to 150 MB once in a process, comes on top.
    fft : {"scipy", "pyfftw", "mkl_fft"}, default "scipy"
        Library that transforms arrays in memory; one thread of it for each that works on a tile. Cosine and sine
        transforms, which ``"mkl_fft"`` has none of, are SciPy's then, and on a GPU all are CuPy's. MKL's transforms
        keep to a thread in all of the process.
    progress : bool, default True
        Show a bar.
    callbacks : iterable of callable
        Each is called with every frame, a Dataset, as it is saved.

    Returns
    -------
    Dataset
        Frames along a leading ``time`` dim; in memory without `store`, else opened lazily from it.
        ``.vd.report`` says what the run took (:class:`voxdask.Report`).

    Raises
    ------
    TypeError, ValueError
        Before any work, if an argument does not fit; the message names it and what would do.
    FileExistsError
        If `store` exists and `resume` is False.
    MemoryError
        If not even a spilled run fits into `memory_limit`.
    FloatingPointError
        If a field becomes NaN or infinite, or no step is short enough for a tolerance; frames that were saved stay.
    OSError
        If the disk is full or can't be written to; frames that were saved stay.

    Warns
    -----
    UserWarning
        If an explicit stepper is unlikely to survive `dt`; it names a step that would do.

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"c": np.random.default_rng(0).random((8, 8))}, spacing=0.5, unit="um")
    >>> run = vd.simulate(vd.models.ReactionDiffusion(0.1), ds, dt=0.1, t_end=2.0,
    ...                   boundary={"x": vd.Dirichlet(0.0)}, save_every=10, progress=False)
    >>> run.sizes["time"], run.c.dims
    (3, ('time', 'y', 'x'))
    """
    method, called = stepper_of(stepper), _callbacks(callbacks)
    start = _start_time(ds)
    march: March
    if is_adaptive(method):
        march = AdaptiveMarch(method, make_span(start, dt, t_end, steps, save_every, save_at))
    else:
        march = FixedMarch(method, make_schedule(start, dt, t_end, steps, save_every, save_at))
    prepared = _prepared(model, ds, boundary, method, device, fft)
    frames = 0 if store else len(march.frame_times)
    plan = _plan(prepared, method, chunks, device, memory_limit, frames, store)
    if plan.tier == "spilled" and store is None:
        raise ValueError(
            f"the run spills to disk ({plan.reason}): give store=PATH for it, on a disk that has "
            f"{format_bytes(plan.disk_bytes)} free, or a larger memory_limit"
        )
    if isinstance(march, FixedMarch):
        warn_if_unstable(prepared, method, march.schedule.dt, start)
    made = description(model, prepared, method, dt)
    # what an earlier run says of itself is no part of this one
    kept = {key: value for key, value in ds.attrs.items() if key not in (MANIFEST, "report")}
    attrs = {**kept, "made_by": f"voxdask {version('voxdask')}", **{k: as_text(v) for k, v in made.items()}}
    loop = Loop(prepared, march, method.history, plan, attrs, progress, called)
    if store is None:
        return loop.in_memory(start)
    return loop.in_store(store_path(store), resume, made | start_of(prepared, start))


def plan(
    model: HasEquation,
    ds: xr.Dataset,
    *,
    stepper: str | Stepper = "imex",
    boundary: Any = "periodic",
    chunks: int | None = None,
    device: Device = "auto",
    memory_limit: str | int | None = None,
    fft: str = "scipy",
    store: str | os.PathLike[str] | None = None,
    measure: bool = True,
) -> Plan:
    """What :func:`simulate` would do: tier, chunks, projected bytes, traffic and time of a step.

    Frames that a run without ``store=`` keeps in memory come on top; :func:`simulate` counts them. Time is foreseen
    from steps on some rows of the grid, with values made up for them, which takes some seconds and some memory. What
    was measured so holds for ten minutes, so that a run in this process, under the same `memory_limit`, goes the way
    that was planned.

    Parameters
    ----------
    model, ds, stepper, boundary, chunks, device, memory_limit, fft, store
        As for :func:`simulate`. The disk of `store`, or of the working directory, is the one that is measured. If a
        run is there, its chunks are planned for.
    measure : bool, default True
        With False, time is not foreseen. Otherwise steps are tried on a few rows, and, for a spilled run, some files
        are written beside `store` and removed.

    Returns
    -------
    Plan
        Prints as a small table.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    MemoryError
        If not even a spilled run fits.

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"c": np.zeros((64, 64, 64), np.float32)})
    >>> vd.plan(vd.models.CahnHilliard(), ds, memory_limit="24MB").tier
    'spilled'
    """
    method = stepper_of(stepper)
    prepared = _prepared(model, ds, boundary, method, device, fft)
    plan = _plan(prepared, method, chunks, device, memory_limit, 0, store, measure)
    if store is not None and Path(there := store_path(store), "zarr.json").exists():  # else it only names a disk
        plan = planned_for(RunStore.open(there), plan)
    if plan.on_device and plan.streams:
        return with_traffic(plan, _routes(prepared, plan.problem, method))
    if not measure or plan.on_device:
        return plan
    rates = trial.measure(prepared, plan, method, folder_of(store) if plan.tier == "spilled" else None)
    return forecast(plan, _routes(prepared, plan.problem, method), rates)


def _callbacks(callbacks: Any) -> tuple[Callback, ...]:
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {callbacks!r}; give a sequence of functions")
    functions = tuple(callbacks)
    for function in functions:
        if not callable(function):
            raise TypeError(f"callbacks holds {function!r}; give functions of a Dataset")
    return functions


def _start_time(ds: Any) -> float:
    """The scalar coordinate ``time`` of a dataset, or 0."""
    if not isinstance(ds, xr.Dataset) or "time" not in ds.coords or ds.coords["time"].ndim:
        return 0.0
    value = ds.coords["time"].values
    if value.dtype.kind not in "iuf" or not np.isfinite(value):
        raise ValueError(f"the coordinate 'time' of the dataset is {value}; the start time must be a finite number")
    return float(value)


def _prepared(
    model: HasEquation, ds: xr.Dataset, boundary: Any, stepper: Stepper, device: Device, fft: str
) -> Prepared:
    if device not in ("auto", "cpu", "gpu"):
        raise ValueError(f"device is {device!r}; use 'auto', 'cpu' or 'gpu'")
    prepared = prepare(equation_of(model), ds, boundary, getattr(stepper, "wavenumbers", "spectral"), fft)
    if device == "gpu":
        backend.require_device()
    if device != "cpu":
        return prepared

    def to_host(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: a if isinstance(a, da.Array) else backend.to_host(a) for name, a in arrays.items()}

    return replace(prepared, fields=to_host(prepared.fields), constants=to_host(prepared.constants))


def _plan(
    prepared: Prepared,
    stepper: Stepper,
    chunks: int | None,
    device: Device,
    memory_limit: str | int | None,
    frames: int,
    store: str | os.PathLike[str] | None,
    measure: bool = True,
) -> Plan:
    """The plan, on a cluster if there is one with room for it, or on this machine."""
    problem = problem_of(prepared, stepper.registers, stepper.spectra)
    if chunks is not None:
        chunks = whole_number("chunks", chunks, 1, f"rows along {prepared.system.grid.dims[0]!r}")
        if device == "gpu":
            raise ValueError(f"chunks={chunks} run where their arrays lie; leave them out for device='gpu'")
    frame_bytes = frames * problem.fields * problem.voxels * problem.itemsize
    there = any(map(backend.is_device_array, prepared.fields.values()))
    if device == "gpu" or (device == "auto" and there and chunks is None):
        limit = parse_bytes(memory_limit) if memory_limit is not None else free_memory()
        if inlined(prepared.operators.program):
            problem = replace(problem, inner=0)  # what is made anew wherever it is read takes no memory
        ways = _routes(prepared, problem, stepper)
        return plan_on_device(
            problem, device_limit=backend.device_memory(), memory_limit=limit, routes=ways, frame_bytes=frame_bytes,
            kept_bytes=frame_bytes if there else 0,
        )  # fmt: skip
    chunked = chunks is not None or prepared.lazy
    cluster = active_client() if chunked else None
    options: dict[str, Any] = {"chunk_rows": chunks, "frame_bytes": frame_bytes}
    if cluster is not None:
        threads = cluster.nthreads()
        if not sum(threads.values()):
            raise RuntimeError("the active Client has no workers yet; wait for them: client.wait_for_workers(1)")
        limit = parse_bytes(memory_limit) if memory_limit is not None else cluster_memory(cluster)
        why = "Dask arrays, on a cluster" if chunks is None else f"chunks={chunks}, on a cluster"
        plan = plan_in_memory(
            problem, memory_limit=limit, threads=sum(threads.values()), workers=len(threads), chunked=True, why=why,
            **options,
        )  # fmt: skip
        if plan.memory_bytes <= limit:
            return plan
    # what does not fit on the cluster runs in this process, with what this machine has
    limit = parse_bytes(memory_limit) if memory_limit is not None else free_memory()
    why = "" if not chunked else "Dask arrays, on local threads" if chunks is None else f"chunks={chunks}"
    held = plan_in_memory(
        problem, memory_limit=limit, threads=backend.cpu_count(), chunked=chunked and cluster is None,
        why=why if cluster is None else "", **options,
    )  # fmt: skip
    rates: dict[str, Any] = {"rates": partial(_rates, prepared, stepper, limit, store)} if measure else {}
    return make_plan(held, routes=partial(_routes, prepared, problem, stepper), **rates)


def _routes(prepared: Prepared, problem: Problem, stepper: Stepper) -> tuple[Route, ...]:
    """The ways in which a run may go over fields that are streamed."""
    constants, weighted = bool(prepared.system.constants), bool(prepared.system.weights)
    return routes(
        stepper, prepared.operators, constants=constants, weighted=weighted, width=problem.stream_width
    )


def _rates(
    prepared: Prepared, stepper: Stepper, limit: int, store: str | os.PathLike[str] | None, plan: Plan
) -> Rates | None:
    """What parts of a step of a spilled plan cost; None if a trial would take more than may be had."""
    if 2 * trial.trial_bytes(plan) > limit:
        return None
    return trial.measure(prepared, plan, stepper, folder_of(store))
