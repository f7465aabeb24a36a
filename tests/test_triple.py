"""Lines where three phases meet, counted edge by edge."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from images import CUTS, cut_up, image, labels_of

import voxdask as vd

SPACING = (0.5, 0.3, 0.7)


def edge_by_edge(labels: np.ndarray) -> float:
    """The length of all edges between four voxels that hold 0, 1 and 2."""
    total = 0.0
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for voxel in itertools.product(*map(range, labels.shape)):
            around = []
            for steps in itertools.product((0, 1), repeat=2):
                at = list(voxel)
                for other, step in zip(others, steps, strict=True):
                    at[other] += step
                if all(n < size for n, size in zip(at, labels.shape, strict=True)):
                    around.append(labels[tuple(at)])
            total += SPACING[axis] * (len(around) == 4 and {0, 1, 2} <= set(around))
    return total


@given(labels_of(4, 3, side=5).filter(lambda labels: {0, 1, 2} <= set(labels.flat)), CUTS)
def test_edges_are_counted_one_by_one(labels: np.ndarray, cut: Any) -> None:
    whole = image(labels, SPACING)
    with cut_up(whole, cut) as given_image:
        found = vd.triple_phase_boundary(given_image)
    assert found.length.item() == pytest.approx(edge_by_edge(labels), rel=1e-12)
    assert found.density.item() == pytest.approx(found.length.item() / (labels.size * np.prod(SPACING)), rel=1e-12)


@given(labels_of(3, 2, side=6).filter(lambda labels: {0, 1, 2} <= set(labels.flat)), CUTS)
def test_points_in_a_plane_image(labels: np.ndarray, cut: Any) -> None:
    corners = [{*labels[i : i + 2, j : j + 2].flat} for i, j in np.ndindex(labels.shape[0] - 1, labels.shape[1] - 1)]
    with cut_up(image(labels, 0.5), cut) as given_image:
        found = vd.triple_phase_boundary(given_image)
    assert found.length.item() == sum(len(corner) == 3 for corner in corners)
    assert found.density.item() == pytest.approx(found.length.item() / (0.25 * labels.size))
    assert (found.length.units, found.density.units) == ("1", "um^-2")


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 0, 0), (1, 1, 1), (3, -1, 2)])
def test_a_line_is_followed_in_steps(direction: tuple[int, ...]) -> None:
    """Three sectors about a line: its edges are longer by the sum of the components of its direction."""
    along = np.array(direction) / np.linalg.norm(direction)
    one = np.cross(along, (0.3, 0.5, 0.8124))
    one /= np.linalg.norm(one)
    places = np.moveaxis(np.indices((60, 60, 60)), 0, -1) - (29.61, 29.53, 29.37)
    angle = np.arctan2(places @ np.cross(along, one), places @ one)
    labels = np.floor(angle / (2 * np.pi) * 3 + 1.5).astype(int)
    distance = np.linalg.norm(places - (places @ along)[..., None] * along, axis=-1)
    labels = np.where((distance < 8) & (abs(places @ along) < 20), labels, 3)
    expected = 40 * abs(along).sum()
    assert vd.triple_phase_boundary(image(labels)).length.item() == pytest.approx(expected, rel=0.03)


def block(*, shorten: bool) -> np.ndarray:
    """Three bars along x that meet in a line, and if so, one that does not reach the end."""
    labels = np.full((4, 4, 8), 9, np.uint8)
    labels[1, 1:3], labels[2, 1], labels[2, 2] = 0, 1, 2
    if shorten:
        labels[2, 2, 5:] = 9
    return labels


def test_edges_of_parts_that_percolate() -> None:
    assert vd.triple_phase_boundary(image(block(shorten=False))).length == 8
    assert vd.triple_phase_boundary(image(block(shorten=True))).length == 5
    assert vd.triple_phase_boundary(image(block(shorten=False)), percolating=True).length == 8
    assert vd.triple_phase_boundary(image(block(shorten=True)), percolating=True).length == 0
    assert vd.triple_phase_boundary(image(block(shorten=False)), percolating="x").length == 8
    assert vd.triple_phase_boundary(image(block(shorten=False)), percolating="y").length == 0


@given(labels_of(3, 3, side=6).filter(lambda labels: {0, 1, 2} <= set(labels.flat)), CUTS)
def test_percolating_edges_are_those_of_an_image_without_the_rest(labels: np.ndarray, cut: Any) -> None:
    whole, active = image(labels, SPACING), np.full(labels.shape, 9)
    for phase in range(3):
        found = vd.clusters(whole, phase)
        kept = found.cluster.values[found.percolates.any("axis").values]
        active[np.isin(found.labels.values, kept)] = phase
    with cut_up(whole, cut) as given_image:
        found = vd.triple_phase_boundary(given_image, percolating=True)
    assert found.length.item() == pytest.approx(edge_by_edge(active), rel=1e-12)


def test_the_order_of_phases_does_not_matter() -> None:
    whole = image(np.random.default_rng(0).integers(0, 3, (5, 6, 7)) * 85, SPACING)
    expected = vd.triple_phase_boundary(whole, (0, 85, 170))
    for phases in itertools.permutations((0, 85, 170)):
        xr.testing.assert_equal(vd.triple_phase_boundary(whole, phases), expected)
