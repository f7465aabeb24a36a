"""What a model's attributes become: parameters and coefficients, also inside tuples and frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import sympy as sp
import xarray as xr

import voxdask as vd
from voxdask.attributes import names_of, symbolic_copy, with_values
from voxdask.models import AllenCahn, CahnHilliard, ReactionDiffusion, RegularSolution
from voxdask.symbols import Field, Parameter
from voxdask.verify import rhs_order, solution_order


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Inner:
    """A part of a model that checks itself."""

    rate: float = 2.0
    order: int = 3
    orders: tuple[int, ...] = (1, 2)
    table: tuple[float, ...] = (0.5, 0.25)
    name: str = "inner"

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ValueError(f"rate is {self.rate}")


@dataclass
class Loose:
    """A dataclass that is not frozen is left alone."""

    rate: float = 2.0


@dataclass(frozen=True)
class Outer(vd.Model):
    """A model with all kinds of attributes."""

    parts: Any = (1.5, Inner())
    whole: float = field(default=4.0, metadata={"symbolic": False})
    loose: Loose = field(default_factory=Loose)
    words: tuple[str, ...] = ("a", "b")
    switch: bool = True
    pair: Any = (1.0, None)
    fields = ("c",)

    def rhs(self, t: Any, c: Any) -> Any:
        one, inner = self.parts
        return one * vd.laplace(c) + inner.rate * c**inner.order + inner.table[1] + self.whole + self.pair[0]


FLAT = {"parts_0": 1.5, "parts_1_rate": 2.0, "parts_1_table_0": 0.5, "parts_1_table_1": 0.25, "pair_0": 1.0}


def test_numbers_inside_become_parameters() -> None:
    copy, parameters, coefficients = symbolic_copy(Outer(pair=Pair(1.0, None)))  # a named tuple counts as any other
    assert (parameters, coefficients) == (FLAT, {})
    assert copy.parts[1].rate == Parameter("parts_1_rate", real=True)
    assert (copy.parts[1].order, copy.parts[1].orders, copy.parts[1].name) == (3, (1, 2), "inner")
    assert (copy.whole, copy.switch, copy.words, copy.loose.rate) == (4.0, True, ("a", "b"), 2.0)
    assert isinstance(copy.pair, Pair)
    e = Outer().equation.expressions[0]
    assert {s.name for s in e.free_symbols} == {"c", "parts_0", "parts_1_rate", "parts_1_table_1", "pair_0"}


def test_arrays_inside_become_coefficients() -> None:
    array = xr.DataArray(np.ones(4), dims="x")
    copy, parameters, coefficients = symbolic_copy(Outer(parts=(array, Inner())))
    assert copy.parts[0] == Field("parts_0", real=True)
    assert list(coefficients) == ["parts_0"]
    assert "parts_0" not in parameters


def test_other_numbers_compile_nothing() -> None:
    one, two = Outer(), Outer(parts=(3.0, Inner(5.0, 3, (1, 2), (7.0, 8.0))))
    assert one.equation.program(("x",)) is two.equation.program(("x",))
    ds = vd.dataset({"c": np.full(4, 0.5)})
    assert np.allclose(one.right_hand_side(ds).c, 2 * 0.125 + 0.25 + 4 + 1)
    assert np.allclose(two.right_hand_side(ds).c, 5 * 0.125 + 8 + 4 + 1)


def test_other_values_by_name() -> None:
    model = Outer(pair=Pair(1.0, None))
    assert set(FLAT) | {"parts", "parts_1", "whole"} <= set(names_of(model))
    changed = with_values(model, {"parts_1_rate": 7.0, "pair_0": 2.0, "words_1": "z"})
    assert changed.parts == (1.5, Inner(rate=7.0))
    assert changed.pair == Pair(2.0, None)
    assert changed.words == ("a", "z")
    assert changed.loose is model.loose
    assert with_values(model, {}) is model
    with pytest.raises(ValueError, match="rate is -1"):
        with_values(model, {"parts_1_rate": -1})
    with pytest.raises(ValueError, match="Outer has no 'parts_2'; it has parts, parts_0"):
        with_values(model, {"parts_2": 1})


def test_a_name_must_stand_for_one_thing() -> None:
    @dataclass(frozen=True)
    class Twice(Outer):
        parts_0: float = 2.0

    with pytest.raises(ValueError, match="uses the name 'parts_0' for two things"):
        _ = Twice().equation
    with pytest.raises(ValueError, match=r"Outer\.parts_0 is nan; a parameter must be finite"):
        _ = Outer(parts=(float("nan"), Inner())).equation


def test_order_studies_find_coefficients_by_name() -> None:
    model = ReactionDiffusion((0.2, lambda c: 1 + c**2))
    known = {"diffusivity_0": 0.1 * (2 + vd.cos(2 * sp.pi * vd.x))}
    wave = 0.5 + 0.2 * vd.sin(2 * sp.pi * vd.x + 0.7)
    assert rhs_order(model, {"c": wave, **known}, sizes=(24, 32, 48, 64)).order == pytest.approx(2, abs=0.1)
    known["c"] = 0.5 + 0.2 * vd.exp(-3 * vd.t) * vd.sin(2 * sp.pi * vd.x + 0.7)
    study = solution_order(model, known, "euler", vary="dt", sizes=8, t_end=0.1, dt=(0.02, 0.01, 0.005, 0.0025))
    assert study.order == pytest.approx(1, abs=0.1)


def test_a_coefficient_in_a_tuple_is_a_field_of_the_equation() -> None:
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(0.2, 0.8, 8), "D": np.linspace(1, 2, 8)})
    nested, plain = ReactionDiffusion((ds.D, 2.0)), ReactionDiffusion(2 * ds.D)
    np.testing.assert_allclose(nested.right_hand_side(ds).c, plain.right_hand_side(ds).c, rtol=0, atol=1e-13)


def test_models_of_the_package() -> None:
    model = CahnHilliard(2.0, potential=RegularSolution(2.5, 1.5))
    assert model.equation.parameters == {
        "eps": 2.0, "diffusivity": 1.0, "potential_interaction": 2.5, "potential_scale": 1.5,
    }  # fmt: skip
    assert set(AllenCahn().equation.parameters) == {"eps", "gamma", "mobility", "force", "curvature"}
    other = CahnHilliard(3.0, potential=RegularSolution(3.5, 0.5))
    assert model.equation.program(("x",)) is other.equation.program(("x",))
