"""Steady transport against SciPy's direct solver, and against what is known in closed form."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import xarray as xr
from conduction import EXACT, image_of, random_labels, reference_electrode, reference_tensor, reference_through

import voxdask as vd


@pytest.mark.parametrize("direction", ["z", "y", "x"])
@pytest.mark.parametrize("sides", ["no-flux", "periodic"])
@pytest.mark.parametrize("fine", [False, True])
def test_a_direct_solver_gives_the_same_tortuosity(direction: str, sides: Any, fine: bool) -> None:
    labels, spacing = random_labels((24, 23, 22), labels=2, fine=fine), (1.0, 0.7, 1.3)
    image = image_of(labels, spacing=spacing)
    found = vd.tortuosity(image, phase=1, direction=direction, sides=sides, **EXACT)
    d_eff = reference_through((labels == 1).astype(float), "zyx".index(direction), spacing, sides == "periodic")
    assert found.d_eff == pytest.approx(d_eff, rel=1e-8)
    assert found.porosity == pytest.approx((labels == 1).mean())
    assert found.tau == pytest.approx(found.porosity / d_eff, rel=1e-8)
    np.testing.assert_allclose(found.flux, d_eff, rtol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 3.0)])
@pytest.mark.parametrize("table", [(0.0, 1.0, 3.0, 0.2), (1e-3, 1.0, 100.0, 2.0)], ids=["blocked", "contrast"])
def test_a_direct_solver_gives_the_same_tensor(spacing: tuple[float, ...], table: tuple[float, ...]) -> None:
    labels = random_labels((24, 24, 24), seed=1)
    diffusivities = dict(enumerate(table))
    found = vd.effective_diffusivity(image_of(labels, spacing=spacing), diffusivities=diffusivities, **EXACT)
    expected = reference_tensor(np.array(table)[labels], spacing)
    np.testing.assert_allclose(found.tensor, expected, rtol=1e-8, atol=1e-8 * expected.max())
    assert found.wiener.lower <= np.linalg.eigvalsh(expected).min()
    assert found.wiener.upper >= np.linalg.eigvalsh(expected).max()


@pytest.mark.parametrize("shape", [(24, 17), (9, 30), (24, 1, 13), (13, 2, 5)])
def test_flat_and_odd_images(shape: tuple[int, ...]) -> None:
    labels = random_labels(shape, seed=2)
    dims, spacing = ("z", "y", "x")[-len(shape) :], (1.0,) * len(shape)
    values = np.array([0.5, 1.0, 3.0, 0.2])[labels]
    found = vd.effective_diffusivity(image_of(values, dims=dims), boundary="face", directions=dims[0], **EXACT)
    assert float(found.tensor[0, 0]) == pytest.approx(reference_through(values, 0, spacing), rel=1e-8)
    assert np.isnan(found.tensor.values).sum() == len(shape) ** 2 - 1
    periodic = vd.effective_diffusivity(image_of(values, dims=dims), **EXACT)
    np.testing.assert_allclose(periodic.tensor, reference_tensor(values, spacing), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_of_one_voxel_conducts_as_its_mean(axis: int) -> None:
    values = np.array([0.5, 1.0, 3.0, 0.2])[random_labels((8, 9, 10), seed=8)]
    values = np.take(values, [4], axis)
    found = vd.effective_diffusivity(image_of(values), **EXACT)
    assert float(found.tensor[axis, axis]) == pytest.approx(values.mean(), rel=1e-12)
    others = [a for a in range(3) if a != axis]
    flat = reference_tensor(values.squeeze(axis), (1.0, 1.0))
    np.testing.assert_allclose(found.tensor.values[np.ix_(others, others)], flat, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_leads_nowhere_conducts_nothing(dtype: str) -> None:
    g = np.indices((32, 32, 32)) % 16 - 7.5
    spheres = ((g**2).sum(0) < 36).astype(np.uint8)
    found = vd.effective_diffusivity(image_of(spheres), diffusivities={0: 0.0, 1: 1.0}, dtype=dtype)
    assert not found.tensor.values.any() and found.converged and found.error == 0
    rng = np.random.default_rng(0)
    for shape, share in [((12, 11, 13), 0.7), ((9, 8, 10), 0.25), ((3, 5, 4), 0.4), ((2, 3, 2), 0.5), ((1, 4, 3), 0.6)]:
        cells = (rng.random(shape) < share).astype(np.uint8)
        cells[:, :, -1] = 0
        cells.flat[0] = 1
        given: Any = {"dtype": dtype, "tolerance": 1e-6 if dtype == "float32" else 1e-12}
        tensor = vd.effective_diffusivity(image_of(cells), diffusivities={0: 0.0, 1: 1.0}, **given).tensor.values
        expected = reference_tensor(cells.astype(float), (1.0,) * 3)
        np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-10)
        assert tensor[2, 2] == 0


@pytest.mark.parametrize("boundary", ["face", "periodic"])
def test_high_contrast_is_honest(boundary: Any) -> None:
    layers = np.where((np.arange(32) % 4 < 2)[:, None] * np.ones((1, 40)), 1, 1e6)
    found = vd.effective_diffusivity(image_of(layers), directions="y", boundary=boundary, dtype="float64")
    assert float(found.tensor.sel(i="y", j="y")) == pytest.approx(2 / (1 + 1e-6), rel=1e-4)
    blobs = np.where(np.sin(np.indices((48, 48)) / 5).prod(0) > 0.3, 1e6, 1.0)
    found = vd.effective_diffusivity(image_of(blobs), directions="y", boundary="face", dtype="float64")
    assert float(found.tensor[0, 0]) == pytest.approx(reference_through(blobs, 0, (1.0, 1.0)), rel=1e-4)


def test_flat_electrodes_are_for_a_unit_of_depth() -> None:
    pores = np.zeros((4, 6), np.uint8)
    pores[1:3] = 1
    one, half = (vd.electrode_tortuosity(image_of(pores, spacing=h)) for h in (1.0, 0.5))
    assert half.tau == pytest.approx(one.tau) and half.resistance == pytest.approx(one.resistance)
    assert half.capacitance == pytest.approx(one.capacitance / 2) and half.wall_area == pytest.approx(2 * one.wall_area)


def test_what_single_precision_cannot_reach_is_not_claimed() -> None:
    labels = random_labels((32, 32, 32), labels=2, seed=9)
    d_eff = reference_through((labels == 1).astype(float), 2, (1.0,) * 3)
    with pytest.warns(RuntimeWarning, match="is known to"):
        found = vd.tortuosity(image_of(labels), tolerance=1e-15)
    assert not found.converged
    assert abs(found.d_eff / d_eff - 1) < 1e-6 and found.error < 1e-5


def test_noise_of_high_contrast() -> None:
    values = 10.0 ** np.random.default_rng(10).uniform(-4, 4, (20, 21, 22))
    found = vd.effective_diffusivity(image_of(values), directions="x", boundary="face", **EXACT)
    assert float(found.tensor[2, 2]) == pytest.approx(reference_through(values, 2, (1.0,) * 3), rel=1e-7)


def test_single_precision_meets_its_tolerance() -> None:
    labels = random_labels((40, 40, 40), labels=2, seed=3)
    d_eff = reference_through((labels == 1).astype(float), 2, (1.0,) * 3)
    for tolerance in (1e-2, 1e-4, 1e-6):
        found = vd.tortuosity(image_of(labels), tolerance=tolerance)
        assert found.converged and found.error <= tolerance
        assert found.d_eff == pytest.approx(d_eff, rel=tolerance)
        assert found.d_eff >= d_eff * (1 - 1e-6)  # energies come down


def test_uniform_blocks_and_straight_channels() -> None:
    assert vd.tortuosity(image_of(np.ones((6, 5, 4), np.uint8))).tau == pytest.approx(1, rel=1e-6)
    channels = np.zeros((6, 7, 8), bool)
    channels[::2, ::3] = True
    found = vd.tortuosity(image_of(channels), phase=True)
    assert found.tau == pytest.approx(1, rel=1e-6)
    assert found.porosity == found.percolating_porosity == channels.mean()


@pytest.mark.parametrize("n", [5, 12, 31])
def test_the_diagonal_strip(n: int) -> None:
    image = np.zeros((n, n + 1, n + 1), np.uint8)
    for i in range(n):
        image[i, i : i + 2, i : i + 2] = 1
    found = vd.tortuosity(image_of(image), direction="z", **EXACT)
    assert found.tau == pytest.approx(4 / n * (2 * n - 3 + 7 / 12), rel=1e-9)


def test_laminates() -> None:
    layers = np.repeat(np.array([0, 1, 1, 2], np.uint8), 4)
    image = image_of(np.broadcast_to(layers[:, None, None], (16, 6, 5)).copy(), spacing=(2.0, 1.0, 0.5))
    found = vd.effective_diffusivity(image, diffusivities={0: 1.0, 1: 4.0, 2: 10.0}, **EXACT)
    across, along = 4 / (1 + 2 / 4 + 1 / 10), (1 + 2 * 4 + 10) / 4
    np.testing.assert_allclose(found.tensor, np.diag([across, along, along]), atol=1e-10)
    assert found.wiener == pytest.approx((across, along))
    assert found.fractions == {0: 0.25, 1: 0.5, 2: 0.25}


def test_blocked_dead_ends_and_what_floats() -> None:
    image = np.zeros((8, 8, 8), np.uint8)
    image[1, 1] = 1  # a channel along x
    image[4, 4, :5] = 1  # a dead end
    image[6, 6, 3:5] = 1  # floats
    found = vd.tortuosity(image_of(image))
    assert found.d_eff == pytest.approx(8 / 512, rel=1e-6)
    assert found.porosity == (8 + 5 + 2) / 512 and found.percolating_porosity == 8 / 512
    assert found.tau == pytest.approx(15 / 8, rel=1e-6)
    np.testing.assert_allclose(found.profile, [2] * 5 + [1] * 3, rtol=1e-5)  # the dead end has pores, and no flux
    field = found.field.values
    np.testing.assert_allclose(field[1, 1], (np.arange(8) + 0.5) / 8, atol=1e-6)
    np.testing.assert_allclose(field[4, 4, :5], 0, atol=1e-4)
    assert np.isnan(field[6, 6, 3]) and np.isnan(field[0, 0, 0])

    blocked = vd.tortuosity(image_of(image), direction="z")
    assert math.isinf(blocked.tau) and blocked.d_eff == 0 and blocked.iterations == 0 and blocked.converged
    assert "no path" in repr(blocked)


def test_a_checkerboard_goes_to_the_geometric_mean() -> None:
    errors = []
    for cells in (8, 32):
        square = np.kron(np.indices((2, 2)).sum(0) % 2, np.ones((cells, cells), np.uint8)).astype(np.uint8)
        image = vd.dataset({"image": square}).image
        found = vd.effective_diffusivity(image, diffusivities={0: 1.0, 1: 4.0}, **EXACT)
        errors.append(abs(float(found.tensor[0, 0]) / 2 - 1))
        assert abs(float(found.tensor[0, 1])) < 1e-10
    assert errors[1] < 0.02 and errors[1] < errors[0] / 2


def test_spheres_at_a_tenth_follow_maxwell() -> None:
    n, k = 48, 5.0
    at = (np.arange(n) + 0.5) / n - 0.5
    radius = (0.1 * 3 / (4 * np.pi)) ** (1 / 3)
    inside = (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2 < radius**2).astype(np.uint8)
    found = vd.effective_diffusivity(image_of(inside), diffusivities={0: 1.0, 1: k}, directions="x")
    share, b = inside.mean(), (k - 1) / (k + 2)
    assert float(found.tensor.sel(i="x", j="x")) == pytest.approx((1 + 2 * share * b) / (1 - share * b), rel=0.01)
    lower, upper = found.hashin_shtrikman
    assert lower * 0.99 < float(found.tensor.sel(i="x", j="x")) < upper


def test_ends_at_centres_are_half_a_voxel_closer() -> None:
    labels = random_labels((12, 11, 10), labels=2, seed=5)
    labels[[0, -1]] = labels[[1, -2]]
    found = vd.tortuosity(image_of(labels), direction="z", ends="centre", **EXACT)
    assert 0 < found.d_eff < 1 and found.flux.sizes["z"] == 11
    np.testing.assert_allclose(found.flux, found.d_eff, rtol=1e-5)
    assert found.field.sizes["z"] == 10
    uniform = vd.tortuosity(image_of(np.ones((2, 3, 3), np.uint8)), direction="z", ends="centre")
    assert uniform.tau == 1


def test_fractions_conduct_by_their_share() -> None:
    share = np.tile([1.0, 0.25], (4, 4, 2))
    found = vd.tortuosity(image_of(share), phase=None, **EXACT)
    assert found.porosity == 0.625
    assert found.d_eff == pytest.approx(1 / (0.5 / 1 + 0.5 / 0.25), rel=1e-9)


def test_arrays_of_every_kind_and_spilled_runs_agree(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = random_labels((40, 30, 50), labels=2, seed=6)
    image = image_of(labels)
    found = vd.tortuosity(image, direction="y")
    lazy = vd.tortuosity(image.chunk({"z": 7, "y": 11}), direction="y")
    assert lazy.d_eff == found.d_eff
    np.save(tmp_path / "labels.npy", labels)
    assert vd.tortuosity(tmp_path / "labels.npy", direction="y").d_eff == found.d_eff
    monkeypatch.setattr("voxdask.transport.arrays._LEAST", 0)
    spilled = vd.tortuosity(image, direction="y", memory_limit="1MB", store=tmp_path)
    assert spilled.d_eff == pytest.approx(found.d_eff, rel=1e-6)
    assert not list(tmp_path.glob("tmp*"))
    np.testing.assert_allclose(spilled.field.compute(), found.field, atol=1e-3)
    turned = vd.tortuosity(image.transpose("x", "y", "z"), direction="y")
    assert turned.d_eff == pytest.approx(found.d_eff, rel=1e-5)


def test_bad_input() -> None:
    image = image_of(random_labels((6, 6, 6), labels=2))
    with pytest.raises(ValueError, match="phase names the label 7, which is not in the image; it holds 0, 1"):
        vd.tortuosity(image, phase=7)
    with pytest.raises(ValueError, match="direction is 'w'; the image has dims 'z', 'y', 'x'"):
        vd.tortuosity(image, direction="w")
    with pytest.raises(ValueError, match="along which the image is one voxel"):
        vd.tortuosity(image.isel(x=[0]))
    with pytest.raises(TypeError, match="image has dtype float64; a phase is chosen among labels"):
        vd.tortuosity(image.astype(float))
    with pytest.raises(TypeError, match="image is a ndarray"):
        vd.tortuosity(image.values)
    with pytest.raises(ValueError, match=r"diffusivities\[1\] is -1.0; a diffusivity is finite and not negative"):
        vd.effective_diffusivity(image, diffusivities={0: 1.0, 1: -1.0})
    with pytest.raises(ValueError, match="a diffusivity in image is nan"):
        vd.effective_diffusivity(image.astype(float).where(image == 1))
    with pytest.raises(ValueError, match="label 1 of the image has no entry"):
        vd.effective_diffusivity(image, diffusivities={0: 1.0})
    with pytest.raises(ValueError, match="a share between 0 and 1 is needed"):
        vd.tortuosity(image * 3.0, phase=None)
    with pytest.warns(UserWarning, match="a factor of 20 apart"):
        vd.tortuosity(image_of(image.values, spacing=(1.0, 1.0, 20.0)))
    with pytest.warns(RuntimeWarning, match="allow more iterations"):
        stalled = vd.tortuosity(image_of(random_labels((30, 30, 30), labels=2)), iterations=1, tolerance=1e-6)
    assert not stalled.converged and stalled.error > 1e-6 and "NOT CONVERGED" in repr(stalled)


def test_results_print() -> None:
    found = vd.tortuosity(image_of(np.ones((4, 4, 4), np.uint8)))
    assert "tau" in repr(found) and "<table>" in found._repr_html_()
    assert (found.phase, found.sides) == ((1,), "no-flux") and "x, ends at faces, no-flux sides" in repr(found)
    shares = vd.tortuosity(image_of(np.full((4, 4, 4), 0.5)), phase=None, sides="periodic")
    assert shares.phase is None and "shares of voxels" in repr(shares) and "periodic sides" in repr(shares)
    tensor = vd.effective_diffusivity(image_of(np.ones((4, 4, 4), np.uint8)), diffusivities={1: 2.0})
    assert "D[z]" in repr(tensor) and "<table>" in tensor._repr_html_()
    np.testing.assert_allclose(tensor.tensor, 2 * np.eye(3), atol=1e-12)
    cell = vd.electrode_tortuosity(
        image_of((random_labels((6, 6, 6)) > 1).astype(np.uint8)), phase=(0, 1), reservoir="last", moments=1
    )
    assert (cell.phase, cell.reservoir, cell.sides, cell.unit) == ((0, 1), "last", "no-flux", None)
    assert "reservoir at the last layer, no-flux sides" in repr(cell) and "/ unit of length" in repr(cell)


@dataclass(frozen=True)
class Conduction(vd.Model):
    """div(D grad c), where a face between voxels has the mean of both resistances."""

    resistance: xr.DataArray
    fields = ("c",)

    def rhs(self, t: Any, c: Any) -> Any:
        """The equation that a steady field solves."""
        return vd.div(vd.grad(c) / vd.face(self.resistance))


@pytest.mark.parametrize("direction", ["x", "y", "z"])
def test_the_kernels_of_the_equation_agree_that_it_is_steady(direction: str) -> None:
    """The solver's operator is that which is generated for right-hand sides: at faces, ends, sides and spacings."""
    conducts = np.random.default_rng(5).choice([0.1, 0.4, 1.0], (13, 9, 11))
    image = image_of(conducts, spacing=(1.0, 0.5, 2.0))
    found = vd.tortuosity(image, phase=None, direction=direction, dtype="float64", tolerance=1e-13)
    held = {direction: (vd.Dirichlet(0.0), vd.Dirichlet(1.0))}
    ends = held | {str(dim): "neumann" for dim in image.dims if dim != direction}
    rate = Conduction(1 / image).right_hand_side(found.field.to_dataset(name="c"), boundary=ends)
    # moved by some ten-thousandth everywhere, it would not be
    moved = (found.field + 1e-4 * np.random.default_rng(6).standard_normal(image.shape)).to_dataset(name="c")
    assert abs(rate.c).max() < 1e-2 * abs(Conduction(1 / image).right_hand_side(moved, boundary=ends).c).max()


def test_every_element_of_a_tensor_has_an_error() -> None:
    image = image_of(np.random.default_rng(3).uniform(0.05, 1, (14, 10, 12)).cumsum(1), spacing=(1.0, 2.0, 1.0))
    exact = vd.effective_diffusivity(image, **EXACT)
    assert float(exact.tensor_error.max()) < 1e-8 * float(exact.tensor.max())
    early = vd.effective_diffusivity(image, dtype="float64", tolerance=0.02)
    off = abs(early.tensor - exact.tensor)
    assert (off <= early.tensor_error).all() and float(off.max()) > 0
    assert "off the diagonal" in repr(early)
    through = vd.effective_diffusivity(image, directions="y", boundary="face")
    assert np.isfinite(through.tensor_error.values).sum() == 1 and "off the diagonal" not in repr(through)


def test_an_electrode_has_the_impedance_of_a_direct_solve() -> None:
    labels, spacing = random_labels((14, 13, 12), labels=2, seed=7), (0.5, 1.0, 0.8)
    values = (labels == 1).astype(float)
    system, end, wall = reference_electrode(values, spacing)
    kappa, c, frequencies = 2.0, 3.0, np.array([1e-4, 1e-3, 1e-2, 0.5])
    expected = []
    for f in frequencies:
        s = 2j * np.pi * f * c / kappa
        phi = scipy.sparse.linalg.spsolve((system + s * sp.diags(wall)).tocsc(), end.astype(complex))
        expected.append(1 / (kappa * s * (wall @ phi)))
    found = vd.electrode_tortuosity(image_of(labels, spacing=spacing), direction="z", moments=12, **EXACT)
    with pytest.warns(UserWarning, match=r"NaN from a frequency of 0.5 on: moments=12 do not tell"):
        z = found.impedance(frequencies, conductivity=kappa, capacitance=c)
    np.testing.assert_allclose(z[:3], expected[:3], rtol=1e-5)
    assert (z.error[:3] < 1e-3).all() and np.isnan(z[3])  # it says where it does not know
    resistance = wall @ scipy.sparse.linalg.spsolve(system.tocsc(), wall) / wall.sum() ** 2
    assert found.resistance == pytest.approx(resistance, rel=1e-8)
    assert found.capacitance == pytest.approx(wall.sum())
    assert found.wall_area == pytest.approx(wall.sum() / (labels.size * math.prod(spacing)))
    area, length = 13 * 12 * 0.8, 14 * 0.5
    assert found.tau == pytest.approx(3 * values.mean() * resistance * area / length, rel=1e-8)
    assert found.open_porosity == len(wall) / labels.size


def test_a_straight_pore_follows_de_levie() -> None:
    n = 400
    pore = np.zeros((3, 3, n), np.uint8)
    pore[1, 1] = 1
    for reservoir in ("first", "last"):
        found = vd.electrode_tortuosity(image_of(pore), reservoir=reservoir, moments=10, dtype="float64")
        assert found.tau == pytest.approx(1, rel=1e-4)
        frequencies = np.array([1e-2, 0.1, 1.0, 10.0]) / (2 * np.pi * n * 4 * n)
        s = 2j * np.pi * frequencies
        expected = np.sqrt(n / (s * 4 * n)) / np.tanh(np.sqrt(s * n * 4 * n))
        np.testing.assert_allclose(found.impedance(frequencies), expected, rtol=1e-2)


def test_an_electrode_that_is_shut() -> None:
    pore = np.zeros((3, 3, 9), np.uint8)
    pore[1, 1, 3:5] = 1
    found = vd.electrode_tortuosity(image_of(pore))
    assert math.isinf(found.tau) and found.open_porosity == 0 and "no open pore" in repr(found)
    assert "<table>" in found._repr_html_()
    void = vd.electrode_tortuosity(image_of(np.ones((3, 3, 9), np.uint8)))
    assert math.isnan(void.tau) and void.open_porosity == 1 and "no walls" in repr(void)
    with pytest.raises(ValueError, match="no wall is open"):
        found.impedance(1.0)
    with pytest.raises(ValueError, match="reservoir is 'top'"):
        vd.electrode_tortuosity(image_of(pore), reservoir="top")  # type: ignore[arg-type]


def test_more_layers_than_two_bytes_can_number() -> None:
    values = np.random.default_rng(0).uniform(0.1, 1, 140_000)
    found = vd.effective_diffusivity(image_of(values, dims=("x",)), boundary="face", **EXACT)
    assert float(found.tensor.values[0, 0]) == pytest.approx(1 / np.mean(1 / values), rel=1e-9)


def test_extrapolation_comes_closer_to_a_fine_sphere() -> None:
    def spheres(n: int) -> xr.DataArray:
        at = (np.arange(n) + 0.5) / n - 0.5
        inside = at[:, None, None] ** 2 + at[:, None] ** 2 + at**2 < 0.4**2
        return image_of((~inside).astype(np.uint8), spacing=1 / n)

    # insulating spheres of radius 0.4 in a simple cubic array: Sangani & Acrivos (1983), doi:10.1098/rspa.1983.0020
    truth = 0.6435
    for n in (32, 64):
        found, raw = vd.extrapolated_tortuosity(spheres(n)), vd.tortuosity(spheres(n))
        assert abs(found.d_eff - truth) < 0.7 * abs(raw.d_eff - truth)
        assert abs(found.tau - (1 - 4 / 3 * np.pi * 0.4**3) / truth) < found.error
    assert "d_eff, 2 x voxel" in repr(found) and "<table>" in found._repr_html_()
    assert (found.phase, found.direction, found.sides, found.ends) == ((1,), "x", "no-flux", "face")
    thin = image_of(np.broadcast_to(np.arange(16) % 4 < 2, (16, 16, 16)).copy())
    with pytest.warns(UserWarning, match="larger voxels change d_eff"):
        assert np.isnan(vd.extrapolated_tortuosity(thin).tau)
    walls = image_of((random_labels((32, 32, 32), 4, labels=50) > 32).astype(np.uint8))
    with pytest.warns(UserWarning, match="they close or open what conducts"):
        assert np.isnan(vd.extrapolated_tortuosity(walls).tau)  # levels agree, as both let through what is shut
    with pytest.raises(ValueError, match="a share between 0 and 1 is needed"):
        vd.extrapolated_tortuosity(3.0 * spheres(16), phase=None)
    with pytest.raises(ValueError, match="eight are needed"):
        vd.extrapolated_tortuosity(spheres(6))


def test_directions_of_round_off_are_given_up() -> None:
    """Of so high a contrast single precision loses its directions; the true residual gives others."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((30, 30)) < 0.1, 0, rng.integers(1, 3, (30, 30))).astype(np.uint8)
    table = {0: 1.0, 1: 1e-9, 2: 0.7e-9}
    found = vd.effective_diffusivity(
        image_of(labels, dims=("y", "x")), diffusivities=table, directions="x", boundary="face"
    )
    expected = reference_through(np.vectorize(table.get)(labels), 1, (1.0, 1.0))
    assert found.converged and float(found.tensor[1, 1]) == pytest.approx(expected, rel=1e-4)


def test_a_whole_that_is_shut_has_no_relative_error() -> None:
    labels = random_labels((24, 24, 24), labels=2)
    labels[12] = 0
    options: dict[str, Any] = {"direction": "z", "divisions": (4, 3, 2, 1), "samples": 8}
    found = vd.representative_volume(image_of(labels), "d_eff", **options)
    assert found.table["mean"][-1] == 0 and np.isnan(found.error)
    with pytest.warns(UserWarning, match="ask for 'd_eff' instead"):
        assert np.isnan(vd.representative_volume(image_of(labels), "tau", **options).table["mean"][-1])


def test_parts_that_are_shut_are_not_left_out_in_silence() -> None:
    labels = random_labels((24, 24, 24), labels=4, seed=3)
    image = image_of((labels == 0).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"tau is infinite in \d+ of 21 parts: mean.*ask for 'd_eff' instead"):
        found = vd.representative_volume(image, "tau", divisions=(4, 2, 1))
    assert int(found.table.shut[0] + found.table["count"][0]) == 12 and found.table.shut[0] > 0
    assert f"{int(found.table['count'][0])} of 12 parts" in repr(found)
    assert not vd.representative_volume(image, "d_eff", divisions=(4, 2, 1)).table.shut.any()


@pytest.mark.parametrize("spacing", [(0.5, 1.7, 1.0), (1.7, 1.0, 0.5), (1.0, 1.7, 0.3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_field_that_is_steady_from_the_start_is_left_alone(spacing: tuple[float, ...], dtype: str) -> None:
    """What is left of it is round-off, of which conjugate gradients would make anything."""
    uniform = image_of(np.ones((8, 9, 10), np.uint8), spacing=spacing)
    found = vd.effective_diffusivity(uniform, diffusivities={1: 2.0}, dtype=dtype)
    np.testing.assert_allclose(found.tensor, 2 * np.eye(3), atol=1e-6)
    assert found.converged


def test_the_scatter_of_noise_falls_with_the_root_of_the_volume() -> None:
    noise = image_of((np.random.default_rng(0).random((48, 48, 48)) < 0.6).astype(np.uint8))
    found = vd.representative_volume(noise, lambda part: float(part.mean()), divisions=(8, 6, 4, 3, 2, 1), samples=200)
    assert found.exponent == pytest.approx(1, abs=0.15)
    assert found.error == pytest.approx((0.4 / 0.6 / 48**3) ** 0.5, rel=0.3)
    assert found.voxels_for(found.error / 2) == pytest.approx(4 * 48**3, rel=0.3)
    assert len(found.rows) == 7 and found.plot()._repr_png_().startswith(b"\x89PNG")
    assert "parts, mean" in repr(found) and "<table>" in found._repr_html_()
    flow = vd.representative_volume(noise, divisions=(4, 3, 2, 1), samples=4, direction="z")
    assert flow.options == {"direction": "z"} and flow.rows["direction"] == "'z'"
    small = noise.isel(x=slice(11), y=slice(11), z=slice(11))
    alike = vd.representative_volume(small, "porosity", divisions=(5, 4, 2, 1))
    assert len(set(alike.table.voxels.values)) == 3 and len(alike.rows) == 5  # two sizes have parts of as many voxels
    assert float(flow.table["mean"][-1]) == pytest.approx(vd.tortuosity(noise, direction="z").d_eff)
    with pytest.raises(ValueError, match="phase names the label 7, which is not in the image"):
        vd.representative_volume(noise, "porosity", phase=7)
    with pytest.raises(ValueError, match="property is 'tua'; use a function of an image, or 'd_eff'"):
        vd.representative_volume(noise, "tua")
    for divisions in ((30, 2), (4.7, 2)):
        with pytest.raises(ValueError, match="parts need two or more"):
            vd.representative_volume(noise, divisions=divisions)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="phaes=0 is no option here; use options of tortuosity: phase, direction"):
        vd.representative_volume(noise, "porosity", phaes=0)
    with pytest.raises(TypeError, match="direction='z' is no option here; use none with a function"):
        vd.representative_volume(noise, lambda part: 0.0, direction="z")


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    path = Path(vd.__file__).parents[1] / "benchmarks/tortuosity.py"
    spec = importlib.util.spec_from_file_location("tortuosity_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = ["--sizes", "32", "--race-size", "32", "--rounds", "1", "--spilled-size", "64", "--memory-limit", "5MB"]
    module.main([*small, "--media", "spheres 0.4", "--store", str(tmp_path), "--output", str(tmp_path / "out.json")])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["growth"][0]["iterations"] <= 40 and abs(found["race"][0]["error"]) < 1e-3
    assert found == json.loads((tmp_path / "out.json").read_text())
