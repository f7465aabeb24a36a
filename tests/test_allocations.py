"""What a step allocates: nothing of the size of a field as a block, and in chunks no more than what it hands on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import dask
import numpy as np
import pytest

import voxdask as vd
from voxdask import backend, chunked
from voxdask.halo import PieceRows
from voxdask.problem import TILE_BYTES
from voxdask.recycler import Recycler
from voxdask.steppers import stepper_of

MODEL = vd.models.CahnHilliard()
SHAPE = (192, 128, 128)
#: What a thread has at hand that comes and goes: transforms of a tile, whatever the size of the field.
TILE = 3 * TILE_BYTES


class Watched:
    """A stepper that tells what each of its steps allocates at most, in bytes."""

    def __init__(self, name: str) -> None:
        self.inner, self.peaks, self.kept = stepper_of(name), list[int](), list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, *arguments: Any) -> Any:
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = self.inner.step(*arguments)
        now, peak = tracemalloc.get_traced_memory()
        self.peaks.append(peak - held)
        self.kept.append(now - held)
        return result


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def start() -> Any:
    rng = np.random.default_rng(0)
    return vd.dataset({"c": rng.uniform(0.4, 0.6, SHAPE).astype(np.float32)})


@pytest.mark.parametrize("stepper", ["euler", "imex", "rk4", "sbdf2", "etdrk4", "rkc2"])
def test_a_block_step_allocates_no_field(stepper: str, traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps make what all others use again; transforms of tiles come and go."""
    watched, ds, threads = Watched(stepper), start(), 1
    monkeypatch.setattr(backend, "cpu_count", lambda: threads)
    assert threads * TILE < 0.3 * ds.c.nbytes
    vd.simulate(MODEL, ds, dt=1e-3, steps=6, stepper=watched, progress=False)
    assert len(watched.peaks) == 6
    assert max(watched.peaks[3:]) < threads * TILE
    assert max(watched.kept[3:]) < 0.01 * ds.c.nbytes


def test_a_task_of_a_slab_allocates_what_it_hands_on(traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ghost layers come from views of neighbours, tile by tile: no slab is copied to have some around it."""
    over: dict[str, list[int]] = {}
    # what other threads make or give up would be counted
    monkeypatch.setattr(backend, "cpu_count", lambda: 1)

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            result = function(*arguments)
            made = result.values() if isinstance(result, dict) else [result]
            handed = sum({id(owner): owner.nbytes for owner in map(_owner, made)}.values())
            over.setdefault(name, []).append(tracemalloc.get_traced_memory()[1] - held - handed)
            return result

        watched.__name__ = name
        return watched

    for name in ("advance_slab", "filter_pencil"):
        monkeypatch.setattr(chunked, name, watch(name, getattr(chunked, name)))
    monkeypatch.setattr(Recycler, "empty", lambda self, shape, dtype: np.empty(shape, dtype))  # every one is counted
    ds, rows = start(), 64
    with dask.config.set(scheduler="synchronous"):
        vd.simulate(MODEL, ds, dt=1e-3, steps=24, chunks=rows, progress=False)
    slab = ds.c.nbytes * rows // SHAPE[0]
    assert {name: len(bytes_over) for name, bytes_over in over.items()} == {"advance_slab": 72, "filter_pencil": 72}
    assert slab > TILE
    # at first kernels are compiled, and threads make what they use again
    assert all(max(each[9:]) < TILE for each in over.values())


def _owner(array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_rows_of_neighbours_are_views() -> None:
    chunks = [(lo, np.zeros((4, 3, 3), np.float32)) for lo in (0, 4, 8)]
    pieces = list(PieceRows(chunks).pieces(2, 10))
    assert [(row, len(piece)) for row, piece in pieces] == [(2, 2), (4, 4), (8, 2)]
    assert all(np.shares_memory(piece, chunk) for (_, piece), (_, chunk) in zip(pieces, chunks, strict=True))
