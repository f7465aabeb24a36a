"""Steady transport on a GPU, on a stand-in for CuPy (fake_cupy): it compiles, and a direct solver gives the same."""

from __future__ import annotations

import math
from typing import Any

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import xarray as xr
from conduction import EXACT, image_of, network, random_labels, reference_tensor, reference_through, walls_of
from test_cuda import ARCHITECTURES, ptx

import voxdask as vd
from voxdask.transport import device, workplace

KERNELS = ["residual", "gather", "prolong", "correction", "direction", "curvature", "true_residual", "mask", "walls"]
KERNELS += ["products", "scaled_nodes", "rest_of_nodes", "gather_nodes", "prolong_nodes", "smooth_nodes"]

on_a_gpu = pytest.mark.usefixtures("gpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("whole", [True, False])
def test_every_architecture_compiles(architecture: str, dtype: Any, whole: bool) -> None:
    kind = np.dtype(np.uint8 if whole else dtype)
    text = ptx(device.source(np.dtype(dtype), kind), architecture)
    assert [text.count(f".entry {name}(") for name in KERNELS] == [1] * len(KERNELS) and text.count(".entry") == 15


def there(image: xr.DataArray) -> xr.DataArray:
    """The same image on the device."""
    return image.copy(data=fake_cupy.asarray(image.values))


@on_a_gpu
@pytest.mark.parametrize("direction", ["z", "y", "x"])
@pytest.mark.parametrize("sides", ["no-flux", "periodic"])
def test_a_direct_solver_gives_the_same_tortuosity(direction: str, sides: Any) -> None:
    labels, spacing = random_labels((24, 23, 22), labels=2), (1.0, 0.7, 1.3)
    options = {"phase": 1, "direction": direction, "sides": sides, **EXACT}
    found = vd.tortuosity(there(image_of(labels, spacing=spacing)), **options)
    d_eff = reference_through((labels == 1).astype(float), "zyx".index(direction), spacing, sides == "periodic")
    assert found.d_eff == pytest.approx(d_eff, rel=1e-8)
    np.testing.assert_allclose(found.flux, d_eff, rtol=1e-5)
    host = vd.tortuosity(image_of(labels, spacing=spacing), **options)
    assert isinstance(found.field.data, fake_cupy.ndarray) and isinstance(host.field.data, np.ndarray)
    np.testing.assert_allclose(found.field.data.get(), host.field.values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.profile, host.profile, rtol=1e-6)
    assert abs(found.iterations - host.iterations) <= 1
    assert (found.porosity, found.percolating_porosity) == (host.porosity, host.percolating_porosity)


@on_a_gpu
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 3.0)])
@pytest.mark.parametrize("table", [(0.0, 1.0, 3.0, 0.2), (1.0, 0.0, 0.0, 1.0)], ids=["shares", "whole"])
@pytest.mark.parametrize("shape", [(24, 24, 24), (13, 17), (9, 1, 20)], ids=str)
def test_a_direct_solver_gives_the_same_tensor(spacing: Any, table: tuple[float, ...], shape: tuple[int, ...]) -> None:
    labels, spacing = random_labels(shape, seed=1), spacing[: len(shape)]
    options: dict[str, Any] = {"diffusivities": dict(enumerate(table)), "device": "gpu", **EXACT}
    image = image_of(labels, spacing=spacing, dims=("z", "y", "x")[-len(shape) :])
    found = vd.effective_diffusivity(image, **options)
    expected = reference_tensor(np.array(table)[labels], spacing)
    np.testing.assert_allclose(found.tensor, expected, rtol=1e-8, atol=1e-8 * expected.max() + 1e-20)
    faces = vd.effective_diffusivity(image, boundary="face", directions="x", **options)
    through = reference_through(np.array(table)[labels], len(shape) - 1, spacing)
    assert float(faces.tensor[-1, -1]) == pytest.approx(through, rel=1e-8)


@on_a_gpu
def test_an_electrode_has_the_resistance_of_a_direct_solve() -> None:
    labels, spacing = random_labels((14, 13, 12), labels=2, seed=7), (0.5, 1.0, 0.8)
    image, options = image_of(labels, spacing=spacing), {"direction": "z", **EXACT}
    values = (labels == 1).astype(float)
    matrix, _ = network(values, spacing, (False,) * 3)
    end = np.zeros(values.shape)
    end[0] = 2 * math.prod(spacing) / spacing[0] ** 2 * values[0]
    _, part = sp.csgraph.connected_components(matrix, directed=False)
    held = np.isin(part, part[end.ravel() > 0])
    wall = walls_of(values, spacing).ravel()[held]
    system = (matrix + sp.diags(end.ravel())).tocsr()[held][:, held]
    resistance = wall @ scipy.sparse.linalg.spsolve(system.tocsc(), wall) / wall.sum() ** 2
    found = vd.electrode_tortuosity(there(image), moments=5, **options)
    assert found.resistance == pytest.approx(resistance, rel=1e-8)
    assert found.capacitance == pytest.approx(wall.sum())
    np.testing.assert_allclose(found.ladder, vd.electrode_tortuosity(image, moments=5, **options).ladder, rtol=1e-7)
    one = vd.electrode_tortuosity(image, moments=1, device="gpu", **options)
    assert one.ladder[0, 0] == pytest.approx(found.ladder[0, 0], rel=1e-7)
    assert one.tau == pytest.approx(found.tau, rel=1e-12)


@on_a_gpu
@pytest.mark.parametrize("n", [2, 5, 16])
def test_the_diagonal_strip(n: int) -> None:
    image = np.zeros((n, n + 1, n + 1), np.uint8)
    for i in range(n):
        image[i, i : i + 2, i : i + 2] = 1
    found = vd.tortuosity(there(image_of(image)), direction="z", **EXACT)
    assert found.tau == pytest.approx(4 / n * (2 * n - 3 + 7 / 12), rel=1e-10)


@on_a_gpu
@pytest.mark.parametrize("ends", ["face", "centre"])
def test_shares_in_single_precision_agree_with_the_host(ends: Any) -> None:
    noise = random_labels((21, 20, 19), seed=4, labels=9)
    share = image_of((noise / 8).astype(np.float32))
    options: dict[str, Any] = {"phase": None, "ends": ends, "direction": "y", "tolerance": 1e-5}
    host, found = (vd.tortuosity(share, device=where, **options) for where in ("cpu", "gpu"))
    assert found.converged and found.tau == pytest.approx(host.tau, rel=2e-5) and found.iterations == host.iterations
    assert isinstance(found.field.data, np.ndarray) and found.field.dims == share.dims  # the image lay on the host
    np.testing.assert_allclose(found.field, host.field, atol=2e-3)
    again = vd.tortuosity(share, device="gpu", **options)
    assert again.tau == found.tau  # the same bits
    np.testing.assert_array_equal(again.field, found.field)


@on_a_gpu
def test_what_does_not_conduct_is_told_there_too() -> None:
    labels = np.ones((12, 10, 8), np.uint8)
    labels[5] = 0
    shut = vd.tortuosity(there(image_of(labels)), direction="z")
    assert math.isinf(shut.tau) and shut.d_eff == 0 and not shut.percolating_porosity
    labels[5, 3, 4], labels[2, 2:4, 2:7] = 1, 0
    found, host = (vd.tortuosity(each, direction="z", **EXACT) for each in (there(image_of(labels)), image_of(labels)))
    assert found.tau == pytest.approx(host.tau, rel=1e-10)
    assert (np.isnan(found.field.data.get()) == np.isnan(host.field.values)).all()


@on_a_gpu
def test_where_a_solve_is_done() -> None:
    image = image_of(random_labels((12, 11, 10), labels=2))
    assert isinstance(vd.tortuosity(there(image), device="cpu").field.data, np.ndarray)
    assert isinstance(vd.tortuosity(image, device="gpu", memory_limit="40kB").field.data, np.ndarray)
    options: dict[str, Any] = {"divisions": (3, 2, 1), "samples": 2}
    here, on_gpu = (vd.representative_volume(image, device=where, **options) for where in ("cpu", "gpu"))
    np.testing.assert_allclose(here.table["mean"], on_gpu.table["mean"], rtol=1e-4)
    for function in (vd.tortuosity, vd.effective_diffusivity, vd.electrode_tortuosity):
        given = {"diffusivities": {0: 0.0, 1: 1.0}} if function is vd.effective_diffusivity else {}
        with pytest.raises(ValueError, match="device is 'cuda'; use 'auto', 'cpu' or 'gpu'"):
            function(image, device="cuda", **given)  # type: ignore[operator]


def test_without_a_gpu() -> None:
    image = image_of(random_labels((12, 11, 10), labels=2))
    with pytest.raises(RuntimeError, match='device="gpu" needs a CUDA GPU and CuPy'):
        vd.tortuosity(image, device="gpu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("shape", [(50, 50, 50), (40, 17, 90)], ids=str)
def test_memory_on_the_device_is_foreseen(
    gpu: fake_cupy.Pool, dtype: str, whole: bool, fine: bool, shape: tuple[int, int, int]
) -> None:
    labels, used = random_labels(shape, labels=2, fine=fine), gpu.used
    options: dict[str, Any] = {"dtype": dtype, "phase": 1 if whole else None, "device": "gpu"}
    image, kind = image_of(labels if whole else 0.5 + 0.5 * labels), np.dtype(np.uint8 if whole else dtype)
    foreseen = device.bytes_needed((shape[2], *shape[:2]), kind, np.dtype(dtype), 4)
    gpu.free_all_blocks()
    gpu.limit = used + foreseen
    vd.tortuosity(image, **options)
    assert gpu.used == used and 0.5 * foreseen < gpu.peak - used
    gpu.limit = used + foreseen - 1
    with pytest.raises(MemoryError, match=r"the solve takes up to .* on the GPU, where .* are free; .*device=\"cpu\""):
        vd.tortuosity(image, **options)


def test_a_device_that_runs_out_of_memory(gpu: fake_cupy.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    image, used = image_of(random_labels((24, 24, 24), labels=2)), gpu.used
    monkeypatch.setattr(workplace, "require_room", lambda needed: None)
    gpu.limit = used + 200_000
    with pytest.raises(MemoryError, match=r"the GPU has no memory left for the solve: .*; end what else uses it"):
        vd.tortuosity(image, device="gpu")
    assert gpu.used == used
