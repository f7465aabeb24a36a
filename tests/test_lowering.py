"""Stencils against NumPy by hand; stages, halos, derivatives of programs, Fourier symbols, exact right-hand sides."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import sympy as sp
from periodic import (
    AXES,
    ahead,
    behind,
    divergence,
    face_mean,
    gradient_product,
    laplacian,
    positions,
    random_fields,
    run,
    run_program,
    scalars,
)

from voxdask.kernels import compile_program
from voxdask.lowering import (
    Program,
    Sample,
    adjoint,
    cotangent_name,
    exact,
    fourier_symbol,
    lower,
    tangent,
    tangent_name,
)
from voxdask.symbols import (
    Component,
    Field,
    Gradient,
    Parameter,
    Vector,
    clip,
    div,
    dot,
    exp,
    face,
    grad,
    laplace,
    log,
    sin,
    sqrt,
    t,
    tanh,
    x,
    y,
    z,
)

u, c, w = (Field(name, real=True) for name in "ucw")
D, eps = Parameter("D", real=True), Parameter("eps", real=True)

GRIDS = [((9,), (0.5,)), ((7, 6), (0.5, 0.7)), ((5, 6, 7), (0.5, 0.7, 0.9))]
grids = pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=["1-D", "2-D", "3-D"])


def close(a: Any, b: Any, tolerance: float = 1e-13) -> bool:
    return bool(np.abs(a - b).max() <= tolerance * np.abs(b).max())


def cahn_hilliard(c: Any) -> Any:
    c = clip(c, 0, 1)
    mu = 18 / eps * c * (1 - c) * (1 - 2 * c) - 2 * eps * laplace(c)
    return div(D * face(c) * (1 - face(c)) * grad(mu))


# --- stencils ------------------------------------------------------------------------------------------------------


@grids
def test_operators(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    fields = random_fields("u", "c", "w", shape=shape)
    a, b, k = (fields[n] for n in "ucw")
    expected = {
        "laplace": (laplace(u), laplacian(a, spacing)),
        "of_a_function": (laplace(u**3), laplacian(a**3, spacing)),
        "coefficient": (div(w * grad(u)), divergence(lambda i: face_mean(k, i), a, spacing)),
        "function_at_face": (div(exp(c) * grad(u)), divergence(lambda i: np.exp(face_mean(b, i)), a, spacing)),
        "mean_of_function": (div(face(exp(c)) * grad(u)), divergence(lambda i: face_mean(np.exp(b), i), a, spacing)),
        "dot": (dot(grad(u), grad(c)), gradient_product(a, b, spacing)),
        "sum": (
            div(grad(u) * 2 - grad(c) / w),
            2 * laplacian(a, spacing) - divergence(lambda i: 1 / face_mean(k, i), b, spacing),
        ),
        "away_from_faces": (face(u) * c, a * b),
        "nothing": (div(grad(u) - grad(u)) + u, a),
    }
    program = lower(tuple(e for e, _ in expected.values()), tuple(expected), AXES[-len(shape) :])
    assert len(program.stages) == 1
    assert program.halo == 1
    results = run_program(program, fields, spacing)
    for name, (_, reference) in expected.items():
        assert close(results[name], reference), name


@grids
def test_components_are_central_differences(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    fields = random_fields("u", "c", shape=shape)
    axes = AXES[-len(shape) :]
    program = lower(tuple(Component(c * Gradient(u), sp.Symbol(axis)) for axis in axes), axes, axes)
    results = run_program(program, fields, spacing)
    for a, (axis, h) in enumerate(zip(axes, spacing, strict=True)):
        flux = face_mean(fields["c"], a) * (ahead(fields["u"], a) - fields["u"]) / h
        assert close(results[axis], (flux + behind(flux, a)) / 2)


@grids
def test_cahn_hilliard_has_two_stages_and_conserves(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    program = lower((cahn_hilliard(c),), ("rate",), AXES[-len(shape) :])
    assert len(program.stages) == 2
    assert program.halo == 2
    assert program.margins == (1, 0)
    field = np.random.default_rng(1).uniform(-0.2, 1.2, shape)
    rate = run_program(program, {"c": field}, spacing, eps=3.0, D=0.7)["rate"]
    b = np.clip(field, 0, 1)
    mu = 18 / 3.0 * b * (1 - b) * (1 - 2 * b) - 6.0 * laplacian(b, spacing)
    assert close(rate, divergence(lambda a: 0.7 * face_mean(b, a) * (1 - face_mean(b, a)), mu, spacing), 1e-12)
    assert abs(rate.sum()) < 1e-13 * np.abs(rate).sum()


@pytest.mark.parametrize(("shape", "spacing"), GRIDS[:2], ids=["1-D", "2-D"])
def test_three_stages(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    program = lower((laplace(laplace(laplace(u))),), ("rate",), AXES[-len(shape) :])
    assert len(program.stages) == 3
    assert program.halo == 3
    fields = random_fields("u", shape=shape)
    reference = laplacian(laplacian(laplacian(fields["u"], spacing), spacing), spacing)
    assert close(run_program(program, fields, spacing)["rate"], reference, 1e-12)


def test_stages_are_shared_and_only_made_where_needed() -> None:
    mu = laplace(u) + u**2
    program = lower((div(u * grad(mu)), laplace(mu) + mu), ("a", "b"), ("y", "x"))
    assert len(program.stages) == 2
    assert lower((laplace(u) ** 2 + u,), ("a",), ("x",)).halo == 1
    assert lower((div(laplace(u) * grad(c)),), ("a",), ("x",)).halo == 2  # at a face the mean of two Laplacians


def test_a_derivative_at_a_face_is_the_mean_of_two() -> None:
    shape, spacing = (6, 7), (0.5, 0.7)
    fields = random_fields("u", "c", shape=shape)
    curvature = laplacian(fields["u"], spacing)
    reference = divergence(lambda a: face_mean(curvature, a), fields["c"], spacing)
    assert close(run(div(laplace(u) * grad(c)), fields, spacing), reference, 1e-12)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_storage_order_is_storage_only(order: tuple[int, ...]) -> None:
    shape, spacing = (5, 6, 7), (0.5, 0.7, 0.9)
    e = div((u + 0.1 * sin(x) * y) * grad(u)) + dot(grad(u), grad(c)) * z
    fields = random_fields("u", "c", shape=shape)
    plain = run(e, fields, spacing)
    axes = tuple(AXES[a] for a in order)
    turned = {name: np.ascontiguousarray(field.transpose(order)) for name, field in fields.items()}
    result = run_program(lower((e,), ("rate",), axes), turned, [spacing[a] for a in order])["rate"]
    assert close(result.transpose(np.argsort(order)), plain)


def test_coordinates_at_voxels_and_faces() -> None:
    shape, spacing = (5, 6), (0.5, 0.7)
    fields = random_fields("u", shape=shape)
    Y, X = np.meshgrid(*((np.arange(n) + 0.5) * h for n, h in zip(shape, spacing, strict=True)), indexing="ij")
    assert close(run(u + x * exp(-y), fields, spacing), fields["u"] + X * np.exp(-Y))
    # at the upper face of a voxel the position is half a voxel further along that axis; no field wraps in it
    a, upper, total = fields["u"], (Y, X), np.zeros(shape)
    for axis, h in enumerate(spacing):
        for side, neighbour in ((1, ahead), (-1, behind)):
            at = [p + side * h / 2 * (axis == i) for i, p in enumerate(upper)]
            total += at[1] ** 2 * at[0] * (neighbour(a, axis) - a) / h**2
    assert close(run(div(x**2 * y * grad(u)), fields, spacing), total)


def test_time_and_an_equation_without_fields() -> None:
    fields = random_fields("u", shape=(4, 3))
    assert close(run(t**2 + 0 * x, fields, (1.0, 1.0), t=3.0), np.full((4, 3), 9.0))
    with pytest.raises(ValueError, match="reads no field"):
        run_program(lower((t,), ("rate",), ("x",)), {"u": np.ones(3)}, (1.0,))


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("e", "message"),
    [
        (x * u, "names 'x', but the grid has dims z, y"),
        (Component(Gradient(u), sp.Symbol("x")), "names 'x', but the grid has dims z, y"),
        (Gradient(u) * u, "a vector stands where a scalar is needed"),
        (div(Vector(u)), "not a vector: u"),
        (div(Vector(Gradient(u) * Gradient(c))), "not a vector"),
    ],
)
def test_what_can_not_be_discretised(e: sp.Expr, message: str) -> None:
    with pytest.raises(ValueError) as error:
        lower((e,), ("rate",), ("z", "y"))
    assert message in str(error.value)


def test_a_sample_survives_pickling() -> None:
    sample = Sample("c", (0, -1, 12))
    again = pickle.loads(pickle.dumps(sample * 2)) / 2
    assert again == sample
    assert again.offset == (0, -1, 12)
    assert len({Sample(name, o) for name in ("c", "c_", "c[1]") for o in ((1,), (-1,), (0, 1), (11,))}) == 12


# --- derivatives of programs --------------------------------------------------------------------------------------

EQUATIONS: dict[str, tuple[int, Callable[[], Any]]] = {
    "cahn-hilliard": (1, lambda: cahn_hilliard(c)),
    "cross": (2, lambda: div(u * grad(c) + c**2 * grad(u)) + dot(grad(u), grad(c)) * exp(-u)),
    "face": (2, lambda: div(face(sqrt(u)) * sin(x) * grad(log(c))) - abs(u - c) + tanh(x) * sp.Max(u, c)),
    "three": (1, lambda: laplace(u * laplace(c * laplace(u)))),
    "of-roots": (1, lambda: abs(sqrt(u) - sqrt(c)) * laplace(u)),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_tangent_and_adjoint(name: str) -> None:
    ndim, equation = EQUATIONS[name]
    shape, spacing, numbers = (6, 7)[:ndim], (0.5, 0.7)[:ndim], {"D": 0.7, "eps": 3.0}
    program = lower((equation(),), ("rate",), ("y", "x")[-ndim:])
    active = program.inputs
    fields, changes = random_fields(*active, shape=shape), random_fields(*active, shape=shape, seed=1)
    weight = np.random.default_rng(2).standard_normal(shape)

    forward = tangent(program, active)
    given = {**fields, **{tangent_name(n): a for n, a in changes.items()}}
    change = run_program(forward, given, spacing, **numbers)[tangent_name("rate")]

    step = 1e-6
    beside = [
        run_program(program, {n: fields[n] + s * changes[n] for n in active}, spacing, **numbers)["rate"]
        for s in (-step, step)
    ]
    assert close((beside[1] - beside[0]) / (2 * step), change, 1e-7)

    back = adjoint(program, active)
    assert back.output_margin == program.halo
    shares = _transposed(back, fields, weight, spacing, numbers)
    left = float((change * weight).sum())
    right = float(sum((changes[n] * shares[n]).sum() for n in active))
    assert abs(left - right) < 1e-11 * np.abs(change * weight).sum()


def _transposed(
    back: Program, fields: dict[str, Any], weight: np.ndarray, spacing: Sequence[float], numbers: dict[str, float]
) -> dict[str, np.ndarray]:
    """The adjoint on periodic fields: weights are zero outside, ghost layers go back where they came from."""
    kernel = compile_program(back)
    blocks = {
        n: np.pad(weight, kernel.halo) if n == cotangent_name("rate") else np.pad(fields[n], kernel.halo, mode="wrap")
        for n in kernel.inputs
    }
    results = kernel(blocks, positions(kernel, weight.shape, spacing), scalars(kernel, spacing, numbers))
    folded = {}
    for name in fields:
        padded, total = results[cotangent_name(name)], np.zeros(weight.shape)
        places = (np.arange(-kernel.output_margin, n + kernel.output_margin) % n for n in weight.shape)
        np.add.at(total, np.ix_(*places), padded)
        folded[name] = total
    return folded


def test_derivatives_leave_out_what_they_do_not_need() -> None:
    program = lower((laplace(laplace(u)) + c,), ("rate",), ("x",))
    forward, back = tangent(program, ["u"]), adjoint(program, ["u"])
    assert forward.inputs == (tangent_name("u"),)
    assert back.inputs == (cotangent_name("rate"),)
    assert forward.halo == 2
    assert tangent(lower((t + x,), ("rate",), ("x",), fallback="u"), ["u"]).inputs == ("u",)


def test_names_of_arrays_do_not_collide() -> None:
    names = ["stage_0", "c_change", "c_weight", "inner0", "c"]
    fields = random_fields(*names, shape=(8,))
    e = laplace(laplace(c) * Field("stage_0", real=True)) + sum(Field(n, real=True) ** 2 for n in names)
    inner = laplacian(fields["c"], (0.5,)) * fields["stage_0"]
    reference = laplacian(inner, (0.5,)) + sum(f**2 for f in fields.values())
    assert close(run(e, fields, (0.5,)), reference, 1e-12)


# --- Fourier symbols ----------------------------------------------------------------------------------------------

q_x, q_y, q_z = sp.symbols("q_x q_y q_z", nonnegative=True)
q = q_x + q_y + q_z
half = {"c": sp.Rational(1, 2), "u": sp.Rational(1, 3)}


@pytest.mark.parametrize(
    ("e", "symbol"),
    [
        (cahn_hilliard(c), -eps * D / 2 * q**2),
        (div(D * grad(c)), -D * q),
        (D * laplace(c) - c, -D * q),
        (div((1 + c**2) * grad(c)), -sp.Rational(5, 4) * q),
        (div(u * c * grad(log(c))) + laplace(u), -q / 3),
        (div(face(c**2) * grad(c)), -q / 4),
        (-laplace(laplace(c)) - 2 * laplace(c), -(q**2)),
        (laplace(laplace(c)) + 3 * laplace(c), -3 * q),  # the growing part is dropped
        (-laplace(c), 0),
        (sin(t) + c**2 - x, 0),
        (dot(grad(c), grad(c)), 0),
        (Component(Gradient(c), sp.Symbol("x")), 0),
        (sp.Piecewise((laplace(c), c < 1), (-laplace(c), True)), -q),
        (laplace(clip(c, 0, 1)) + laplace(clip(c, 2, 3)), -q),
        (abs(c - 1) * laplace(c) * sp.Max(c, 0), -q / 4),
        (laplace(u), 0),
    ],
)
def test_fourier_symbol(e: sp.Expr, symbol: sp.Expr) -> None:
    assert sp.expand(fourier_symbol(e, "c", half, AXES) - symbol) == 0


def test_the_sign_of_a_parameter_decides_what_damps() -> None:
    e = D * laplace(laplace(c)) + laplace(c)
    assert fourier_symbol(e, "c", half, ("x",)) == -q_x
    assert fourier_symbol(e, "c", half, ("x",), {"D": -2.0}) == D * q_x**2
    difference = (D - eps) * laplace(c)
    assert fourier_symbol(difference, "c", half, ("x",), {"D": 3.0, "eps": 1.0}) == sp.factor((eps - D) * q_x)
    assert fourier_symbol(difference, "c", half, ("x",), {"D": 1.0, "eps": 3.0}) == 0


def test_terms_damp_one_by_one_where_an_equation_is_anisotropic() -> None:
    gradient = Gradient(c)
    e = div(Vector(gradient))
    second = Component(Gradient(Component(gradient, sp.Symbol("x"))), sp.Symbol("x"))
    assert fourier_symbol(e - 3 * second, "c", half, ("y", "x")) == -q_y
    assert fourier_symbol(e + 3 * second, "c", half, ("y", "x")) == -4 * q_x - q_y


def test_what_a_fourier_symbol_needs() -> None:
    with pytest.raises(ValueError, match="no reference value for the field 'w'"):
        fourier_symbol(w * laplace(c), "c", half, ("x",))
    with pytest.raises(ValueError, match=r"singular .* reference\(\)"):
        fourier_symbol(laplace(log(c)), "c", {"c": 0}, ("x",))
    with pytest.raises(ValueError, match=r"depends on 'x'; let reference\(\)"):
        fourier_symbol(div((2 + sin(x)) * grad(c)), "c", half, ("x",))
    assert fourier_symbol(div((2 + x) * grad(c)), "c", {**half, "x": 3}, ("x",)) == -5 * q_x


# --- the exact right-hand side ------------------------------------------------------------------------------------


def test_exact_right_hand_sides() -> None:
    f, g = sp.sin(x) * sp.exp(y) + t, sp.Rational(1, 2) + x**2 * y / 10
    known = {"u": f, "c": g}

    def nabla2(e: Any) -> Any:
        return sp.diff(e, x, 2) + sp.diff(e, y, 2)

    mu = 18 / eps * g * (1 - g) * (1 - 2 * g) - 2 * eps * nabla2(g)
    flux = [D * g * (1 - g) * sp.diff(mu, s) for s in (x, y)]
    cases = {
        laplace(u) + t * x: nabla2(f) + t * x,
        laplace(laplace(u)): nabla2(nabla2(f)),
        dot(grad(u), grad(c)): sp.diff(f, x) * sp.diff(g, x) + sp.diff(f, y) * sp.diff(g, y),
        div(u * grad(c) - grad(u)): sp.diff(f * sp.diff(g, x), x) + sp.diff(f * sp.diff(g, y), y) - nabla2(f),
        Component(c * Gradient(u), sp.Symbol("y")): g * sp.diff(f, y),
        cahn_hilliard(c): sp.diff(flux[0], x) + sp.diff(flux[1], y),
        div(Vector(sp.Integer(0))): 0,
        sp.Max(u, c): sp.Max(f, g),
    }
    for e, reference in cases.items():
        assert sp.simplify(exact(e, known, ("y", "x")) - reference) == 0, e


def test_stencils_approach_the_exact_right_hand_side_to_second_order() -> None:
    known = {"c": sp.Rational(1, 2) + sp.sin(x) * sp.cos(y) / 4}
    numbers = {"eps": 0.9, "D": 0.7}
    rate = sp.lambdify((y, x), exact(cahn_hilliard(c), known, ("y", "x")).subs({eps: 0.9, D: 0.7}))
    start = sp.lambdify((y, x), known["c"])
    sizes, errors = (24, 36, 54, 81), []
    for n in sizes:
        h = 2 * np.pi / n
        places = np.meshgrid(*[(np.arange(n) + 0.5) * h] * 2, indexing="ij")
        errors.append(np.abs(run(cahn_hilliard(c), {"c": start(*places)}, (h, h), **numbers) - rate(*places)).max())
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope + 2) < 0.1
