"""Steady transport on a GPU, on a stand-in for CuPy (fake_cupy): it compiles, and a direct solver gives the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cuda_shim
import fake_cupy
import numpy as np
import pytest
import scipy.sparse.linalg
import xarray as xr
from conduction import EXACT, image_of, random_labels, reference_electrode, reference_tensor, reference_through
from test_cuda import ARCHITECTURES, ptx

import voxdask as vd
from voxdask import backend
from voxdask.transport import device, hierarchy, workplace
from voxdask.transport.arrays import Arrays
from voxdask.transport.domain import Domain
from voxdask.transport.job import Job
from voxdask.transport.phases import Labelled
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver

KERNELS = ["residual", "gather", "prolong", "correction", "direction", "curvature", "true_residual", "mask", "walls"]
KERNELS += ["products", "scaled_nodes", "rest_of_nodes", "gather_nodes", "prolong_nodes", "smooth_nodes", "solve_nodes"]

on_a_gpu = pytest.mark.usefixtures("gpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("whole", [True, False])
def test_every_architecture_compiles(architecture: str, dtype: Any, whole: bool) -> None:
    kind = np.dtype(np.uint8 if whole else dtype)
    text = ptx(device.source(np.dtype(dtype), kind), architecture)
    assert [text.count(f".entry {name}(") for name in KERNELS] == [1] * len(KERNELS)
    assert text.count(".entry") == len(KERNELS)


@pytest.fixture(params=["apart", "fused"])
def rounding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and sums are rounded apart, or together, as NVRTC has it."""
    if request.param == "fused":
        if "fma" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
            pytest.skip("this processor does not fuse products and sums")
        monkeypatch.setattr(cuda_shim, "contraction", ["-ffp-contract=fast", "-mfma"])


def there(image: xr.DataArray) -> xr.DataArray:
    """The same image on the device."""
    return image.copy(data=fake_cupy.asarray(image.values))


@on_a_gpu
@pytest.mark.usefixtures("rounding")
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
    system, _, wall = reference_electrode((labels == 1).astype(float), spacing)
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
    assert isinstance(shut.field.data, fake_cupy.ndarray)
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


SHAPES = [(30, 30, 30), (40, 17, 90), (600, 120), (70, 2, 70), (5000,)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ["whole", "shares", "tensor", "electrode"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_memory_on_the_device_is_foreseen(
    gpu: fake_cupy.Pool, dtype: str, case: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, used, foreseen = random_labels(shape, labels=2, fine=len(shape) == 3), gpu.used, list[int]()
    if len(shape) == 1:
        labels[:] = 1
    options: dict[str, Any] = {"dtype": dtype, "device": "gpu"}
    dims = ("z", "y", "x")[-len(shape) :]

    def solve() -> None:
        if case == "whole":
            vd.tortuosity(image_of(labels, dims=dims), **options)
        elif case == "shares":  # of three decades: blocks of many pieces
            vd.tortuosity(image_of(10.0 ** (3.0 * labels - 3), dims=dims), phase=None, **options)
        elif case == "tensor":
            vd.effective_diffusivity(image_of(labels, dims=dims), diffusivities={0: 0.1, 1: 1.0}, **options)
        else:
            vd.electrode_tortuosity(image_of(labels, dims=dims), moments=2, **options)

    monkeypatch.setattr(device, "require_room", foreseen.append)
    gpu.free_all_blocks()
    solve()
    assert gpu.used == used
    if not foreseen:  # nothing conducts
        assert gpu.peak == used
        return
    assert 0.7 * (max(foreseen) - device._ROUNDING) < gpu.peak - used <= max(foreseen)
    monkeypatch.undo()


def test_too_little_memory_on_the_device(gpu: fake_cupy.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    image, used = image_of(random_labels((24, 24, 24), labels=2)), gpu.used
    message = r"the solve takes .* on the GPU, where .* are free; end what else uses it, or use device=\"cpu\""
    for share, limit in ((workplace, 200_000), (device, 350_000)):  # before graphs are made, and after
        gpu.limit = used + limit
        with pytest.raises(MemoryError, match=message):
            vd.tortuosity(image, device="gpu")
        monkeypatch.setattr(share, "require_room", lambda needed: None)
    with pytest.raises(MemoryError, match=r"the GPU has no memory left for the solve: .*; end what else") as held:
        vd.tortuosity(image, device="gpu")
    assert gpu.used == used and held  # a notebook keeps the last error
    assert vd.tortuosity(image, device="cpu").tau > 1


def test_what_is_broken_off_holds_nothing(gpu: fake_cupy.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    image, used = there(image_of(random_labels((24, 24, 24), labels=2))), gpu.used

    def interrupt(self: Any, ghosts: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(device.DeviceDomain, "correction", interrupt)
    with pytest.raises(KeyboardInterrupt) as held:
        vd.tortuosity(image, direction="z")
    assert gpu.used - used <= image.nbytes and held  # what is held is the image


@on_a_gpu
def test_images_too_long_for_a_launch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MOST_BLOCKS", 2)
    ones = image_of(np.ones((8, 32, 5), np.uint8))
    assert vd.tortuosity(ones, direction="z", device="gpu").tau == pytest.approx(1, rel=1e-5)
    for direction in ("y", "x"):
        with pytest.raises(ValueError, match=r"33 voxels along an axis, a GPU takes (8|32): use device='cpu'"):
            vd.tortuosity(image_of(np.ones((33, 33, 5), np.uint8)), direction=direction, device="gpu")


def prepared(kind: type[Domain], labels: np.ndarray) -> tuple[Domain, Solver]:
    """A domain that is ready to iterate."""
    scan = Scan.of(image_of(labels, spacing=(1.0, 0.7, 1.3)), "z")
    job = Job(scan.grid, scan.order, Labelled((1,)), np.dtype(np.float64), periodic=True)
    domain = kind(job.medium(scan, Arrays())[0], Arrays(), 2, 4)
    solver = Solver.alone(domain)
    solver.prepare()
    return domain, solver


@on_a_gpu
def test_the_operator_and_the_preconditioner_are_symmetric_and_those_of_the_host() -> None:
    labels = random_labels((14, 13, 12), labels=2, seed=3)
    made: dict[type[Domain], list[np.ndarray]] = {}
    for kind, put in ((Domain, np.asarray), (device.DeviceDomain, fake_cupy.asarray)):
        domain, solver = prepared(kind, labels)
        rng = np.random.default_rng(0)
        inside = backend.to_host(domain.pieces.piece) != 255
        u, v = (rng.standard_normal(labels.shape) * inside for _ in range(2))

        def applied(x: np.ndarray, domain: Any = domain, put: Any = put) -> np.ndarray:
            """A x."""
            padded = np.pad(x, 1)
            padded[:, 0], padded[:, -1] = padded[:, -2], padded[:, 1]
            padded[:, :, 0], padded[:, :, -1] = padded[:, :, -2], padded[:, :, 1]
            domain._p[...] = put(padded if domain._p.shape == padded.shape else x)
            domain._r[...] = put(np.zeros_like(x))
            domain.residual_seams(domain.residual(-1.0)[1])
            return backend.to_host(domain._r).copy()

        def preconditioned(x: np.ndarray, domain: Any = domain, put: Any = put, solver: Any = solver) -> np.ndarray:
            """B x."""
            domain.rest()
            domain._r[...] = put(x)
            domain.residual_seams(domain.residual(0.0)[1])
            domain.correction(solver._multigrid.solve()[0])
            return backend.to_host(domain._z).copy()

        made[kind] = [applied(u), applied(v), preconditioned(u), preconditioned(v)]
        for one, two in (made[kind][:2], made[kind][2:]):
            assert (u * two).sum() == pytest.approx((v * one).sum(), rel=1e-11)
    for here, there_too in zip(made[Domain], made[device.DeviceDomain], strict=True):
        np.testing.assert_allclose(there_too, here, rtol=0, atol=1e-12 * np.abs(here).max())


@on_a_gpu
@pytest.mark.usefixtures("rounding")
def test_a_field_that_is_steady_from_the_start_is_left_alone() -> None:
    uniform, layers = np.ones((8, 9, 10), np.uint8), np.tile(np.array([0, 0, 1, 1], np.uint8), (6, 5, 2))
    for spacing in ((0.5, 1.7, 1.0), (1.7, 1.0, 0.5), (1.0, 1.7, 0.3)):
        for where, dtype in (("cpu", "float64"), ("gpu", "float64"), ("gpu", "float32")):
            options: dict[str, Any] = {"diffusivities": {0: 0.3, 1: 1.0}, "dtype": dtype, "device": where}
            found = vd.effective_diffusivity(image_of(uniform, spacing=spacing), **options)
            np.testing.assert_allclose(found.tensor, np.eye(3), atol=1e-6)
            assert found.converged
            found = vd.effective_diffusivity(image_of(layers, spacing=spacing), **options)
            np.testing.assert_allclose(found.tensor, np.diag([0.65, 0.65, 2 / (1 / 0.3 + 1)]), atol=1e-6)


@on_a_gpu
@pytest.mark.parametrize("reservoir", ["first", "last"])
def test_odd_images_agree_with_the_host(reservoir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "_MOST_DIRECT", 10)  # a last level that is too large to be solved is smoothed
    for shape in ((2, 5, 9), (2, 2, 2), (7,), (3, 40), (30, 1, 1)):
        image = image_of(random_labels(shape, labels=3, seed=1, fine=True), dims=("z", "y", "x")[-len(shape) :])
        options: dict[str, Any] = {"phase": (0, 1, 2), "direction": image.dims[0], **EXACT}
        here, on_gpu = (vd.tortuosity(image.chunk(4), device=where, **options) for where in ("cpu", "gpu"))
        assert on_gpu.tau == pytest.approx(here.tau, rel=1e-10) and on_gpu.iterations == here.iterations
        options |= {"phase": 1, "moments": 2, "reservoir": reservoir}
        cells = [vd.electrode_tortuosity(image, device=where, **options) for where in ("cpu", "gpu")]
        assert cells[1].tau == pytest.approx(cells[0].tau, rel=1e-10, nan_ok=True)
