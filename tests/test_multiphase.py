"""Families of fields, and the multi-phase Allen-Cahn equation on them, against NumPy, SymPy, SciPy and theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cuda_shim
import dask.array as da
import numpy as np
import pytest
import scipy.optimize
import sympy as sp
import xarray as xr
from conftest import THIN, make_tier
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import voxdask as vd
from voxdask import compiling, kernels, planning
from voxdask.families import Level, Total, deviation, gathered, onto_simplex, total
from voxdask.familykernel import compile_family
from voxdask.kernels import Update
from voxdask.lowering import lower
from voxdask.models import MultiPhaseAllenCahn
from voxdask.program import Stage
from voxdask.symbols import Field, laplace
from voxdask.units import parse_bytes
from voxdask.verify import OrderStudy

DIMS = ("z", "y", "x")


def fractions(members: int, shape: tuple[int, ...], seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """Random fractions that sum to 1; with noise some are negative."""
    rng = np.random.default_rng(seed)
    phi = np.moveaxis(rng.dirichlet(np.ones(members), shape), -1, 0)
    phi = phi + noise * rng.standard_normal(phi.shape)
    return np.ascontiguousarray(phi - (phi.sum(0) - 1) / members)


def dataset(phi: Any, spacing: float = 1.0) -> xr.Dataset:
    return vd.dataset({"phi": phi}, dims=("phase", *DIMS[1 - phi.ndim + 3 :]), spacing=spacing)


def nearest_on_simplex(phi: np.ndarray) -> np.ndarray:
    """The Euclidean projection by sorting: Duchi et al. (2008), figure 1, doi:10.1145/1390156.1390191."""
    falling = -np.sort(-phi, axis=0)
    count = np.arange(1, len(phi) + 1).reshape(-1, *(1,) * (phi.ndim - 1))
    levels = (np.cumsum(falling, axis=0) - 1) / count
    last = (falling > levels).sum(axis=0) - 1
    return np.maximum(phi - np.take_along_axis(levels, last[None], 0), 0)


def rate_in_numpy(model: MultiPhaseAllenCahn, phi: np.ndarray, h: float) -> np.ndarray:
    """The right-hand side of the docstring, kappa = 1, periodic, written in arrays."""
    if model.projection == "fast":
        q = np.maximum(phi, 0)
        q /= q.sum(0)
    else:
        q = nearest_on_simplex(phi)
    curved = sum(np.roll(q, 1, a) + np.roll(q, -1, a) - 2 * q for a in range(1, q.ndim)) / h**2
    others = np.stack([sum(q[b] ** 2 for b in range(len(q)) if b != a) for a in range(len(q))])
    mu = -curved + 9 / (2 * model.eps**2) * (3 * q * others + q**3 - q)
    rate = model.mobility * model.gamma * (mu.mean(0) - mu + 9 / model.eps**2 * (q - phi))
    e = [float(value) for value in model.bulk_energies]
    for a in range(len(q)):
        drive = sum((e[b] - e[a]) * (q[a] ** 2 * q[b] + q[a] * q[b] ** 2) for b in range(len(q)))
        rate[a] += 3 * model.mobility / model.eps * drive
    return rate


@pytest.mark.parametrize("projection", ["fast", "exact"])
@pytest.mark.parametrize(("members", "shape"), [(3, (8, 9)), (5, (6, 7, 5)), (2, (12,))])
def test_rates_are_those_of_numpy(members: int, shape: tuple[int, ...], projection: Any) -> None:
    phi = fractions(members, shape, seed=members, noise=0.05)
    energies = list(np.random.default_rng(1).standard_normal(members))
    model = MultiPhaseAllenCahn(2.0, 1.3, 0.7, bulk_energies=energies, projection=projection)
    rate = model.right_hand_side(dataset(phi, 0.5)).phi
    assert rate.dims == ("phase", *DIMS[-len(shape) :])
    np.testing.assert_allclose(rate.values, rate_in_numpy(model, phi, 0.5), atol=1e-13)
    np.testing.assert_allclose(rate.values.sum(0), 0, atol=1e-13)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "strip_lines", lambda *_: 3)
        assert np.array_equal(model.right_hand_side(dataset(phi, 0.5)).phi.values, rate.values)


@given(
    hnp.array_shapes(min_dims=1, max_dims=1, min_side=2, max_side=7).flatmap(
        lambda n: hnp.arrays(np.float64, (*n, 6), elements=st.floats(-2, 2, width=32))
    )
)
def test_the_exact_projection_is_the_nearest_point(phi: np.ndarray) -> None:
    q = projected(phi, exact=True)
    np.testing.assert_allclose(q, nearest_on_simplex(phi), atol=1e-12)
    fast = projected(np.where(phi.max(0) > 0.01, phi, 1.0), exact=False)
    assert fast.min() >= 0 and np.allclose(fast.sum(0), 1, atol=1e-12)


def projected(phi: np.ndarray, *, exact: bool) -> np.ndarray:
    program = lower((onto_simplex(Field("phi", real=True), exact=exact),), ("q",), ("x",), family=("phi",))
    kernel = compile_family(program, len(phi))
    results = kernel({f"phi.{k}": row for k, row in enumerate(phi)}, {}, {})
    return np.stack([results[f"q.{k}"] for k in range(len(phi))])


def test_the_exact_projection_is_that_of_an_optimiser() -> None:
    phi = np.random.default_rng(3).normal(0.3, 0.5, 5)
    nearest = scipy.optimize.minimize(
        lambda q: ((q - phi) ** 2).sum(),
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(projected(phi[:, None], exact=True)[:, 0], nearest.x, atol=1e-6)


@pytest.mark.parametrize("kappa", [1.0, 0.4])
def test_the_right_hand_side_is_of_second_order(kappa: float) -> None:
    x, y = sp.symbols("x y", real=True)
    wave = 2 * sp.pi
    first = sp.Rational(1, 3) + sp.sin(wave * x) * sp.cos(wave * y) / 5
    second = sp.Rational(1, 3) + sp.cos(wave * x + 1) / 7
    functions = [first, second, 1 - first - second]
    squares = sum(f**2 for f in functions)
    eps, energies = 0.7, (0.3, -0.2, 0.5)

    def bent(f: sp.Expr) -> sp.Expr:
        lap, (fx, fy) = sp.diff(f, x, 2) + sp.diff(f, y, 2), (sp.diff(f, x), sp.diff(f, y))
        if kappa == 1:
            return lap
        normal = fx**2 * sp.diff(f, x, 2) + 2 * fx * fy * sp.diff(f, x, y) + fy**2 * sp.diff(f, y, 2)
        return kappa * lap + (1 - kappa) * normal / (fx**2 + fy**2)

    mu = [-bent(f) + 9 / (2 * eps**2) * (3 * f * (squares - f**2) + f**3 - f) for f in functions]
    drives = [
        sum((b - a) * (f**2 * g + f * g**2) for g, b in zip(functions, energies, strict=True))
        for f, a in zip(functions, energies, strict=True)
    ]
    rates = [-(m - sum(mu) / 3) + 3 / eps * d for m, d in zip(mu, drives, strict=True)]
    states, truths = (sp.lambdify((x, y), e, "numpy", cse=True) for e in (functions, rates))
    model = MultiPhaseAllenCahn(eps, curvature=kappa, bulk_energies=energies)
    spacings, errors = [], []
    for n in (24, 32, 48, 64):
        # places where no gradient vanishes: the normal is not smooth there
        h = 1 / n
        places = np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(n) + 0.5) * h, indexing="xy")
        ds = dataset(np.stack([np.broadcast_to(f, (n, n)) for f in states(*places)]), h)
        found = model.right_hand_side(ds).phi.values
        away = np.ones((n, n), bool) if kappa == 1 else sloping(functions, (x, y), places)
        spacings.append(h)
        errors.append(float(abs(found - np.stack(truths(*places)))[:, away].max()))
    assert OrderStudy("h", tuple(spacings), tuple(errors)).order == pytest.approx(2.0, abs=0.1)


def sloping(functions: list[sp.Expr], symbols: tuple[sp.Symbol, ...], places: list[np.ndarray]) -> np.ndarray:
    """Where the gradients of all functions are far from zero."""
    steep = np.ones(places[0].shape, bool)
    for f in functions:
        square = sp.lambdify(symbols, sum(sp.diff(f, s) ** 2 for s in symbols), "numpy")(*places)
        steep &= np.broadcast_to(square, steep.shape) > 0.5
    return steep


@pytest.mark.parametrize(("stepper", "dtype"), [("imex", "float64"), ("rk4", "float32")])
def test_tiers_agree(stepper: str, dtype: str, tmp_path: Path) -> None:
    ds = dataset(fractions(3, (8, 6, 5), noise=0.02).astype(dtype)).assign_coords(phase=[0, 5, 9])
    model = MultiPhaseAllenCahn(bulk_energies=[0.0, 0.1, 0.2], projection="exact" if dtype == "float64" else "fast")
    options: dict[str, Any] = {"dt": 0.02, "steps": 4, "save_every": 2, "stepper": stepper}
    options["boundary"] = {"x": "neumann"}
    block, *others = (make_tier(name, tmp_path / name) for name in ("block", "chunks-3", "dask-2", "spilled"))
    for one in others:
        one.folder.mkdir()
    expected = block.simulate(model, ds, **options)
    assert expected.phi.dims == ("time", "phase", *DIMS) and expected.phi.dtype == dtype
    assert abs(expected.phi[-1] - expected.phi[0]).max() > 0.01
    for tier in others:
        run = tier.simulate(model, ds, **options)
        assert run.phi.dims == expected.phi.dims and run.phase.values.tolist() == [0, 5, 9]
        np.testing.assert_allclose(run.phi, expected.phi, rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(("stepper", "dt"), [("imex", 0.5), ("euler", 0.05)])
def test_fractions_go_on_summing_to_one(stepper: str, dt: float) -> None:
    ds = dataset(fractions(4, (10, 9)))
    run = vd.simulate(MultiPhaseAllenCahn(), ds, dt=dt, steps=100, stepper=stepper, progress=False)
    assert abs(run.phi.sum("phase") - 1).max() < 1e-12
    assert abs(run.phi[-1] - run.phi[0]).max() > 0.1


def tanh_profile(x: np.ndarray, eps: float) -> np.ndarray:
    return 0.5 * (1 + np.tanh(1.5 * x / eps))


@pytest.mark.parametrize("members", [2, 4])
def test_a_flat_interface_is_a_tanh(members: int) -> None:
    # Steinbach (2009), equation 7, doi:10.1088/0965-0393/17/7/073001: the profile of two phases; no third one enters
    x = np.arange(60) + 0.5
    phi = np.zeros((members, 60))
    phi[0], phi[1] = x > 30, x < 30
    model = MultiPhaseAllenCahn(eps=6.0)
    run = vd.simulate(model, dataset(phi), dt=1.0, steps=200, boundary="neumann", progress=False)
    np.testing.assert_allclose(run.phi[-1, 0], tanh_profile(x - 30, 6.0), atol=6e-3)
    assert np.all(abs(run.phi[-1, 2:]) < 1e-12)


def test_two_phases_are_those_of_allen_cahn() -> None:
    phi = fractions(2, (7, 8, 6))
    model = MultiPhaseAllenCahn(2.5, 1.2, 0.8, bulk_energies=[0.1, 0.4])
    one = vd.models.AllenCahn(2.5, 1.2, 0.8, force=0.3, curvature=1.0, form="full")
    two = model.right_hand_side(dataset(phi)).phi
    np.testing.assert_allclose(two[0], one.right_hand_side(vd.dataset({"phi": phi[0]})).phi, atol=1e-13)


@pytest.mark.study
def test_bulk_energies_drive_a_front() -> None:
    # v = M (e_2 - e_1) into the phase of higher energy; the phase fractions are those of a driven tanh
    x = np.arange(160) + 0.5
    first = tanh_profile(60 - x, 5.0)
    ds = dataset(np.stack([first, 1 - first, 0 * x]))
    model = MultiPhaseAllenCahn(eps=5.0, mobility=1.5, bulk_energies=[0.0, 0.1, 0.05])
    run = vd.simulate(model, ds, dt=0.1, t_end=200.0, save_every=1000, boundary="neumann", progress=False)
    moved = float(run.phi[-1, 0].sum() - run.phi[1, 0].sum())
    assert moved == pytest.approx(1.5 * 0.1 * 100, rel=0.02)


@pytest.mark.study
def test_a_round_grain_shrinks() -> None:
    # R^2 = R0^2 - 2 M gamma kappa t: Allen and Cahn (1979), doi:10.1016/0001-6160(79)90196-2
    x = np.arange(80) + 0.5 - 40
    inside = tanh_profile(28 - np.hypot(x, x[:, None]), 4.0)
    ds = dataset(np.stack([inside, 1 - inside, 0 * inside]).astype(np.float32))
    model = MultiPhaseAllenCahn(eps=4.0, mobility=2.0)
    run = vd.simulate(model, ds, dt=0.05, t_end=50.0, save_every=200, progress=False)
    area = run.phi[:, 0].sum(("y", "x"))
    slope = np.polyfit(run.time, area / np.pi, 1)[0]
    assert slope == pytest.approx(-2 * 2.0, rel=0.03)


@pytest.mark.study
def test_three_phases_meet_at_120_degrees() -> None:
    # equal energies: Garcke, Nestler, Stoth (1999), doi:10.1137/S0036139998334895. Staggered bricks become hexagons
    # with straight sides: two upright ones, four that rise by tan(30 degrees), whatever the size of the bricks.
    height, width = 40, 48
    y, x = np.mgrid[: 2 * height, : 2 * width]
    row = y // height
    labels = xr.DataArray(2 * row + (x + row * width // 2) // width % 2, dims=("y", "x"))
    labels = labels.assign_coords(y=np.arange(2 * height) + 0.5, x=np.arange(2 * width) + 0.5)
    ds = vd.phases_from_labels(labels).to_dataset()
    run = vd.simulate(MultiPhaseAllenCahn(eps=5.0), ds, dt=2.0, t_end=2000.0, progress=False)
    phi = run.phi.isel(time=-1).values
    columns = range(32, 41)  # the middle of a side between bricks 1 (below) and 3
    heights = []
    for column in columns:
        excess = phi[1, :, column] - phi[3, :, column]
        at = int(np.flatnonzero((excess[20:60] > 0) & (excess[21:61] <= 0))[0]) + 20
        heights.append(at + excess[at] / (excess[at] - excess[at + 1]))
    angle = np.degrees(np.arctan(abs(np.polyfit(columns, heights, 1)[0])))
    assert 90 + angle == pytest.approx(120, abs=1.5)


@pytest.mark.study
def test_absent_phases_stay_near_zero() -> None:
    # staggered bricks rest once their sides are at 120 degrees: a phase that is absent from a junction must not drift
    y, x = np.mgrid[:24, :32]
    labels = 2 * (y // 12) + (x + y // 12 * 8) // 16 % 2
    phi = (labels == np.arange(8)[:, None, None]).astype(float)  # four of them nowhere
    run = vd.simulate(MultiPhaseAllenCahn(), dataset(phi), dt=0.5, steps=600, save_every=300, progress=False)
    lowest = run.phi.isel(phase=slice(4, None)).min(("phase", "y", "x"))
    assert -0.02 < lowest[-1] < 0 and lowest[-1] == pytest.approx(float(lowest[1]), rel=0.01)
    assert run.phi.isel(phase=slice(4, None)).max() < 1e-12


def test_many_phases_run_on_kernels_of_one() -> None:
    seeds = np.random.default_rng(0).uniform(0, 16, (24, 3))
    places = np.stack(np.mgrid[:16, :16, :16], -1) + 0.5
    labels = np.argmin(((places[..., None, :] - seeds) ** 2).sum(-1), -1)
    phi = (labels == np.arange(24)[:, None, None, None]).astype(np.float32)
    model = MultiPhaseAllenCahn(projection="exact")
    run = vd.simulate(model, dataset(phi), dt=0.25, steps=8, progress=False)
    assert run.sizes["phase"] == 24 and abs(run.phi.sum("phase") - 1).max() < 1e-5
    sources = {compile_family(model.equation.program(DIMS), n).host for n in (2, 3, 24)}
    assert len(sources) == 1


def test_frames_on_disk_are_one_array(tmp_path: Path) -> None:
    ds = dataset(fractions(3, (6, 5)).astype(np.float32)).assign_coords(phase=[0.0, 0.5, 2.0])
    ds.phi.attrs["long_name"] = "fraction"
    vd.simulate(MultiPhaseAllenCahn(), ds, dt=0.1, steps=4, save_every=2, store=tmp_path / "run.zarr", progress=False)
    run = xr.open_zarr(tmp_path / "run.zarr")
    assert run.phi.dims == ("time", "phase", "y", "x") and run.phi.encoding["chunks"][:2] == (1, 1)
    assert run.phase.values.tolist() == [0.0, 0.5, 2.0] and run.phi.attrs == {"long_name": "fraction"}
    assert set(run.data_vars) == {"phi"}
    memory = vd.simulate(MultiPhaseAllenCahn(), ds, dt=0.1, steps=4, save_every=2, progress=False)
    np.testing.assert_array_equal(run.phi, memory.phi)


def test_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    ds = dataset(fractions(3, (6, 5)))
    model = MultiPhaseAllenCahn(bulk_energies=[0.0, 0.1, 0.3])
    options: dict[str, Any] = {"dt": 0.1, "stepper": "sbdf2", "progress": False}
    vd.simulate(model, ds, steps=3, store=tmp_path / "run.zarr", **options)
    run = vd.simulate(model, ds, steps=8, store=tmp_path / "run.zarr", **options)
    whole = vd.simulate(model, ds, steps=8, **options)
    np.testing.assert_array_equal(run.phi[-1], whole.phi[-1])
    with pytest.raises(ValueError, match=r"bulk_energies\.2"):
        other = MultiPhaseAllenCahn(bulk_energies=[0.0, 0.1, 0.2])
        vd.simulate(other, ds, steps=9, store=tmp_path / "run.zarr", **options)


def test_a_run_that_cannot_fit_says_what_it_needs(tmp_path: Path) -> None:
    few, many = (dataset(fractions(n, (6, 96, 96)).astype(np.float32)) for n in (2, 24))
    model = MultiPhaseAllenCahn()
    needed = []
    for ds in (few, many):
        with pytest.raises(MemoryError, match=r"cannot fit .* takes \d\d\.\d MB") as caught:
            vd.plan(model, ds, memory_limit="1MB")
        needed.append(parse_bytes(str(caught.value).split("takes ")[1]) / 1.05)  # the margin for rounding
    saving = planning.SAVE_SLABS * 6 * 96 * 96 * 4  # one field at a time, however many there are
    fixed = (16 << 20) + saving  # the first does not grow with the grid either
    assert needed[1] - fixed > 9 * (needed[0] - fixed)
    with pytest.raises(ValueError, match="spills to disk"):
        vd.simulate(model, many, dt=0.1, steps=1, memory_limit=THIN, progress=False)


@pytest.mark.parametrize("name", ["block", "chunks-2", "spilled"])
def test_fractions_that_do_not_sum_to_one_are_refused(name: str, tmp_path: Path) -> None:
    phi = fractions(3, (6, 5))
    phi[1, 4, 2] += 0.25
    with pytest.raises(ValueError, match=r"members of 'phi' sum to 1\.25 at index \(4, 2\)"):
        make_tier(name, tmp_path).simulate(MultiPhaseAllenCahn(), dataset(phi), dt=0.1, steps=1)
    phi[1, 4, 2] -= 0.2499
    assert make_tier(name, tmp_path).simulate(MultiPhaseAllenCahn(), dataset(phi), dt=0.1, steps=1).phi.notnull().all()


def test_a_lazy_start_is_computed_once() -> None:
    calls = []

    def counted(block: np.ndarray) -> np.ndarray:
        calls.append(block.shape)
        return block

    phi = da.from_array(fractions(2, (6, 4)), chunks=(2, 3, 4)).map_blocks(counted, meta=np.empty((0, 0, 0)))
    vd.simulate(MultiPhaseAllenCahn(), dataset(phi), dt=0.1, steps=1, chunks=3, progress=False)
    assert len(calls) == 2


def test_right_hand_sides_are_lazy_on_dask() -> None:
    phi = fractions(3, (6, 5, 4))
    lazy = MultiPhaseAllenCahn().right_hand_side(dataset(da.from_array(phi, chunks=(1, 2, 5, 4)))).phi
    assert isinstance(lazy.data, da.Array)
    np.testing.assert_allclose(lazy, MultiPhaseAllenCahn().right_hand_side(dataset(phi)).phi, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiPhaseAllenCahn(eps=0.0), "eps is 0.0"),
        (lambda: MultiPhaseAllenCahn(gamma=-1.0), "gamma is -1.0"),
        (lambda: MultiPhaseAllenCahn(mobility=np.inf), "mobility is inf"),
        (lambda: MultiPhaseAllenCahn(curvature=1.5), "curvature is 1.5"),
        (lambda: MultiPhaseAllenCahn(projection="slow"), "projection is 'slow'"),  # type: ignore[arg-type]
        (lambda: MultiPhaseAllenCahn(bulk_energies=[0.0, np.nan]), "bulk_energies holds nan"),
    ],
)
def test_bad_parameters_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_datasets_are_refused() -> None:
    model, phi = MultiPhaseAllenCahn(), fractions(3, (4, 4))
    with pytest.raises(ValueError, match="'phi' has no dim 'phase'"):
        model.right_hand_side(vd.dataset({"phi": phi[0]}))
    with pytest.raises(ValueError, match="'phi' has 1 phase"):
        model.right_hand_side(dataset(np.ones((1, 4, 4))))
    with pytest.raises(ValueError, match="2 values of 'bulk_energies' along 'phase', the dataset 3"):
        MultiPhaseAllenCahn(bulk_energies=[0.0, 1.0]).right_hand_side(dataset(phi))
    with pytest.raises(TypeError, match="bulk_energies is 3"):
        MultiPhaseAllenCahn(bulk_energies=3)
    with pytest.raises(NotImplementedError, match="tangent or adjoint"):
        model.tangent(dataset(phi), dataset(phi))


@dataclass(frozen=True)
class Ring(vd.Model):
    """Two families that feed each other."""

    rate: Any = 1.0

    fields = ("a", "b")
    family = "phase"

    def rhs(self, t: Any, a: Any, b: Any) -> Any:
        return self.rate * vd.laplace(a) + deviation(b**2), total(a * b) - b


def test_a_user_writes_a_family_of_two_fields() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 8))
    rate = xr.DataArray([1.0, 2.0, 3.0], dims="phase")
    ds = vd.dataset({"a": a, "b": b}, dims=("phase", "x"))
    found = Ring(rate).right_hand_side(ds)
    bent = np.roll(a, 1, 1) + np.roll(a, -1, 1) - 2 * a
    np.testing.assert_allclose(found.a, rate.values[:, None] * bent + b**2 - (b**2).mean(0), atol=1e-14)
    np.testing.assert_allclose(found.b, (a * b).sum(0) - b, atol=1e-14)


def test_results_named_like_members_are_not_read_by_the_next_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "strip_lines", lambda *_: 2)
    blocks = {f"u.{k}": np.pad(phi, 2, mode="wrap") for k, phi in enumerate(fractions(2, (4, 9, 5)))}
    numbers = {"family.members": 2.0, **{f"inverse_spacing_{axis}": 1.0 for axis in DIMS}}
    u = Field("u")
    made = []
    for name in ("u", "rate"):
        program = lower((laplace(deviation(u**3 - laplace(u))),), (name,), DIMS, family=("u",))
        made.append([compile_family(program, 2)(blocks, {}, numbers)[f"{name}.{k}"] for k in range(2)])
    assert np.array_equal(*made)


def test_a_model_without_family_cannot_join_members() -> None:
    @dataclass(frozen=True)
    class Lonely(vd.Model):
        fields = ("c",)

        def rhs(self, t: Any, c: Any) -> Any:
            return total(c)

    with pytest.raises(ValueError, match="Lonely has none"):
        _ = Lonely().equation


def test_totals_are_gathered_where_they_can_be() -> None:
    phi = Field("phi", real=True)
    q = onto_simplex(phi)
    program = lower((deviation(laplace(q) + total(q**2)) + total(q**3),), ("r",), ("x",), family=("phi",))
    assert [len(stage.totals) for stage in program.stages] == [1, 2, 1, 0]
    assert program.member_arrays == program.stages[2].outputs[:1] and program.inner(4) == 1 + 2 + 4 + 1
    levels = lower((onto_simplex(phi, exact=True),), ("q",), ("x",), family=("phi",)).stages
    assert gathered(levels) == levels and [stage.level is None for stage in levels] == [True, False, False, True]
    assert isinstance(levels[0], Stage) and str(Total(Level(phi))) == "Total(Level(phi))"


@pytest.mark.parametrize("projection", ["fast", "exact"])
def test_kernels_are_the_same_in_cuda(projection: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # the printed C runs on the host, see test_cuda
    if cuda_shim.COMPILER is None:
        pytest.skip("there is no C compiler (cc, gcc or clang) to run printed CUDA with")
    equation = MultiPhaseAllenCahn(bulk_energies=[0.1, 0.2, 0.4, 0.0], projection=projection).equation.of_members(4)
    kernel = compile_family(equation.program(("y", "x")), 4, ("bulk_energies",), (Update(), Update(1, in_place=True)))
    phi = fractions(4, (7, 70), noise=0.1)
    blocks = {f"phi.{k}": member for k, member in enumerate(phi)}
    blocks |= {f"base0_0_phi.rate.{k}": member[1:-1, 1:-1].copy() for k, member in enumerate(phi)}
    parameters = {**equation.parameters, "inverse_spacing_y": 1.0, "inverse_spacing_x": 0.5}

    def results() -> dict[str, Any]:
        out = {f"target1_phi.rate.{k}": np.full((5, 68), k + 1.0) for k in range(4)}
        return kernel(blocks, {}, parameters, out, (0.5, 2.0, 0.25, 1.5))

    expected = results()
    compiling.load_device.cache_clear()
    monkeypatch.setattr(kernels.backend, "namespace", lambda _: cuda_shim.namespace)
    monkeypatch.setattr(kernels.backend, "raw_module", lambda source: cuda_shim.HostModule(source, tmp_path))
    found = results()
    compiling.load_device.cache_clear()
    assert set(found) == set(expected) and len(found) == 8
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-13)
    rates = [(expected[f"target0_phi.rate.{k}"] - 0.5 * phi[k, 1:-1, 1:-1]) / 2 for k in range(4)]
    np.testing.assert_allclose(expected["target1_phi.rate.3"], 0.25 * 4 + 1.5 * rates[3], atol=1e-13)
    np.testing.assert_allclose(sum(rates), 0, atol=1e-13)


def test_an_order_study_refuses_families() -> None:
    with pytest.raises(NotImplementedError, match="family of fields along 'phase'"):
        vd.verify.rhs_order(MultiPhaseAllenCahn(), {"phi": vd.sin(vd.x)})


def test_the_stiff_part_is_that_of_one_interface() -> None:
    model = MultiPhaseAllenCahn(mobility=2.0, gamma=3.0)
    equation = model.equation.of_members(3)
    symbols = equation.symbols(("y", "x"))
    squares = {f"q_{dim}": value for dim, value in (("y", 0.5), ("x", 0.25))}
    known = {**equation.parameters, **squares}
    values = {float(s.subs({p: known[p.name] for p in s.free_symbols})) for s in symbols}
    assert len(symbols) == 3 and values == {-2.0 * 3.0 * 0.75}
