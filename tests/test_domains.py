"""An image spread over domains: the same steady field as on one, and as a direct solver finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conduction import image_of, random_labels, reference_tensor, reference_through
from hypothesis import given, settings
from hypothesis import strategies as st

import voxdask as vd
from voxdask.transport import multigrid
from voxdask.transport.arrays import Arrays
from voxdask.transport.domain import Domain
from voxdask.transport.effective import _all_around
from voxdask.transport.job import Job
from voxdask.transport.phases import Labelled, Phase, Relative
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver, Steady
from voxdask.transport.team import Local
from voxdask.transport.windings import led_around

DOUBLE = np.dtype("float64")
TOLERANCE = 1e-12


@pytest.fixture(scope="module", autouse=True)
def many_levels() -> Iterator[None]:
    """Small images have as many levels as large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multigrid, "_DIRECT", 8)
        yield


def spread(
    scan: Scan, phase: Phase, count: int, *, ends: str | None = "face", periodic: bool = False, slabs: int = 2
) -> Solver:
    """A solver on as many domains as an image has layers for, in this process."""
    job, domains, arrays = Job(scan.grid, scan.order, phase, DOUBLE, periodic, ends), [], Arrays()
    for extent in job.extents(count):
        part = Scan(scan.image.isel({scan.direction: job.rows(extent.known)}), scan.grid, scan.order)
        part = job.scan(part.image.values)
        medium, _ = job.medium(part, arrays, extent.known)
        domains.append(Domain(medium, arrays, 1, slabs, extent))
    return Solver(Local(domains, periodic=ends is None), job.levels(count))


def through(scan: Scan, phase: Phase, count: int, **options: Any) -> tuple[Steady, np.ndarray, int]:
    """The flow, the field and how many voxels percolate."""
    solver = spread(scan, phase, count, **options)
    steady = solver.flow_through(TOLERANCE, 200)
    if not solver.percolating:
        return steady, np.zeros(0), 0
    solver.team.all("mask_field")
    return steady, np.concatenate(solver.team.all("field")), solver.percolating


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(16, 45), st.integers(1, 9), st.integers(1, 9)),
    count=st.integers(1, 6),
    spacing=st.tuples(*[st.sampled_from([0.4, 1.0, 1.7, 3.0])] * 3),
    labels=st.integers(2, 4),
    fine=st.booleans(),
    ends=st.sampled_from(["face", "centre"]),
    periodic=st.booleans(),
    seed=st.integers(0, 5),
)
def test_any_number_of_domains_is_as_good_as_one(
    shape: tuple[int, int, int], count: int, spacing: tuple[float, float, float], labels: int, fine: bool, ends: str,
    periodic: bool, seed: int,
) -> None:  # fmt: skip
    image = image_of(random_labels(shape, seed, labels, fine), spacing=spacing)
    scan = Scan.of(image, "z")
    for phase in (
        Labelled(range(labels - 1)),
        Relative(DOUBLE, 1.0, np.arange(labels), np.array([1.0, 0.0, 0.3, 0.02][:labels])),
    ):
        one, field, percolating = through(scan, phase, 1, ends=ends, periodic=periodic)
        many, same, voxels = through(scan, phase, count, ends=ends, periodic=periodic, slabs=3)
        assert many.converged == one.converged and voxels == percolating
        assert many.energy == pytest.approx(one.energy, rel=1e-9)
        np.testing.assert_allclose(many.layers.flux, one.layers.flux, rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(same, field, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("sides", [False, True])
def test_a_direct_solver_finds_the_same(count: int, sides: bool) -> None:
    labels = random_labels((41, 12, 9), 3, fine=True)
    values = np.array([1.0, 0.05, 0.0, 0.4])
    scan = Scan.of(image_of(labels, spacing=(0.7, 1.0, 1.3)), "z")
    steady, _, _ = through(scan, Relative(DOUBLE, 1.0, np.arange(4), values), count, periodic=sides)
    expected = reference_through(values[labels], 0, (0.7, 1.0, 1.3), sides)
    assert steady.energy * 41 / (12 * 9) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    blocks=st.integers(4, 10),
    sides=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    count=st.integers(2, 5),
    share=st.floats(0.2, 0.7),
    seed=st.integers(0, 1000),
)
def test_what_leads_around_does_so_through_any_number_of_domains(
    blocks: int, sides: tuple[int, int], count: int, share: float, seed: int
) -> None:
    """Noise about the threshold, so that paths wind: the same axes, and the same tensor."""
    image = np.random.default_rng(seed).random((4 * blocks, *sides)) < share
    scan, phase = Scan.of(image_of(image.astype(np.uint8)), "z"), Labelled((1,))
    jumps = {dim: scan.jump(dim) for dim in ("z", "y", "x")}
    results = []
    for domains in (1, count):
        solver = spread(scan, phase, domains, ends=None, periodic=True)
        leads = led_around(solver.team.all("windings"))
        (found, both), _ = _all_around(jumps, TOLERANCE, 300, solver)
        results.append((leads, [s.energy for s in found.values()], list(both.values())))
    assert results[0][0] == results[1][0]
    for one, many in zip(results[0][1:], results[1][1:], strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-8, atol=1e-10)


def test_a_helix_leads_around_after_as_many_copies() -> None:
    """It climbs by 8 layers at every turn, through several domains: it leads around along z and y, and not along x."""
    image = np.zeros((32, 16, 3), np.uint8)
    for step in range(64):
        image[step // 2 % 32, step % 16, 1] = 1
        image[(step + 1) // 2 % 32, step % 16, 1] = 1
    for count in (1, 2, 4):
        solver = spread(Scan.of(image_of(image), "z"), Labelled((1,)), count, ends=None, periodic=True)
        assert led_around(solver.team.all("windings")) == (True, True, False)
    image[5] = 0
    for count in (1, 2, 4):
        solver = spread(Scan.of(image_of(image), "z"), Labelled((1,)), count, ends=None, periodic=True)
        assert led_around(solver.team.all("windings")) == (False, False, False)


@pytest.mark.parametrize("count", [2, 3])
def test_a_direct_solver_finds_the_same_tensor(count: int) -> None:
    labels, spacing = random_labels((32, 9, 7), 3, fine=True), (0.7, 1.0, 1.3)
    values = np.array([1.0, 0.05, 0.3, 0.4])
    scan = Scan.of(image_of(labels, spacing=spacing), "z")
    solver = spread(scan, Relative(DOUBLE, 1.0, np.arange(4), values), count, ends=None, periodic=True)
    jumps = {dim: scan.jump(dim) for dim in ("z", "y", "x")}
    (found, both), _ = _all_around(jumps, TOLERANCE, 300, solver)
    expected = reference_tensor(values[labels], spacing)
    for i, dim in enumerate(jumps):
        assert found[dim].energy / labels.size == pytest.approx(expected[i, i], rel=1e-9)
    mixed = (both["z", "y"] - found["z"].energy - found["y"].energy) / (2 * labels.size)
    assert mixed == pytest.approx(expected[0, 1], abs=1e-9)


def serpentine(layers: int) -> np.ndarray:
    """A channel that goes up and down through all layers nine times before it reaches the other end."""
    image = np.zeros((layers, 1, 17), np.uint8)
    image[1:-1, 0, ::2] = 1
    for k in range(0, 17, 2):
        image[1, 0, k + 1 : k + 2] = 1 if k % 4 == 2 else 0
        image[-2, 0, k + 1 : k + 2] = 1 if k % 4 == 0 else 0
    image[0, 0, 0] = image[-1, 0, -1] = 1
    return image


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_turns_back_into_a_domain_is_connected_through_all(count: int) -> None:
    """A channel, a dead end that hangs on both its ends, and a loop that floats across domains."""
    image = serpentine(40)
    length = int(image.sum())
    wide = np.concatenate([image, np.zeros((40, 2, 17), np.uint8)], axis=1)
    wide[3:37, 2, 3] = wide[3:37, 2, 7] = wide[3, 2, 3:8] = wide[36, 2, 3:8] = 1  # floats
    wide[:30, 2, 12] = 1  # a dead end
    scan = Scan.of(image_of(wide), "z")
    solver = spread(scan, Labelled((1,)), count)
    assert solver.percolating == length and solver.connected == length + 30
    steady, _, _ = through(scan, Labelled((1,)), count)
    assert steady.energy == pytest.approx(1 / length, rel=1e-9)  # steps from voxel to voxel, and two halves at the ends


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_shut_between_domains(count: int) -> None:
    image = np.ones((24, 5, 5), np.uint8)
    image[8] = 0
    steady, _, percolating = through(Scan.of(image_of(image), "z"), Labelled((1,)), count)
    assert steady.energy == 0 and percolating == 0 and steady.converged and len(steady.layers.flux) == 25


def test_domains_are_whole_blocks() -> None:
    scan = Scan.of(image_of(np.ones((100, 4, 4), np.uint8)), "z")
    for count in range(1, 30):
        for ends, n0 in (("face", 100), ("centre", 98)):
            job = Job(scan.grid, scan.order, Labelled((1,)), DOUBLE, False, ends)
            extents = job.extents(count)
            assert 1 <= len(extents) <= count and extents[0].own[0] == 0 and extents[-1].own[1] == n0
            assert all(one.own[1] == two.own[0] for one, two in itertools.pairwise(extents))
            assert all(e.own[0] % 2 ** job.levels(count) == 0 for e in extents)


def test_the_image_of_a_job_keeps_its_axes() -> None:
    image = vd.dataset({"image": np.ones((5, 20), np.uint8)}).image
    scan = Scan.of(image, "x")
    job = Job(scan.grid, scan.order, Labelled((1,)), DOUBLE, False, "centre")
    assert job.shape == (18, 1, 5)
    assert list(job.rows((0, 8))) == list(range(9)) and list(job.rows((8, 18))) == list(range(9, 20))


@pytest.mark.parametrize("empty", [[16, 17], [14, 15], [12, 13, 18, 19], [0, 1], [30, 31]])
@pytest.mark.parametrize("count", [2, 3])
def test_blocks_beside_a_bound_that_hold_nothing(empty: list[int], count: int) -> None:
    """The next level has nodes there nevertheless, which both domains must know."""
    image = (random_labels((32, 16, 16), 4, labels=3) > 0).astype(np.uint8)
    image[empty] = 0
    scan = Scan.of(image_of(image), "z")
    jumps = {dim: scan.jump(dim) for dim in ("z", "y", "x")}
    energies = []
    for domains in (1, count):
        solver = spread(scan, Labelled((1,)), domains, ends=None, periodic=True)
        (found, _), _ = _all_around(jumps, TOLERANCE, 300, solver)
        energies.append([steady.energy for steady in found.values()])
    assert energies[0][0] == 0 and energies[0][2] > 0
    np.testing.assert_allclose(energies[1], energies[0], rtol=1e-9)
