"""What all tests share: floating-point errors raise, seeded hypothesis, and one body for all tiers."""

from __future__ import annotations

import contextvars
import importlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cuda_shim
import dask
import fake_cupy
import hypothesis
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

import voxdask as vd
from voxdask import backend, compiling, planning, trial
from voxdask.plans import Plan
from voxdask.transport import device
from voxdask.windows import AHEAD

hypothesis.settings.register_profile(
    "voxdask",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    # fixtures here give each example a directory of its own
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("voxdask")

# a cluster's processes are forked from one that has imported all of this once; examples start theirs as users do
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
get_mp_context().set_forkserver_preload(["voxdask"])


@contextmanager
def connected(workers: int = 2, threads: int = 1, *, processes: bool = True) -> Iterator[Client]:
    """A client of a cluster on this machine, whose workers are there: processes, or threads of this one."""
    options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": threads, "processes": processes}
    options |= {"host": "127.0.0.1"} if processes else {}
    with LocalCluster(dashboard_address="127.0.0.1:0", **options) as cluster, Client(cluster) as client:
        client.wait_for_workers(workers, timeout=120)
        yield client


@pytest.fixture(autouse=True)
def floating_point_errors_raise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NumPy raises on overflow, division by zero and NaN, on worker threads too.

    Underflow to zero is no error: exponentials and the tails of a diffusing field get there in their own time.
    """
    submit = ThreadPoolExecutor.submit

    def submit_in_context(self: ThreadPoolExecutor, function: Any, /, *args: Any, **options: Any) -> Any:
        # np.errstate lives in the context, and a thread of a pool starts with an empty one
        return submit(self, contextvars.copy_context().run, function, *args, **options)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_in_context)
    with np.errstate(divide="raise", over="raise", invalid="raise", under="ignore"):
        yield


@pytest.fixture(autouse=True)
def small_grids_have_seams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a block are as thin as those of large grids; but not in a study: its many steps would take too long."""
    if request.node.get_closest_marker("study") is None:
        monkeypatch.setattr(planning, "LEAST_TILE_BYTES", 1)


@pytest.fixture(autouse=True)
def nothing_is_measured_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test learned of the machine is not known to the next one."""
    monkeypatch.setattr(trial, "_measured", {})


#: Limits that make runs of these tests spill, however small they are: through slabs and pencils of one row and
#: column, through thick ones, and through thick ones with every number of evaluations in a sweep in turn.
THIN, THICK, DEEP = 1, 2, 3


@pytest.fixture(autouse=True)
def small_runs_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan a run under one of the limits above as what it stands for; real ones are far larger."""
    depths, aheads = itertools.count(), itertools.cycle([AHEAD, 0])

    def make_plan(held: Plan, *, routes: Any, **options: Any) -> Plan:
        problem, memory_limit, threads = held.problem, held.memory_limit, held.threads
        if memory_limit not in (THIN, THICK, DEEP):
            return planning.make_plan(held, routes=routes, **options)
        routes = routes()
        route = routes[next(depths) % len(routes)] if memory_limit == DEEP else routes[-1]
        plan = replace(planning.spill(problem, 1 << 50, threads, 0, [route]), ahead=next(aheads))
        # no column of a spectrum stays in memory, half of them do, or all
        plan = replace(plan, resident_columns=problem.columns * (memory_limit - 1) // 2)
        if memory_limit == THIN:
            plan = replace(plan, slab_rows=1, pencil_columns=1, chunk_rows=1, save_rows=1, rows=1, columns=1)
        return replace(plan, memory_limit=1 << 50)

    monkeypatch.setattr(importlib.import_module("voxdask.simulate"), "make_plan", make_plan)


@dataclass(frozen=True)
class Tier:
    """One way to run `simulate`: as a block, in chunks, on Dask arrays, or spilled."""

    name: str
    folder: Path
    _count: Any

    def simulate(self, model: Any, ds: xr.Dataset, **options: Any) -> xr.Dataset:
        """The run, in memory; of the tier that was asked for."""
        kind, _, detail = self.name.partition("-")
        rows = next(iter(ds.sizes.values())) if detail == "all" else int(detail) if detail.isdigit() else 0
        if kind == "chunks":
            options["chunks"] = rows
        elif kind == "dask":
            ds = ds.chunk(dict.fromkeys(ds.dims, rows))
        elif kind == "spilled":
            options["store"] = self.path()
            options["memory_limit"] = {"": THIN, "thick": THICK, "deep": DEEP}[detail]
        run = vd.simulate(model, ds, progress=False, **options).load()
        expected = {"chunks": "chunked", "dask": "chunked"}.get(kind, kind)
        assert vd.Report.of(run.attrs).tier == expected
        return run

    def path(self) -> Path:
        """A path where nothing is yet."""
        return self.folder / f"run{next(self._count)}.zarr"


def make_tier(name: str, folder: Path) -> Tier:
    """A tier by name: "block", "chunks-ROWS", "chunks-all", "dask-SIZE", "spilled" (thin), "-thick" or "-deep"."""
    return Tier(name, folder, itertools.count())


@pytest.fixture(params=["block", "chunks-1", "chunks-2", "dask-3", "spilled", "spilled-deep"])
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Tier:
    """Every tier in turn, chunked in several ways."""
    return make_tier(request.param, tmp_path)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where CUDA C is compiled for the host."""
    return tmp_path_factory.mktemp("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, compiled: Path) -> Iterator[fake_cupy.Pool]:
    """A GPU that is none; its pool of memory."""
    if cuda_shim.COMPILER is None:
        pytest.skip("there is no C compiler (cc, gcc or clang) to run printed CUDA with")
    fake_cupy.folder = compiled
    monkeypatch.setattr(backend, "cupy", fake_cupy)
    monkeypatch.setattr(backend, "cupyx", fake_cupy)
    monkeypatch.setattr(backend, "device_fft", fake_cupy.fft)
    compiling.load_device.cache_clear()
    device._module.cache_clear()
    pool = fake_cupy.pool
    pool.limit, pool.peak = 0, pool.used
    yield pool
    pool.limit = 0
    compiling.load_device.cache_clear()
    device._module.cache_clear()
