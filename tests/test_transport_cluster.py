"""Effective properties of lazy images on a cluster: by processes and by threads, spilled, and when workers die."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conduction import image_of, random_labels, reference_tensor, reference_through
from conftest import connected
from distributed import Client, LocalCluster

import voxdask as vd
from voxdask.clients import cluster_memory, workers_of
from voxdask.transport import actor
from voxdask.transport import cluster as module

EXACT: dict[str, Any] = {"dtype": "float64", "tolerance": 1e-11}


@pytest.fixture(scope="module", params=["processes", "threads"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    processes = request.param == "processes"
    with connected(2 if processes else 3, processes=processes) as client:
        yield client


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_VOXELS", 1)


def compare(image: xr.DataArray, chunks: Any, **options: Any) -> vd.Tortuosity:
    here, there = vd.tortuosity(image, **EXACT, **options), vd.tortuosity(image.chunk(chunks), **EXACT, **options)
    assert isinstance(there.field.data, da.Array) and there.field.dtype == here.field.dtype
    assert there.tau == pytest.approx(here.tau, rel=1e-9) and there.converged
    assert there.porosity == here.porosity and there.percolating_porosity == here.percolating_porosity
    for name in ("flux", "profile"):
        xr.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-4)
    xr.testing.assert_allclose(there.field.compute(), here.field, atol=1e-4)
    return there


@pytest.mark.parametrize("direction", ["z", "x"])
@pytest.mark.parametrize(("ends", "sides"), [("face", "periodic"), ("centre", "no-flux")])
def test_equals_the_solve_here(client: Client, direction: str, ends: Any, sides: Any) -> None:
    image = image_of(random_labels((33, 10, 26), 2, fine=True), spacing=(0.5, 0.7, 0.5))
    compare(image, {"z": 7, "x": 11}, phase=(0, 1, 2), direction=direction, ends=ends, sides=sides)


def test_a_direct_solver_finds_the_same_diffusivity(client: Client) -> None:
    labels, values = random_labels((24, 20, 18), 5, fine=True), np.array([1.0, 0.1, 0.0, 0.5])
    found = vd.effective_diffusivity(
        image_of(labels).chunk(9), diffusivities=dict(enumerate(2 * values)), boundary="face", **EXACT
    )
    expected = [2 * reference_through(values[labels], axis, (1.0,) * 3) for axis in range(3)]
    np.testing.assert_allclose(np.diag(found.tensor), expected, rtol=1e-8)


@pytest.mark.parametrize("shape", [(24, 14, 18), (19, 21, 23)])
def test_the_whole_tensor(client: Client, shape: tuple[int, int, int]) -> None:
    """Around all axes; of blocks that end nowhere, or of one domain where they do."""
    labels, values = random_labels(shape, 5, fine=True), np.array([1.0, 0.1, 0.0, 0.5])
    found = vd.effective_diffusivity(image_of(labels).chunk(9), diffusivities=dict(enumerate(values)), **EXACT)
    np.testing.assert_allclose(found.tensor, reference_tensor(values[labels], (1.0,) * 3), atol=1e-8)
    assert found.peak_memory > 0


@pytest.mark.parametrize("reservoir", ["first", "last"])
@pytest.mark.parametrize("moments", [1, 4])
def test_an_electrode(client: Client, reservoir: Any, moments: int) -> None:
    image = image_of(random_labels((33, 14, 12), 3, labels=2), spacing=(1.0, 0.8, 1.0))
    options: dict[str, Any] = {"direction": "z", "reservoir": reservoir, "moments": moments, **EXACT}
    here, there = vd.electrode_tortuosity(image, **options), vd.electrode_tortuosity(image.chunk(9), **options)
    for name in ("tau", "porosity", "open_porosity", "wall_area", "resistance", "capacitance"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=1e-9)
    np.testing.assert_allclose(there.ladder, here.ladder, rtol=1e-6)


def test_flat_images_and_fractions(client: Client) -> None:
    compare(image_of(random_labels((40, 30), 1, labels=3)), 16, phase=(0, 1), direction="y")
    grey = np.random.default_rng(0).uniform(0.1, 1, (20, 8, 9))
    compare(image_of(grey), 5, phase=None, direction="z")


def test_a_file(client: Client, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    labels = random_labels((20, 18, 16), 4, labels=2)
    tifffile.imwrite(tmp_path / "image.tiff", labels)
    here = vd.tortuosity(image_of(labels), direction="z", **EXACT)
    there = vd.tortuosity(tmp_path / "image.tiff", direction="z", **EXACT)
    assert isinstance(there.field.data, da.Array) and there.tau == pytest.approx(here.tau, rel=1e-9)


def test_spilled_workers(client: Client, tmp_path: Path) -> None:
    image = image_of(random_labels((64, 64, 64), 6, labels=2))
    here, there = (
        vd.tortuosity(each, direction="z", memory_limit="12MB", store=tmp_path) for each in (image, image.chunk(32))
    )
    assert there.tau == pytest.approx(here.tau, rel=2e-4)
    with pytest.raises(MemoryError, match="slabs of four layers need"):
        vd.tortuosity(image.chunk(32), memory_limit="100kB")


def test_what_does_not_conduct(client: Client) -> None:
    image = np.ones((20, 6, 6), np.uint8)
    image[9] = 2
    found = vd.tortuosity(image_of(image).chunk(5), direction="z")
    assert np.isinf(found.tau) and found.d_eff == 0 and found.converged
    assert np.isnan(found.field).all() and found.field.shape == (20, 6, 6)
    with pytest.raises(ValueError, match="phase names the label 7, which is not in the image; it holds 1, 2"):
        vd.tortuosity(image_of(image).chunk(5), phase=7, direction="z")
    with pytest.raises(ValueError, match="phase names the label 8, which is not in the image; it holds 1, 2"):
        vd.tortuosity(image_of(image).chunk(5), phase=(1, 8), direction="z")
    with pytest.raises(ValueError, match=r"image holds 2\.0 where a share"):
        vd.tortuosity(image_of(image.astype(float)).chunk(5), phase=None, direction="z")


def test_calls_that_take_long_are_looked_into(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, where workers are threads: proxies of the actors come and go beside the actors themselves."""
    monkeypatch.setattr(module, "_PATIENCE", 1e-4)
    monkeypatch.setattr(actor, "_PATIENCE", 1e-4)
    compare(image_of(random_labels((40, 16, 14), 8, labels=2)), 10, direction="z")


def test_what_the_client_remembers_may_be_without_workers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer of Dask's replaces it so every two seconds, also between a question and its answer."""
    monkeypatch.setattr(module, "_PATIENCE", 1e-4)
    monkeypatch.setattr(client, "scheduler_info", lambda n_workers=5: {"workers": {}})
    limits = [worker["memory_limit"] for worker in workers_of(client).values()]
    assert len(limits) == len(client.nthreads()) and cluster_memory(client) == int(0.6 * sum(limits))
    compare(image_of(random_labels((40, 16, 14), 8, labels=2)), 10, direction="z")


def test_a_solve_within_a_task_waits_for_nobody(client: Client) -> None:
    """There is a thread for each worker, which the task holds."""
    image = image_of(random_labels((24, 8, 8), 1, labels=2)).chunk(8)
    calls = [client.submit(lambda i: vd.tortuosity(image, direction=i).tau, dim) for dim in ("z", "y", "x")]
    assert client.gather(calls) == [pytest.approx(vd.tortuosity(image, direction=dim).tau, rel=1e-3) for dim in "zyx"]


def test_small_images_are_solved_here(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_VOXELS", 1 << 21)
    found = vd.tortuosity(image_of(np.ones((20, 4, 4), np.uint8)).chunk(5), direction="z")
    assert isinstance(found.field.data, np.ndarray)


def test_nothing_is_left(client: Client) -> None:
    image = image_of(random_labels((24, 8, 8), 1, labels=2)).chunk(8)
    found = vd.tortuosity(image, direction="z")
    assert np.isfinite(found.field.mean().compute())


    def domains(dask_worker: Any) -> list[Any]:
        return [actor for actor in dask_worker.state.actors.values() if getattr(actor, "domain", None) is not None]

    def keys(dask_scheduler: Any) -> list[str]:
        return [str(key) for key in dask_scheduler.tasks]

    assert not any(map(len, client.run(domains).values()))
    del found
    if len(client.nthreads()) == 3:  # in one process, Dask's worker and client keep actors' names for each other
        return
    left = ["?"]
    for _ in range(100):
        gc.collect()  # what earlier tests raised keeps frames, and actors' proxies are in cycles
        client.run(gc.collect)
        if not (left := client.run_on_scheduler(keys)):
            break
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_dies(which: int) -> None:
    """Killed as soon as domains are called: the solve begins anew, and its field can still be read."""
    image = image_of(random_labels((160, 100, 100), 7, labels=3))
    here = vd.tortuosity(image, phase=(0, 1), direction="z", dtype="float64", tolerance=1e-9)
    with connected() as client:
        victim, killed = list(client.run(os.getpid).values())[which], threading.Event()

        def solving(dask_scheduler: Any) -> bool:
            return any(
                task.state == "processing" and str(key).startswith("voxdask-transport")
                for key, task in dask_scheduler.tasks.items()
            )

        def disturb() -> None:
            while not client.run_on_scheduler(solving):
                time.sleep(0.01)
            time.sleep(0.3)
            os.kill(victim, signal.SIGKILL)
            killed.set()

        thread = threading.Thread(target=disturb)
        thread.start()
        there = vd.tortuosity(image.chunk(50), phase=(0, 1), direction="z", dtype="float64", tolerance=1e-9)
        thread.join()
        assert killed.is_set() and there.tau == pytest.approx(here.tau, rel=1e-9)
        np.testing.assert_allclose(there.field, here.field, atol=1e-3)


def test_the_only_worker_dies_while_it_reads_the_image() -> None:
    """What had to run there waits for nobody: the solve begins anew on the worker that comes after."""
    image, started = image_of(np.ones((64, 20, 20), np.uint8)), threading.Event()

    def slow(block: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return block

    lazy = image.chunk(8)
    lazy = lazy.copy(data=lazy.data.map_blocks(slow, dtype=lazy.dtype))
    with connected(1) as client:
        (victim,) = client.run(os.getpid).values()

        def disturb() -> None:
            started.wait(60)
            time.sleep(1)
            os.kill(victim, signal.SIGKILL)

        thread = threading.Thread(target=disturb)
        thread.start()
        started.set()
        assert vd.tortuosity(lazy, direction="z").tau == pytest.approx(1, rel=1e-4)
        thread.join()


def test_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STARTING", 0.2)
    image = image_of(np.ones((20, 4, 4), np.uint8)).chunk(5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
        pytest.raises(RuntimeError, match="the active Client has no workers yet"),
    ):
        vd.tortuosity(image, direction="z")
