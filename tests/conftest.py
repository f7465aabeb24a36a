"""What all tests share: floating-point errors raise, seeded hypothesis, and one body for all tiers."""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import xarray as xr

import voxdask as vd
from voxdask.planning import make_plan

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


def spill_limit(model: Any, ds: xr.Dataset, *, thin: bool = True, **options: Any) -> int:
    """The `memory_limit` that makes a run spill: the least that fits, or one byte less than the block takes."""
    block = vd.plan(model, ds, memory_limit="1TB", **options)
    if not thin:
        return block.memory_bytes - 1

    def fits(limit: int) -> bool:
        try:
            return bool(make_plan(block.problem, memory_limit=limit, threads=block.threads))
        except MemoryError:
            return False

    low, high = 1, block.memory_bytes
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True)
class Tier:
    """One way to run `simulate`: as a block, in chunks, on Dask arrays, or spilled."""

    name: str
    folder: Path
    _count: Any

    def simulate(self, model: Any, ds: xr.Dataset, **options: Any) -> xr.Dataset:
        """The run, in memory; of the tier that was asked for."""
        kind, _, detail = self.name.partition("-")
        rows = next(iter(ds.sizes.values())) if detail == "all" else int(detail or 0)
        keys = {"stepper": options.get("stepper", "imex"), "boundary": options.get("boundary", "periodic")}
        if kind == "chunks":
            options["chunks"] = rows
        elif kind == "dask":
            ds = ds.chunk(dict.fromkeys(ds.dims, rows))
        elif kind == "spilled":
            options["store"] = self.path()
            options["memory_limit"] = spill_limit(model, ds, thin=detail == "", **keys)
        run = vd.simulate(model, ds, progress=False, **options).load()
        expected = {"chunks": "chunked", "dask": "chunked"}.get(kind, kind)
        assert vd.Report.of(run.attrs).tier == expected
        return run

    def path(self) -> Path:
        """A path where nothing is yet."""
        return self.folder / f"run{next(self._count)}.zarr"


def make_tier(name: str, folder: Path) -> Tier:
    """A tier by name: "block", "chunks-ROWS", "chunks-all", "dask-SIZE", "spilled" or "spilled-1" (thick tiles)."""
    return Tier(name, folder, itertools.count())


@pytest.fixture(params=["block", "chunks-1", "chunks-2", "dask-3", "spilled", "spilled-1"])
def tier(request: pytest.FixtureRequest, tmp_path: Path) -> Tier:
    """Every tier in turn, chunked in several ways."""
    return make_tier(request.param, tmp_path)
