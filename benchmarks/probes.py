"""Measurements that `scale.py` takes, each in a process of its own: runs, their memory, a bare disk.

Physics: spinodal decomposition, periodic, float32, `vd.models.CahnHilliard`. What is returned are plain numbers.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import psutil
import scipy.fft
import xarray as xr
from distributed import Client, LocalCluster, wait

import voxdask as vd

MODEL = vd.models.CahnHilliard(eps=3.0)
#: Steps that each method can take; how far a step goes is nothing to its cost.
STEPS = {"imex": 1.0, "rk4": 1e-3, "rkc2": 1e-3}
#: What transforms a block of each name: MKL where it is installed, too.
BLOCKS = {"block": "scipy"} | ({"block, MKL": "mkl_fft"} if find_spec("mkl_fft") else {})
#: Grids whose runs leave compiled what larger ones take, in few evaluations of a sweep and in many.
WARM = ((64, 48, 48), (1024, 64, 64))
#: Bytes of a piece of a start that is made as it is read.
PIECE_BYTES = 1 << 20

Numbers = dict[str, float]


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def apart(function: Callable[..., Any], *arguments: Any, cores: int | None = None, **options: Any) -> Any:
    """What a function returns in a process of its own, on so many cores."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[: cores or len(mine)])
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(function, *arguments, **options).result()
    finally:
        os.sched_setaffinity(0, mine)


def start(shape: Sequence[int]) -> xr.Dataset:
    """A noisy mixture, in memory."""
    return vd.dataset({"c": mixture(tuple(shape), 0)})


def mixture(shape: tuple[int, ...], seed: Any) -> np.ndarray:
    """Half and half, with noise; made in one piece of memory."""
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    noise *= np.float32(0.05)
    noise += np.float32(0.5)
    return noise


def lazy_start(shape: Sequence[int]) -> xr.Dataset:
    """The same kind of mixture, made as it is read, a few rows at a time."""
    rows = max(1, PIECE_BYTES // (4 * int(np.prod(shape[1:]))))

    def piece(block_info: Any = None) -> np.ndarray:
        place = block_info[None]
        return mixture(place["chunk-shape"], place["chunk-location"])

    chunks = (
        (rows,) * (shape[0] // rows) + ((shape[0] % rows,) if shape[0] % rows else ()),
        *((n,) for n in shape[1:]),
    )
    return vd.dataset({"c": da.map_blocks(piece, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * 3, np.float32))})


def step_ns(ds: xr.Dataset, steps: int, stepper: str = "imex", **options: Any) -> float:
    """Median nanoseconds per voxel and step of a run."""
    run = vd.simulate(MODEL, ds, dt=STEPS[stepper], steps=steps, stepper=stepper, progress=False, **options)
    return vd.Report.of(run.attrs).ns_per_voxel_step


def pair_ns(ds: xr.Dataset, times: int) -> float:
    """Median nanoseconds per voxel of a bare transform and its inverse, by SciPy on all threads."""
    u, found = ds.c.values, []
    for _ in range(times):
        began = time.perf_counter()
        modes = scipy.fft.rfftn(u, workers=threads())
        scipy.fft.irfftn(modes, s=u.shape, workers=threads(), overwrite_x=True)
        found.append((time.perf_counter() - began) / u.size * 1e9)
    return statistics.median(found)


@contextmanager
def cluster(workers: int) -> Iterator[LocalCluster]:
    """Processes of one thread each, that only this machine can talk to."""
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with LocalCluster(n_workers=workers, threads_per_worker=1, **options) as processes:
        yield processes


def in_memory(size: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """The bare transform pair, blocks, and chunks on threads, in turn."""
    ds = start((size,) * 3)
    found: dict[str, list[float]] = {name: [] for name in ("pair", *BLOCKS, "chunked")}
    for _ in range(rounds):
        found["pair"].append(pair_ns(ds, steps))
        for name, library in BLOCKS.items():
            found[name].append(step_ns(ds, steps, fft=library))
        # steps of chunks are taken eight at a time, and the first eight are left out
        found["chunked"].append(step_ns(ds, max(steps, 24), chunks=-(-size // (2 * threads()))))
    return found


def beside_processes(size: int, rounds: int, steps: int, workers: int = 2) -> dict[str, list[float]]:
    """A block, and chunks on processes, in turn; these are there all the time."""
    ds = start((size,) * 3)
    found: dict[str, list[float]] = {"block": [], "distributed": []}
    with cluster(workers) as processes:
        for _ in range(rounds):
            found["block"].append(step_ns(ds, steps))
            with Client(processes):
                found["distributed"].append(step_ns(ds, max(steps, 24), chunks=-(-size // workers)))
    return found


def link(size: int, times: int) -> float:
    """Bytes in a second from one worker to another: arrays of so many bytes, one after the other."""
    taken = []
    with cluster(2) as processes, Client(processes) as client:
        here, there = client.scheduler_info()["workers"]
        for seed in range(times + 1):
            made = client.submit(np.full, size // 8, float(seed), workers=here)
            wait(made)
            began = time.perf_counter()
            client.submit(np.size, made, workers=there).result()
            taken.append(time.perf_counter() - began)
    return size / statistics.median(taken[1:])


def block(
    shape: Sequence[int],
    rounds: int,
    steps: int,
    stepper: str = "imex",
    chunked: bool = False,
    folder: str | None = None,
    fft: str = "scipy",
) -> float:
    """A run that holds the field, frames in memory or in a folder: nanoseconds per voxel and step."""
    ds, options = start(shape), {"chunks": -(-shape[0] // (2 * threads()))} if chunked else {}
    options["fft"] = fft
    taken = []
    for _ in range(rounds):
        if folder is None:
            taken.append(step_ns(ds, steps, stepper, **options))
            continue
        with tempfile.TemporaryDirectory(dir=folder, prefix="voxdask-scale-") as there:
            taken.append(step_ns(ds, steps, stepper, store=f"{there}/run.zarr", **options))
    return statistics.median(taken)


def distributed(shape: Sequence[int], rounds: int, steps: int, workers: int) -> float:
    """A run on so many processes."""
    ds = start(shape)
    with cluster(workers) as processes, Client(processes):
        return statistics.median(step_ns(ds, max(steps, 24), chunks=-(-shape[0] // workers)) for _ in range(rounds))


def fits(size: int, registers: int = 1, frames: int = 2) -> bool:
    """Whether a block of size^3 voxels, with its start and frames, does not leave the memory that is free."""
    return size**3 * 4 * (1 + frames + registers + 1.2) < 0.75 * psutil.virtual_memory().available


def memory_now() -> Numbers:
    """Bytes that are resident: the peak, all, and those that are no page of a file."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kept = {
        line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines if line.startswith(("VmHWM", "Vm", "Rss"))
    }
    return {"peak": kept["VmHWM"], "all": kept["VmRSS"], "anonymous": kept["RssAnon"]}


class Peak:
    """Watches anonymous memory, and asks the system for the peak of all; both above what there was at the start."""

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
        self.base, self.most, self._over = memory_now(), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):  # a look every 2 ms makes a run on two cores slower by 8 %
            self.most = max(self.most, memory_now()["anonymous"])

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self.resident = memory_now()["peak"] - self.base["all"]
        self.anonymous = self.most - self.base["anonymous"]


def spilled(size: int, steps: int, limit: int, folder: str, stepper: str = "imex") -> Numbers:
    """A spilled run beside the bare disk, with its memory once kernels are there, and what was foreseen."""
    shape, place = (size,) * 3, {"dir": folder, "prefix": "voxdask-scale-"}
    ds = lazy_start(shape)
    for small in map(start, WARM):
        with tempfile.TemporaryDirectory(**place) as warm:
            least = vd.plan(MODEL, small, stepper=stepper, measure=False).memory_bytes - 1
            step_ns(small, 9, stepper, memory_limit=least, store=f"{warm}/run.zarr")
            step_ns(small, 2, stepper)
    limit = min(limit, vd.plan(MODEL, ds, stepper=stepper, measure=False).memory_bytes - 1)  # a small field spills, too
    foreseen = vd.plan(MODEL, ds, stepper=stepper, memory_limit=limit, store=f"{folder}/run.zarr")
    # the first is taken alone, then as many at once as go into a sweep; files are laid out in the first of these
    steps = max(steps, 1 + 8 * foreseen.batch)
    with tempfile.TemporaryDirectory(**place) as there, Peak() as peak:
        ns = step_ns(ds, steps - (steps - 1) % foreseen.batch, stepper, memory_limit=limit, store=f"{there}/run.zarr")
    with tempfile.TemporaryDirectory(**place) as there:
        bare = bare_disk(there, foreseen)
    return {
        "ns": ns, "bare_ns": bare / size**3 * 1e9, "resident": peak.resident, "anonymous": peak.anonymous,
        "projected": foreseen.memory_bytes, "traffic": foreseen.traffic_bytes or 0,
        "foreseen_ns": (foreseen.step_seconds or 0.0) / size**3 * 1e9, "depth": foreseen.depth, "batch": foreseen.batch,
        "slab_rows": foreseen.slab_rows, "pencil_columns": foreseen.pencil_columns,
    }  # fmt: skip


def bare_disk(folder: str, plan: vd.Plan) -> float:
    """Seconds that files of the same number and size take to be read and written as often as in a step, and no more."""
    problem = plan.problem
    slabs = -(-problem.shape[0] // plan.slab_rows)
    crossings = slabs * -(-plan.streamed_columns // plan.pencil_columns) if problem.spectral else 0
    crossing = plan.slab_rows * plan.pencil_columns * problem.mode_bytes
    spectra = 4 * crossings * crossing  # both sweeps read and write all of them
    slab = plan.slab_rows * problem.padded_row_bytes
    times = max(round(((plan.traffic_bytes or 0) - spectra) / (2 * slabs * slab)), 1)
    kinds = [("slab", slabs, slab, times), ("crossing", crossings, crossing, 2)]
    local = threading.local()

    def move(item: tuple[str, int, bool]) -> None:
        name, size, both = item
        if getattr(local, "buffer", None) is None:
            local.buffer = np.ones(max(slab, crossing), np.uint8)
        view = memoryview(local.buffer)[:size]
        if both:
            with open(name, "rb", buffering=0) as file:
                file.readinto(view)
        with open(name, "r+b" if both else "wb", buffering=0) as file:
            file.write(view)

    with ThreadPoolExecutor(plan.threads) as pool:
        for kind, count, size, _ in kinds:
            list(pool.map(move, [(f"{folder}/{kind}{k}", size, False) for k in range(count)]))
        began = time.perf_counter()
        for kind, count, size, repeated in kinds:
            for _ in range(repeated):
                list(pool.map(move, [(f"{folder}/{kind}{k}", size, True) for k in range(count)]))
        return time.perf_counter() - began


def foreseen(size: int, steps: int, tier: str, limit: int, folder: str, stepper: str) -> Numbers:
    """A plan and the run that it is a plan of: time of a step, and memory."""
    if tier == "spilled":
        found = spilled(size, steps, limit, folder, stepper)
        return {"ns": found["ns"], "foreseen_ns": found["foreseen_ns"],
                "bytes": max(found["resident"], found["anonymous"]), "foreseen_bytes": found["projected"]}  # fmt: skip
    ds, small = start((size,) * 3), start((64, 48, 48))
    options: dict[str, Any] = {"chunks": -(-size // (2 * threads()))} if tier == "chunked" else {}
    plan = vd.plan(MODEL, ds, stepper=stepper, **options)
    with tempfile.TemporaryDirectory(dir=folder) as warm:
        step_ns(small, 2, stepper, store=f"{warm}/run.zarr", **({"chunks": 16} if options else {}))
    steps = max(steps, 17) if options else steps  # they are taken eight at a time
    with tempfile.TemporaryDirectory(dir=folder) as there, Peak() as peak:  # frames go to a store, and not to memory
        ns = step_ns(ds, steps, stepper, store=f"{there}/run.zarr", **options)
    voxel, most = (plan.step_seconds or 0.0) / size**3 * 1e9, max(peak.resident, peak.anonymous)
    return {"ns": ns, "foreseen_ns": voxel, "bytes": most, "foreseen_bytes": plan.memory_bytes}


def long(size: int, steps: int, workers: int) -> dict[str, list[float]]:
    """A long chunked run, on threads or on processes: resident bytes, seconds and tasks, tenth by tenth."""
    if not workers:
        return _long(size, steps, None)
    # distributed keeps the last thousand messages, graphs of a hundred kilobytes among them: that is no leak
    with (
        dask.config.set({"distributed.admin.low-level-log-length": 10}),
        cluster(workers) as processes,
        Client(processes) as client,
    ):
        return _long(size, steps, client)


def _long(size: int, steps: int, client: Client | None) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {"seconds": [], "resident": [], "tasks": []}
    held, over = [0.0], threading.Event()

    def watch() -> None:
        while client is not None and not over.wait(0.3):
            held.append(client.run_on_scheduler(_tasks))

    def look(frame: xr.Dataset) -> None:
        mine = _resident()
        seen["resident"].append(mine + sum(client.run(_resident).values()) if client else mine)
        seen["seconds"].append(time.perf_counter())
        if client is not None:
            held.append(client.run_on_scheduler(_tasks))
        seen["tasks"].append(max(held))
        held[:] = [0.0]

    chunks, tenth, ds = -(-size // 4), max(steps // 10, 1), start((size,) * 3)
    options: dict[str, Any] = {"dt": 1e-3, "chunks": chunks, "progress": False}
    vd.simulate(MODEL, ds, steps=20, **options)  # kernels are there
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        vd.simulate(MODEL, ds, steps=10 * tenth, save_every=tenth, callbacks=[look], **options)
    finally:
        over.set()
        watcher.join()
    seen["seconds"] = [float(s) for s in np.diff(seen["seconds"])]
    return {name: values[-10:] for name, values in seen.items()}


def _resident() -> float:
    return float(psutil.Process().memory_info().rss)


def _tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)
