"""Models: what is read off a dataclass, what is refused, tangent and adjoint under every boundary condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import sympy as sp
import xarray as xr

import voxdask as vd
from voxdask.equation import equation_of
from voxdask.models import CahnHilliard, ReactionDiffusion
from voxdask.symbols import Field, Parameter, clip, div, dot, exp, grad, laplace, log, sin


@dataclass(frozen=True)
class Crossed(vd.Model):
    """Two fields that drive each other, inside a given third one."""

    coupling: float = 0.3
    steps: int = 2
    shift: Any = 0.1
    note: str = "no symbol"
    fields = ("u", "v")
    auxiliary = ("psi",)

    def rhs(self, t: Any, u: Any, v: Any, psi: Any) -> Any:
        flux = psi * grad(u) + self.coupling * u * grad(v)
        return (
            div(flux) / psi + self.steps * dot(grad(u), grad(v)),
            laplace(v) * exp(-self.shift * u) + dot(grad(v), grad(v)) - v * sin(t) * log(psi),
        )


class TestReading:
    """What an equation says of a model."""

    def test_parameters_and_coefficients(self) -> None:
        shift = xr.DataArray(np.ones(3), dims="x")
        equation = Crossed(coupling=2, shift=shift).equation
        assert equation.fields == ("u", "v")
        assert equation.auxiliary == ("psi",)
        assert equation.parameters == {"coupling": 2.0}
        assert list(equation.coefficients) == ["shift"]
        symbols = equation.expressions[0].free_symbols
        assert {type(s) for s in symbols} == {Field, Parameter}
        assert {s.name for s in symbols} == {"u", "v", "psi", "coupling"}

    def test_a_number_changes_no_program(self) -> None:
        one, two = (CahnHilliard(eps=eps).equation for eps in (3.0, 4.0))
        assert one.program(("y", "x")) is two.program(("y", "x"))
        assert Crossed(steps=1).equation.program(("x",)) is not Crossed(steps=2).equation.program(("x",))

    def test_numpy_numbers_are_parameters(self) -> None:
        assert Crossed(coupling=np.float32(0.5)).equation.parameters["coupling"] == 0.5

    def test_stiff_parts(self) -> None:
        qx, qy = sp.symbols("q_x q_y", nonnegative=True)
        eps, D = Parameter("eps", real=True), Parameter("diffusivity", real=True)
        assert sp.expand(CahnHilliard().equation.symbols(("y", "x"))[0] + eps * D / 2 * (qx + qy) ** 2) == 0
        assert ReactionDiffusion(2.0).equation.symbols(("x",)) == (-D * qx,)
        varying = ReactionDiffusion(xr.DataArray([1.0, 2.0], dims="x")).equation.symbols(("x",))
        assert varying == (-Parameter("max_diffusivity", positive=True) * qx,)
        nonlinear = ReactionDiffusion(lambda c: 1 + c**2, source=lambda t, c, x: c * x.x).equation.symbols(("x",))
        assert nonlinear == (-sp.Rational(5, 4) * qx,)
        first, second = Crossed().equation.symbols(("x",))
        assert first == -qx  # psi / psi
        assert sp.simplify(second + qx * sp.exp(-Parameter("shift", real=True) / 2)) == 0

    def test_latex(self) -> None:
        text = CahnHilliard()._repr_latex_()
        assert text.startswith(r"$\begin{aligned}\partial_t c &= \nabla \cdot \left( D ")
        assert r"\varepsilon" in text
        text = Crossed()._repr_latex_()
        assert r"\partial_t u &=" in text
        assert r"\\ \partial_t v &=" in text
        assert r"\psi \nabla u" in text
        assert r"\mathrm{coupling}" in text
        greek = type("Greek", (Named,), {"fields": ("phi_max", "c_li")})
        assert r"\partial_t \phi_{\mathrm{max}} &=" in greek()._repr_latex_()

    def test_a_word_is_shortened_only_where_its_letter_is_free(self) -> None:
        @dataclass(frozen=True)
        class Both(vd.Model):
            D: float = 1.0
            diffusivity: float = 2.0
            fields = ("c",)

            def rhs(self, t: Any, c: Any) -> Any:
                return (self.D + self.diffusivity) * laplace(c)

        assert r"D + \mathrm{diffusivity}" in Both()._repr_latex_()


@dataclass(frozen=True)
class Named(vd.Model):
    """A model whose names are put in by a test."""

    fields = ("c",)

    def rhs(self, t: Any, *fields: Any) -> Any:
        return tuple(laplace(f) for f in fields[: len(self.fields)])


def model(rhs: Callable[..., Any], **attributes: Any) -> Any:
    """A frozen dataclass on the field c with a right-hand side."""
    return dataclass(frozen=True)(type("Made", (vd.Model,), {"fields": ("c",), "rhs": rhs, **attributes}))()


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no dataclass": (
        lambda: type("Plain", (vd.Model,), {"fields": ("c",)})(),
        TypeError,
        "decorate it with @dataclass",
    ),
    "fields is a str": (lambda: model(None, fields="c"), TypeError, "must be a tuple of names such as"),
    "no fields": (lambda: model(None, fields=()), TypeError, 'must be a tuple of names such as ("c",), got ()'),
    "no name": (lambda: model(None, fields=("a b",)), TypeError, "must be a tuple of names"),
    "auxiliary is a str": (lambda: model(None, auxiliary="psi"), TypeError, "Made.auxiliary must be a tuple"),
    "too few": (lambda: model(lambda self, t, c, d: c, fields=("c", "d")), TypeError, "1 expressions for 2 fields"),
    "too many": (lambda: model(lambda self, t, c: (c, c)), TypeError, "returned 2 expressions for 1 fields ('c',)"),
    "a vector": (lambda: model(lambda self, t, c: grad(c)), TypeError, "'c' is a vector; take div() or dot()"),
    "nothing": (lambda: model(lambda self, t, c: None), TypeError, "'c' is a NoneType; return an expression"),
    "a text": (lambda: model(lambda self, t, c: "c"), TypeError, "'c' is a str; return an expression"),
    "an array": (lambda: model(lambda self, t, c: np.ones(3)), TypeError, "'c' is a ndarray; return an expression"),
    "a stray": (lambda: model(lambda self, t, c: c * sp.Symbol("w")), ValueError, "uses 'w', which is no field"),
    "no rhs": (lambda: dataclass(frozen=True)(type("No", (vd.Model,), {"fields": ("c",)}))(), TypeError, "define rhs"),
    "time": (lambda: model(None, fields=("t",)), ValueError, "'t', which means something else; rename it"),
    "dim": (lambda: model(None, fields=("time",)), ValueError, "'time', which means something else"),
    "twice": (lambda: model(None, fields=("c", "c")), ValueError, "uses the name 'c' for two things"),
    "both": (lambda: model(None, auxiliary=("c",)), ValueError, "uses the name 'c' for two things"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_model(name: str) -> None:
    make, kind, message = REFUSED[name]
    with pytest.raises(kind) as error:
        equation_of(make())
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["x", "dt", "c", "inverse_spacing_x", "max_psi"])
def test_parameters_that_are_named_like_something_else(name: str) -> None:
    annotations = {"__annotations__": {name: float}, name: 1.0}
    with pytest.raises(ValueError, match=f"'{name}'"):
        equation_of(model(lambda self, t, c: laplace(c), auxiliary=("psi",), **annotations))


def test_a_right_hand_side_may_hold_no_field() -> None:
    ds = vd.dataset({"c": np.zeros((3, 4))})
    clock = model(lambda self, t, c: t**2)
    assert np.array_equal(clock.right_hand_side(ds, time=3.0).c, np.full((3, 4), 9.0))
    assert np.array_equal(clock.tangent(ds, ds).c, np.zeros((3, 4)))
    assert np.array_equal(clock.adjoint(ds, ds).c, np.zeros((3, 4)))
    zero = model(lambda self, t, c: 0)
    assert np.array_equal(zero.right_hand_side(ds).c, np.zeros((3, 4)))


def test_a_field_may_have_the_name_of_a_result() -> None:
    @dataclass(frozen=True)
    class Density(vd.Model):
        fields = ("density",)

        def rhs(self, t: Any, density: Any) -> Any:
            return laplace(density)

        def energy_density(self, density: Any) -> Any:
            return dot(grad(density), grad(density)) / 2

    ds = vd.dataset({"density": np.array([0.0, 1.0, 0.0, 0.0])})
    assert float(Density().free_energy(ds)) == 1.0


# --- derivatives under boundary conditions ------------------------------------------------------------------------

MIXED = (vd.Dirichlet(0.4), vd.Neumann(0.1))
CONDITIONS: dict[str, Any] = {
    "periodic": "periodic",
    "neumann": vd.Neumann(0.1, -0.2),
    "dirichlet": vd.Dirichlet(0.3, 0.6),
    "mixed": MIXED,
    "mixed-back": MIXED[::-1],
}

MODELS: dict[str, tuple[Any, int]] = {
    "cahn-hilliard-2-D": (CahnHilliard(eps=2.0), 2),
    "diffusion-3-D": (ReactionDiffusion(0.7), 3),
    "coefficient-2-D": ("coefficient", 2),
    "nonlinear-1-D": (ReactionDiffusion(lambda c: 1 + c**2, source=lambda t, c, x: c**2 * sin(t + x.x)), 1),
    "crossed-2-D": (Crossed(), 2),
}


def problem(name: str, node_centred: bool, seed: int = 0) -> tuple[Any, xr.Dataset, xr.Dataset, xr.Dataset]:
    """A model, a state, a change of it and a weight for every rate."""
    made, ndim = MODELS[name]
    rng, shape, dims = np.random.default_rng(seed), (7, 6, 5)[:ndim], ("z", "y", "x")[-ndim:]
    options = {"spacing": (0.5, 0.7, 0.9)[:ndim], "dims": dims, "node_centred": dims if node_centred else ()}
    names = ("u", "v", "psi") if isinstance(made, Crossed) else ("c",)
    state = vd.dataset({n: rng.uniform(0.2, 0.8, shape) for n in names}, **options)
    change, weight = (vd.dataset({n: rng.standard_normal(shape) for n in names}, **options) for _ in range(2))
    if made == "coefficient":
        made = ReactionDiffusion(state.c * 2 + 0.1)
    return made, state, change, weight


def product(a: xr.Dataset, b: xr.Dataset) -> float:
    return float(sum((a[n] * b[n]).sum() for n in a.data_vars))


@pytest.mark.parametrize("node_centred", [False, True], ids=["cells", "nodes"])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", MODELS)
def test_the_adjoint_is_the_transpose_of_the_tangent(name: str, condition: str, node_centred: bool) -> None:
    made, state, change, weight = problem(name, node_centred)
    # the axes in turn: what stands at one end of the first stands elsewhere on the others
    first = [*CONDITIONS].index(condition)
    order = ([*CONDITIONS.values()] * 2)[first:]
    boundary = dict(zip(next(iter(state.values())).dims, order, strict=False))
    options: dict[str, Any] = {"boundary": boundary, "time": 0.4}
    forward, back = made.tangent(state, change, **options), made.adjoint(state, weight, **options)
    left, right = product(forward, weight), product(back, change)
    scale = float(sum(abs(forward[n] * weight[n]).sum() for n in forward.data_vars))
    assert scale > 0
    assert abs(left - right) <= 1e-11 * scale


@pytest.mark.parametrize("name", ["cahn-hilliard-2-D", "coefficient-2-D", "nonlinear-1-D", "crossed-2-D"])
@pytest.mark.parametrize("node_centred", [False, True], ids=["cells", "nodes"])
def test_the_tangent_leaves_a_remainder_of_second_order(name: str, node_centred: bool) -> None:
    made, state, change, _ = problem(name, node_centred)
    options: dict[str, Any] = {"boundary": {"y": MIXED, "x": vd.Dirichlet(0.3, 0.6)}, "time": 0.4}
    options["boundary"] = {dim: options["boundary"].get(dim) for dim in next(iter(state.values())).dims}
    if "psi" in change:
        change["psi"] = 0 * change.psi  # it is given, not a variable
    rate, slope = made.right_hand_side(state, **options), made.tangent(state, change, **options)
    steps, remainders = 1e-3 * 0.5 ** np.arange(5), []
    for step in steps:
        there = made.right_hand_side(state + step * change, **options)
        remainder = there - rate - step * slope
        remainders.append(np.sqrt(product(remainder, remainder)))
    if name == "coefficient-2-D":
        assert max(remainders) < 1e-12  # it is linear
        return
    order = np.polyfit(np.log(steps), np.log(remainders), 1)[0]
    assert abs(order - 2) < 0.1


def test_a_clipped_field_has_no_slope() -> None:
    made = model(lambda self, t, c: clip(c, 0, 1) ** 2)
    ds = vd.dataset({"c": np.array([-0.5, 0.25, 0.5, 1.5])})
    one = vd.dataset({"c": np.ones(4)})
    assert np.array_equal(made.tangent(ds, one).c, [0, 0.5, 1, 0])
    assert np.array_equal(made.adjoint(ds, one).c, [0, 0.5, 1, 0])


def test_class_attributes_are_no_parameters() -> None:
    @dataclass(frozen=True)
    class Constant(vd.Model):
        rate: ClassVar[float] = 2.0
        table: dict[str, float] = field(default_factory=lambda: {"a": 3.0})
        fields = ("c",)

        def rhs(self, t: Any, c: Any) -> Any:
            return self.rate * self.table["a"] * c

    made = Constant()
    assert made.equation.parameters == {}
    assert np.array_equal(made.right_hand_side(vd.dataset({"c": np.ones(3)})).c, [6, 6, 6])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_numbers_that_must_be_positive(value: float) -> None:
    with pytest.raises(ValueError, match=r"eps is .*; it must be positive and finite"):
        CahnHilliard(eps=value)


@pytest.mark.parametrize("value", ["3", None, True, 1j])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="give a number or a DataArray"):
        CahnHilliard(eps=value)
