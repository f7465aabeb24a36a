"""Order two in space of right-hand sides and solutions, the order of each stepper in time, for every boundary.

Right-hand sides are compared in the maximum norm, walls included. That takes functions for which the ghost rules
are exact: odd about a Dirichlet value (a linear part and sines), even about a Neumann end but for a linear part
(a quadratic part and cosines). Other functions leave an error of order h^0 to h^1 at a wall, where ghosts are cell
centred; the solution is of second order nevertheless, and `test_solution_order_in_space` measures that.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import xarray as xr

import voxdask as vd
from voxdask.models import CahnHilliard, ReactionDiffusion
from voxdask.verify import ErrorSurface, OrderStudy, error_surface, rhs_order, solution_order

x, y, z, t, pi = vd.x, vd.y, vd.z, vd.t, sp.pi

#: A boundary on x and a function that its ghost values continue.
ENDS: dict[str, tuple[Any, Any]] = {
    "periodic": ("periodic", 0.5 + 0.2 * vd.sin(2 * pi * x + 0.7)),
    "zero-flux": ("neumann", 0.5 + 0.2 * vd.cos(pi * x) + 0.1 * vd.cos(2 * pi * x)),
    "dirichlet": (vd.Dirichlet(0.3, 0.6), 0.3 + 0.3 * x + 0.15 * vd.sin(pi * x)),
    "flux": (vd.Neumann(-0.2, 0.5), 0.3 + 0.2 * x + 0.15 * x**2 + 0.1 * vd.cos(pi * x)),
    "dirichlet-flux": ((vd.Dirichlet(0.3), vd.Neumann(0.2)), 0.3 + 0.2 * x + 0.2 * vd.sin(pi * x / 2)),
    "flux-dirichlet": ((vd.Neumann(-0.2), vd.Dirichlet(0.6)), 0.4 + 0.2 * x + 0.2 * vd.cos(pi * x / 2)),
}
#: Even at both ends, as the faces of a coefficient are.
COEFFICIENT = {"diffusivity": 1 + 0.3 * vd.cos(2 * pi * x)}
MODELS: dict[str, tuple[vd.Model, dict[str, Any]]] = {
    "cahn-hilliard": (CahnHilliard(eps=0.5, diffusivity=1.3), {}),
    "cahn-hilliard-D(x)": (CahnHilliard(eps=0.5), COEFFICIENT),
    "diffusion-f(t,c,x)": (ReactionDiffusion(0.7, source=lambda t, c, p: c * (1 - c) + t * p.x**2), {}),
    "diffusion-D(c)": (ReactionDiffusion(lambda c: 0.5 + c**2), {}),
    "diffusion-D(x)": (ReactionDiffusion(1.0), COEFFICIENT),
}


@pytest.mark.parametrize("node_centred", [(), ("x",)], ids=["cells", "nodes"])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("model", MODELS)
def test_right_hand_side_is_of_second_order_at_every_end(model: str, ends: str, node_centred: tuple[str, ...]) -> None:
    boundary, u = ENDS[ends]
    equation, more = MODELS[model]
    study = rhs_order(
        equation, {"c": u, **more}, boundary=boundary, node_centred=node_centred, sizes=(48, 64, 96, 128), time=0.4
    )
    assert study.order == pytest.approx(2, abs=0.1)
    assert study.errors[-1] > 1e-6


@pytest.mark.parametrize("node_centred", [(), ("x",), ("y",), ("y", "x")], ids=["cells", "x", "y", "both"])
@pytest.mark.parametrize("dims", [("y", "x"), ("x", "y")], ids="-".join)
def test_ends_mix_in_two_dimensions(dims: tuple[str, ...], node_centred: tuple[str, ...]) -> None:
    u = 0.5 + 0.1 * x + 0.1 * vd.cos(pi * x) * vd.cos(2 * pi * y)
    boundary = {"x": vd.Neumann(-0.1, 0.1), "y": "neumann"}
    study = rhs_order(
        CahnHilliard(eps=0.5), {"c": u}, dims=dims, boundary=boundary, node_centred=node_centred,
        sizes=(24, 32, 48, 64), extent={"x": 1.0, "y": 2.0},
    )  # fmt: skip
    assert study.order == pytest.approx(2, abs=0.1)


def values_over_faces(grid: vd.Grid) -> dict[str, Any]:
    along = np.cos(np.pi * grid.coordinate("y"))
    lo, hi = (xr.DataArray(v + 0.1 * along, dims=["y"]) for v in (0.4, 0.6))
    return {"x": vd.Dirichlet(lo, hi), "y": "neumann"}


@pytest.mark.parametrize("node_centred", [(), ("x",), ("y",), ("y", "x")], ids=["cells", "x", "y", "both"])
@pytest.mark.parametrize("dims", [("y", "x"), ("x", "y")], ids="-".join)
def test_values_over_a_face(dims: tuple[str, ...], node_centred: tuple[str, ...]) -> None:
    u = 0.4 + 0.2 * x + 0.1 * vd.cos(pi * y) + 0.15 * vd.sin(pi * x) * vd.cos(2 * pi * y)
    study = rhs_order(
        CahnHilliard(eps=0.5), {"c": u}, dims=dims, boundary=values_over_faces, node_centred=node_centred,
        sizes=(32, 48, 64, 96),
    )  # fmt: skip
    assert study.order == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("node_centred", [(), ("x",), ("y", "z")], ids=["cells", "x", "yz"])
@pytest.mark.parametrize(
    "model",
    [CahnHilliard(eps=0.6), ReactionDiffusion(lambda c: 0.5 + c**2, source=lambda t, c, p: c * p.x - p.z**2)],
    ids=["cahn-hilliard", "diffusion"],
)
def test_ends_mix_in_three_dimensions(model: vd.Model, node_centred: tuple[str, ...]) -> None:
    u = 0.5 + 0.1 * vd.sin(pi * x / 2) * vd.cos(pi * y) * vd.cos(2 * pi * z + 0.4)
    boundary = {"x": (vd.Dirichlet(0.5), "neumann"), "y": "neumann"}
    study = rhs_order(
        model, {"c": u}, dims=("z", "y", "x"), boundary=boundary, node_centred=node_centred, sizes=(16, 24, 32, 48)
    )
    assert study.order == pytest.approx(2, abs=0.1)


#: Slow enough for explicit steppers on eight voxels, and far from steady.
IN_TIME: dict[str, tuple[vd.Model, Any, Any]] = {
    "cahn-hilliard": (CahnHilliard(eps=3.0), 0.5 + 0.3 * vd.exp(-t) * vd.sin(pi * x / 8), "periodic"),
    "diffusion-D(c)": (
        ReactionDiffusion(lambda c: 0.5 + c**2, source=lambda t, c, p: c * (1 - c) * vd.cos(t)),
        0.5 + 0.3 * vd.exp(-t) * vd.sin(pi * x / 8),
        "periodic",
    ),
    "values-in-time": (
        ReactionDiffusion(lambda c: 0.5 + c**2),
        0.4 + 0.2 * vd.sin(t) + 0.3 * x / 16 * vd.exp(-t) + 0.1 * vd.sin(pi * x / 16) * vd.cos(3 * t),
        vd.Dirichlet(lambda s: 0.4 + 0.2 * math.sin(s), lambda s: 0.4 + 0.2 * math.sin(s) + 0.3 * math.exp(-s)),
    ),
}


@pytest.mark.study
@pytest.mark.parametrize("stepper, order", [("euler", 1), ("rk4", 4), ("imex", 1)], ids=["euler", "rk4", "imex"])
@pytest.mark.parametrize(
    "case, node_centred",
    [("cahn-hilliard", ()), ("diffusion-D(c)", ()), ("values-in-time", ()), ("values-in-time", ("x",))],
    ids=["cahn-hilliard", "diffusion-D(c)", "values-in-time", "values-in-time-at-nodes"],
)
def test_solution_order_in_time(case: str, stepper: str, order: int, node_centred: tuple[str, ...]) -> None:
    model, u, boundary = IN_TIME[case]
    first = 0.2 if order == 4 else 0.05
    study = solution_order(
        model, {"c": u}, stepper, vary="dt", sizes=8, extent=16.0, boundary=boundary, node_centred=node_centred,
        t_end=0.4, dt=tuple(first / 2**k for k in range(4)),
    )  # fmt: skip
    assert study.order == pytest.approx(order, abs=0.1)
    assert study.errors[-1] > (1e-5 if order == 1 else 1e-11)


#: Functions for which ghosts of cells are not exact (u'' at a Dirichlet end, u''' or the slope of D at a Neumann end).
IN_SPACE: dict[str, tuple[vd.Model, dict[str, Any], Any]] = {
    "curved-at-dirichlet": (
        ReactionDiffusion(lambda c: 0.1 + 0.1 * c**2),
        {"c": 0.3 + 0.3 * x + 0.8 * x * (1 - x) * vd.cos(t)},
        vd.Dirichlet(0.3, 0.6),
    ),
    "skew-at-zero-flux": (
        ReactionDiffusion(0.1),
        {"c": 0.3 + 2 * (x**2 / 2 - x**3 / 3) * vd.exp(-t)},
        "neumann",
    ),
    "sloping-coefficient": (
        ReactionDiffusion(1.0),
        {"c": 0.5 + 0.3 * vd.cos(pi * x) * vd.exp(-t), "diffusivity": 0.1 * (1 + x)},
        "neumann",
    ),
    "cahn-hilliard": (CahnHilliard(eps=0.5, diffusivity=0.02), {"c": ENDS["dirichlet"][1]}, ENDS["dirichlet"][0]),
}


@pytest.mark.study
@pytest.mark.parametrize("node_centred", [(), ("x",)], ids=["cells", "nodes"])
@pytest.mark.parametrize("case", IN_SPACE)
def test_solution_order_in_space(case: str, node_centred: tuple[str, ...]) -> None:
    model, exact, boundary = IN_SPACE[case]
    study = solution_order(
        model, exact, "imex", boundary=boundary, node_centred=node_centred, t_end=0.5, dt=0.01,
        sizes=(24, 32, 48, 64),
    )  # fmt: skip
    assert study.order == pytest.approx(2, abs=0.1)


def sloping_faces(grid: vd.Grid) -> dict[str, Any]:
    def ends(dim: str) -> vd.Dirichlet:
        lo = xr.DataArray(0.3 + 0.2 * grid.coordinate(dim), dims=[dim])
        return vd.Dirichlet(lo, lo + 0.2)

    return {"x": ends("y"), "y": ends("x")}


@pytest.mark.parametrize(
    "node_centred",
    [
        pytest.param((), id="cells"),
        pytest.param(("x",), id="x"),
        pytest.param(("y", "x"), id="both"),
    ],
)
def test_sloping_values_that_meet_at_a_corner(node_centred: tuple[str, ...]) -> None:
    u = 0.3 + 0.2 * x + 0.2 * y + 0.15 * vd.sin(pi * x) * vd.sin(pi * y)
    study = solution_order(
        CahnHilliard(eps=0.5, diffusivity=0.001), {"c": u}, "imex", dims=("y", "x"), boundary=sloping_faces,
        node_centred=node_centred, t_end=0.5, dt=0.02, sizes=(12, 16, 24, 32),
    )  # fmt: skip
    assert study.order == pytest.approx(2, abs=0.1)


def test_a_study_holds_its_numbers_and_prints_them() -> None:
    study = OrderStudy("dt", (0.4, 0.2, 0.1, 0.05), (3.2, 0.4, 0.05, 0.00625))
    assert study.order == pytest.approx(3)
    assert study.orders == pytest.approx((3, 3, 3))
    assert str(study).splitlines()[-1] == "fitted order 3.00"
    assert study._repr_html_().count("<tr>") == 6


def test_what_is_wrong_shows() -> None:
    # the function slopes where the boundary says that it doesn't: off by slope / h at the wall
    u = ENDS["zero-flux"][1] + x
    assert rhs_order(ReactionDiffusion(1.0), {"c": u}, boundary="neumann").order == pytest.approx(-1, abs=0.1)
    # curved at a Dirichlet wall: ghosts of cells are off by h^2 there, the right-hand side by u''/4 at any h
    u = 0.3 + 0.3 * x + 0.4 * x * (1 - x)
    study = rhs_order(ReactionDiffusion(1.0), {"c": u}, boundary=vd.Dirichlet(0.3, 0.6))
    assert study.errors == pytest.approx([0.2] * 5)


def test_auxiliary_fields_come_from_expressions() -> None:
    @dataclasses.dataclass(frozen=True)
    class Masked(vd.Model):
        fields = ("c",)
        auxiliary = ("psi",)

        def rhs(self, t: Any, c: Any, psi: Any) -> Any:
            return vd.div(psi * vd.grad(c)) / psi

    known = {"c": lambda t, p: 0.5 + 0.2 * vd.sin(2 * pi * p.x), "psi": 1 + 0.5 * vd.cos(2 * pi * x)}
    assert rhs_order(Masked(), known).order == pytest.approx(2, abs=0.1)
    with pytest.raises(ValueError, match="exact has no entry for 'psi'"):
        rhs_order(Masked(), {"c": x})


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"sizes": (8, 16, 32)}, ValueError, "at least 4"),
        ({"sizes": (8, 8, 16, 32)}, ValueError, "at least 4"),
        ({"sizes": 16}, TypeError, "sizes is 16"),
        ({"sizes": (8, 16, 32, 2)}, ValueError, "whole numbers"),
        ({"exact": {"u": x}}, ValueError, "no entry for 'c'"),
        ({"exact": {"c": x, "D": x}}, ValueError, "exact holds 'D'"),
        ({"exact": {"c": y}}, ValueError, "uses the symbol 'y'"),
        ({"exact": {"c": sp.Symbol("x")}}, ValueError, "uses the symbol 'x'"),
        ({"exact": {"c": "x"}}, TypeError, "is a str"),
        ({"dims": ("w",)}, ValueError, "dims holds 'w'"),
        ({"exact": {"c": sp.Float(0.5)}}, ValueError, "no order to fit"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_rhs_order(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"exact": {"c": vd.sin(2 * pi * x)}, **options}
    with pytest.raises(error, match=message):
        rhs_order(ReactionDiffusion(1.0), given.pop("exact"), **given)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"vary": "x"}, ValueError, "vary is 'x'"),
        ({"reference": "best"}, ValueError, "reference is 'best'"),
        ({"reference": "finest"}, ValueError, "with vary='dt'"),
        ({"dt": (0.1, 0.2, 0.3, 0.4)}, TypeError, "give one number"),
        ({"vary": "dt"}, TypeError, "sequence of steps"),
        ({"vary": "dt", "dt": (0.1, 0.05)}, ValueError, "at least 4"),
        ({"vary": "dt", "dt": (0.2, 0.1, 0.05, 0.025)}, TypeError, "one number of voxels"),
        ({"vary": "dt", "dt": (0.3, 0.2, 0.1, 0.05), "sizes": 8}, ValueError, "whole number of steps of dt=0.3"),
        ({"exact": {"c": x, "diffusivity": 1 + t}}, ValueError, "changes in time"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_solution_order(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"exact": {"c": vd.sin(2 * pi * x)}, "t_end": 1.0, "dt": 0.1, **options}
    with pytest.raises(error, match=message):
        solution_order(ReactionDiffusion(1.0), given.pop("exact"), "imex", **given)


@pytest.mark.parametrize("sign", [1, -1], ids=["the same sign", "opposite signs"])
def test_an_error_surface_finds_both_orders(sign: int) -> None:
    """Of an error 3 h^2 +- 0.5 dt^4; shares of opposite signs cancel along a line."""
    h, dt = (0.4, 0.3, 0.2, 0.15), (0.8, 0.6, 0.4, 0.3)
    surface = ErrorSurface(h, dt, tuple(tuple(abs(3 * a**2 + sign * 0.5 * b**4) for b in dt) for a in h))
    assert surface.space_order == pytest.approx(2, abs=0.01)
    assert surface.time_order == pytest.approx(4, abs=0.01)
    assert str(surface).endswith("order 2.00 in space, 4.00 in time")


@pytest.mark.parametrize("stepper, order", [("imex", 1), ("sbdf2", 2)])
def test_error_surface_of_a_run(stepper: str, order: int) -> None:
    wave = 0.5 + 0.3 * vd.exp(-t) * vd.sin(2 * pi * x)
    surface = error_surface(ReactionDiffusion(0.1), {"c": wave}, stepper, t_end=1.0, dt=(0.1, 0.05, 0.025, 0.0125))
    assert surface.space_order == pytest.approx(2, abs=0.1)
    assert surface.time_order == pytest.approx(order, abs=0.1)
    axes = surface.plot().axes
    assert (axes[0].get_xscale(), axes[0].get_ylabel()) == ("log", "grid spacing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ErrorSurface((1, 2, 3), (1, 2, 3, 4), ()), "spacings is .* at least 4"),
        (lambda: ErrorSurface((1, 2, 3, 4), (1, 2, 3, 4), ((1,) * 4,) * 3), r"errors are \(3, 4\), for 4 spacings"),
        (lambda: ErrorSurface((1, 2, 3, 4), (1, 2, 3, 4), ((0,) * 4,) * 4), "errors holds zeros"),
    ],
)
def test_an_error_surface_needs_numbers(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
