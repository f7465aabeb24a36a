"""Runs on a GPU, on a stand-in for CuPy (fake_cupy): tiers, models and boundaries agree with the CPU."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conftest
import fake_cupy
import numpy as np
import pytest
import xarray as xr

import voxdask as vd
from voxdask import backend, device_planning, planning
from voxdask.plans import Plan
from voxdask.problem import Problem

#: Kernels of one stage, and a compiler of C, round otherwise than numba's do.
TOLERANCES = {"float32": 2e-5, "float64": 1e-12}


pytestmark = pytest.mark.usefixtures("gpu")


def start(*names: str, shape: tuple[int, ...] = (7, 6, 5), dtype: str = "float64", nodes: Any = ()) -> xr.Dataset:
    rng, spacing = np.random.default_rng(0), (0.5, 0.75, 1.0)[-len(shape) :]
    fields = {name: rng.uniform(0.25, 0.75, shape).astype(dtype) for name in names or ("c",)}
    return vd.dataset(fields, spacing=spacing, unit="um", node_centred=nodes)


def there(ds: xr.Dataset) -> xr.Dataset:
    """The same fields on the device."""
    return ds.map(lambda field: field.copy(data=fake_cupy.asarray(field.values)))


def back(ds: xr.Dataset) -> xr.Dataset:
    return ds.map(lambda field: field.copy(data=backend.to_host(field.data)))


def tier(run: xr.Dataset) -> str:
    report = vd.Report.of(run.attrs)
    assert report is not None
    return report.tier


def agree(run: xr.Dataset, expected: xr.Dataset) -> None:
    for name in expected.data_vars:
        found, wanted = run[name].values, expected[name].values
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TOLERANCES[str(wanted.dtype)] * np.abs(wanted).max(), name


def test_mixing_is_refused() -> None:
    here, device = np.ones(3), fake_cupy.asarray([1.0, 2.0, 3.0])
    for mix in (
        lambda: device + here, lambda: here * device, lambda: np.asarray(device),
        lambda: device.__setitem__(0, here[:1]), lambda: here.__setitem__(slice(None), device),
        lambda: fake_cupy.concatenate([here, device]),
        lambda: np.add(here, 1, out=device[:2]) and np.add(device, here, out=here),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            mix()
    np.testing.assert_array_equal((np.float64(2) * device - device / 2).get(), [1.5, 3.0, 4.5])


def test_a_field_on_the_device_stays_there() -> None:
    ds = start()
    options: dict[str, Any] = {"dt": 0.1, "steps": 3, "save_every": 1, "progress": False}
    expected = vd.simulate(vd.models.CahnHilliard(), ds, **options)
    run = vd.simulate(vd.models.CahnHilliard(), there(ds), **options)
    assert isinstance(run.c.data, fake_cupy.ndarray) and tier(run) == "block"
    agree(back(run), expected)


@dataclass(frozen=True)
class Exchange(vd.Model):
    """Two fields that react where an auxiliary one lets them."""

    fields = ("a", "b")
    auxiliary = ("w",)

    def rhs(self, t: Any, a: Any, b: Any, w: Any) -> Any:
        return vd.div(w * vd.grad(a)) - 0.7 * a * b, 0.5 * vd.laplace(b) + 0.7 * a * b - w * b


def reaction(ds: xr.Dataset) -> vd.Model:
    D = ds.c.copy(data=np.random.default_rng(7).uniform(0.25, 0.75, ds.c.shape))
    return vd.models.ReactionDiffusion(D, source=lambda t, c, x: t * c * (1 - c) + 0.1 * x.x)


def body(ds: xr.Dataset) -> vd.Model:
    return vd.models.SmoothedBoundaryDiffusion(0.4)


MODELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "cahn-hilliard": (lambda ds: vd.models.CahnHilliard(eps=1.5), ("c",)),
    "reaction": (reaction, ("c",)),
    "gray-scott": (lambda ds: vd.models.GrayScott(0.1, 0.05), ("A", "B")),
    "allen-cahn": (lambda ds: vd.models.AllenCahn(mobility=0.1), ("phi",)),
    "exchange": (lambda ds: Exchange(), ("a", "b", "w")),
    "body": (body, ("c", "psi")),
}
STEPPERS = {"euler": 0.002, "rk4": 0.002, "rkc2": 0.005, "imex": 0.2, "sbdf2": 0.1, "etdrk4": 0.1, "etd1": 0.1}
STEPPERS |= {"tsit5": 0.002, "adaptiveimex": 0.1}
MIXES: dict[str, Any] = {
    "periodic": "periodic",
    "zero flux": "neumann",
    "dirichlet": vd.Dirichlet(0.3, 0.6),
    "mixed": {"z": ("neumann", vd.Dirichlet(lambda t: 0.3 + 0.2 * t)), "x": (vd.Dirichlet(0.4), vd.Neumann(0.1))},
    "first alone": {"y": "neumann", "x": ("dirichlet", "neumann")},
}

CASES = [
    # model, stepper, boundary, dtype, shape, node-centred
    ("cahn-hilliard", "imex", "periodic", "float64", (7, 6, 5), ()),
    ("cahn-hilliard", "imex", "periodic", "float32", (8, 6, 10), ()),
    ("cahn-hilliard", "sbdf2", "zero flux", "float64", (7, 6, 5), ()),
    ("cahn-hilliard", "etdrk4", "first alone", "float32", (7, 6, 5), ()),
    ("cahn-hilliard", "rkc2", "mixed", "float64", (9, 7), ()),
    ("reaction", "imex", "mixed", "float64", (7, 6, 5), ("z", "x")),
    ("reaction", "rk4", "dirichlet", "float32", (7, 6, 5), ()),
    ("reaction", "etdrk4", "periodic", "float64", (11, 8), ()),
    ("reaction", "tsit5", "zero flux", "float64", (7, 6, 5), ()),
    ("reaction", "adaptiveimex", "dirichlet", "float64", (7, 6, 5), ("y",)),
    ("gray-scott", "imex", "zero flux", "float32", (9, 8), ()),
    ("gray-scott", "euler", "periodic", "float64", (7, 6, 5), ()),
    ("gray-scott", "etd1", "first alone", "float64", (7, 6, 5), ()),
    ("allen-cahn", "rkc2", "periodic", "float64", (8, 7), ()),
    ("exchange", "imex", "mixed", "float64", (7, 6, 5), ()),
    ("exchange", "euler", "dirichlet", "float64", (13,), ()),
    ("exchange", "imex", "periodic", "float64", (13,), ()),
    ("body", "imex", "zero flux", "float64", (7, 6, 5), ()),
    ("body", "rk4", "periodic", "float32", (9, 8), ()),
]


def problem(case: Any) -> tuple[vd.Model, xr.Dataset, dict[str, Any]]:
    model, stepper, mix, dtype, shape, nodes = case
    make, names = MODELS[model]
    ds = start(*names, shape=shape, dtype=dtype, nodes=tuple(n for n in nodes if n in "zyx"[-len(shape) :]))
    boundary = MIXES[mix]
    if isinstance(boundary, dict):
        boundary = {dim: ends for dim, ends in boundary.items() if dim in ds.dims}
    dt = STEPPERS[stepper] * (0.05 if model == "cahn-hilliard" and stepper in ("rkc2", "rk4", "euler") else 1)
    options = {"dt": dt, "stepper": stepper, "boundary": boundary, "progress": False}
    adaptive = stepper in ("tsit5", "adaptiveimex")
    return make(ds), ds, options | ({"t_end": 3 * dt} if adaptive else {"steps": 3, "save_every": 2})


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_block_on_a_device_agrees_with_the_host(case: Any, gpu: fake_cupy.Pool, tmp_path: Path) -> None:
    model, ds, options = problem(case)
    expected = vd.simulate(model, ds, **options)
    foreseen = vd.plan(model, ds, device="gpu", **{k: options[k] for k in ("stepper", "boundary")}).device_bytes
    used = gpu.peak = gpu.used
    block = vd.simulate(model, ds, device="gpu", **options)
    assert gpu.peak - used <= foreseen
    assert tier(block) == "block" and all(isinstance(field.data, np.ndarray) for field in block.values())
    agree(block, expected)
    stored = vd.simulate(model, there(ds), store=tmp_path / "run.zarr", **options)
    assert tier(stored) == "block"
    agree(stored, expected)


LONG = [
    (model, stepper, mix, dtype, (41, *shape[1:]), nodes)
    for model, stepper, mix, dtype, shape, nodes in CASES
    if len(shape) > 1 and stepper != "adaptiveimex"
]


@pytest.mark.parametrize("case", LONG[::3], ids=lambda case: "-".join(map(str, case)))
def test_what_streams_through_a_device_agrees_with_the_host(case: Any, gpu: fake_cupy.Pool, tmp_path: Path) -> None:
    model, ds, options = problem(case)
    expected, asked = vd.simulate(model, ds, **options), {k: options[k] for k in ("stepper", "boundary")}
    slabs = set()
    for limit in streaming_limits(gpu, model, ds, asked):
        gpu.limit, gpu.peak, used = gpu.used + limit, gpu.used, gpu.used
        plan = vd.plan(model, ds, device="gpu", measure=False, **asked)
        slabs.add(plan.slab_rows)
        run = vd.simulate(model, ds, device="gpu", **options)
        assert tier(run) == plan.tier == "streamed"
        agree(run, expected)
        assert gpu.peak - used <= plan.device_bytes <= limit
    assert max(slabs) > 2
    run = vd.simulate(model, ds, device="gpu", store=tmp_path / "run.zarr", memory_limit=conftest.THICK, **options)
    assert tier(run) == "spilled"
    agree(run, expected)


@pytest.fixture(autouse=True)
def small_runs_spill_on_a_device(monkeypatch: pytest.MonkeyPatch, small_runs_spill: None) -> None:
    """Spill what has no room under one of the limits of conftest; real ones are far larger."""

    def spill(problem: Problem, memory_limit: int, threads: int, held: int, routes: Any) -> Plan:
        limit = 1 << 50 if memory_limit == conftest.THICK else memory_limit
        return planning.spill(problem, limit, threads, held, routes)

    monkeypatch.setattr(device_planning, "spill", spill)


def streaming_limits(gpu: fake_cupy.Pool, model: Any, ds: xr.Dataset, options: dict[str, Any]) -> list[int]:
    """About the least and the largest number of bytes on the device with which a run is streamed."""
    found = []
    for power in range(20, 60):
        gpu.limit = gpu.used + (limit := int(1.4**power))
        try:
            if (plan := vd.plan(model, ds, device="gpu", measure=False, **options)).tier == "block":
                break
        except MemoryError:
            continue
        found.append(max(limit, plan.device_bytes))
    gpu.limit = 0
    return [found[0], found[-1]]


# --- where it runs ---------------------------------------------------------------------------------------------------


def test_the_device_is_chosen(gpu: fake_cupy.Pool) -> None:
    model, ds, options = problem(CASES[0])
    expected = vd.simulate(model, ds, **options)
    for given, device, kind in (
        (ds, "auto", np.ndarray), (ds, "cpu", np.ndarray), (ds, "gpu", np.ndarray), (there(ds), "cpu", np.ndarray),
        (there(ds), "auto", fake_cupy.ndarray), (there(ds), "gpu", fake_cupy.ndarray),
        (ds.chunk(z=3), "gpu", np.ndarray),
    ):  # fmt: skip
        gpu.peak = used = gpu.used
        run = vd.simulate(model, given, device=device, **options)
        assert isinstance(run.c.data, kind)
        assert (gpu.peak > used) == (device == "gpu" or kind is fake_cupy.ndarray)
        agree(back(run), expected)


def test_frames_on_the_device_count(gpu: fake_cupy.Pool) -> None:
    model, ds, options = problem(LONG[1])
    options |= {"steps": 30, "save_every": 1}
    given, foreseen = there(ds), vd.plan(model, ds, device="gpu").device_bytes
    gpu.limit = gpu.used + 2 * foreseen
    run = vd.simulate(model, given, **options)
    assert tier(run) == "streamed" and isinstance(run.c.data, np.ndarray)


def test_coefficients_and_fields_may_lie_apart() -> None:
    ds = start()
    field = ds.c.copy(data=np.random.default_rng(7).uniform(0.25, 0.75, ds.c.shape))
    away = field.copy(data=fake_cupy.asarray(field.values))
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, "progress": False}
    here, mixed = vd.models.ReactionDiffusion(field), vd.models.ReactionDiffusion(away)
    expected = vd.simulate(here, ds, **options)
    for model, given in ((here, there(ds)), (mixed, ds), (mixed, there(ds))):
        agree(back(vd.simulate(model, given, **options)), expected)
        agree(back(model.right_hand_side(given, boundary="neumann")), here.right_hand_side(ds, boundary="neumann"))
        change = ds * 0.1
        agree(model.tangent(given, change), here.tangent(ds, change))
        agree(model.adjoint(given, there(change)), here.adjoint(ds, change))


def test_chunks_are_refused_on_a_device() -> None:
    with pytest.raises(ValueError, match="chunks=2 run where their arrays lie"):
        vd.simulate(vd.models.CahnHilliard(), start(), dt=0.1, steps=1, device="gpu", chunks=2, progress=False)


def test_a_family_runs_on_a_device() -> None:
    phases = np.random.default_rng(0).random((3, 6, 5, 4)) + 1
    ds = vd.dataset({"phi": phases / phases.sum(axis=0)}, dims=("phase", "z", "y", "x"))
    options: dict[str, Any] = {"dt": 1e-3, "steps": 2, "stepper": "euler", "progress": False}
    model = vd.models.MultiPhaseAllenCahn(mobility=0.1)
    expected = vd.simulate(model, ds, **options)
    agree(vd.simulate(model, ds, device="gpu", **options), expected)
    agree(back(vd.simulate(model, there(ds), **options)), expected)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier_name", ["block", "streamed"])
def test_a_device_without_memory_says_so_and_the_run_goes_on_later(
    tier_name: str, gpu: fake_cupy.Pool, tmp_path: Path
) -> None:
    model, ds, options = problem(LONG[0])
    options |= {"steps": 6, "save_every": 2}
    expected = vd.simulate(model, ds, **options)
    path = tmp_path / "run.zarr"
    if tier_name == "streamed":
        gpu.limit = gpu.used + streaming_limits(gpu, model, ds, {k: options[k] for k in ("stepper", "boundary")})[-1]
    before = gpu.limit

    def take_memory(frame: xr.Dataset) -> None:
        if frame.time > 0:
            gpu.limit = gpu.used + 1

    gc.collect()
    used = gpu.used
    with pytest.raises(MemoryError, match=r"was to take .* there: Out of memory allocating .*run\.zarr") as caught:
        vd.simulate(model, ds, device="gpu", store=path, callbacks=[take_memory], **options)
    assert 'device="cpu"' in str(caught.value)
    gc.collect()
    assert gpu.used == used, "whoever holds the error holds no memory of the device"
    gpu.limit = before
    with xr.open_zarr(path) as kept:
        assert kept.sizes["time"] == 2
        np.testing.assert_array_equal(kept.time, expected.time[:2])
    run = vd.simulate(model, ds, device="gpu", store=path, **options)
    assert tier(run) == tier_name
    agree(run, expected)


def test_a_run_in_memory_that_finds_none_says_what_to_do(gpu: fake_cupy.Pool) -> None:
    def take_memory(frame: xr.Dataset) -> None:
        gpu.limit = gpu.used + 1

    with pytest.raises(MemoryError, match="give store=PATH to keep the frames"):
        vd.simulate(
            vd.models.CahnHilliard(), there(start()), dt=0.1, steps=2, progress=False, callbacks=[take_memory]
        )  # fmt: skip


def test_errors_of_others_are_not_explained(gpu: fake_cupy.Pool) -> None:
    def fail(frame: xr.Dataset) -> None:
        raise MemoryError("of someone else")

    with pytest.raises(MemoryError, match=r"^of someone else$"):
        vd.simulate(vd.models.CahnHilliard(), start(), dt=0.1, steps=1, device="gpu", progress=False, callbacks=[fail])
    assert backend.is_out_of_memory(RuntimeError("cudaErrorMemoryAllocation: out of memory"))
