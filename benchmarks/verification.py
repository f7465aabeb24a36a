"""Which order does each model have in space, and each stepper in time? Writes docs/verification.md.

Physics: manufactured solutions; the exact rate of change is derived from the same equation as the stencils.
Cost: about five minutes on two cores, most of it to compile; little memory.
Command: ``python benchmarks/verification.py docs/verification.md``

Right-hand sides are compared in the maximum norm, ends included, on 48 to 128 voxels along one axis, and in three
dimensions on 12 to 32. Steppers are compared with a run of the same grid and a sixteenth of the smallest step. Prints
JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sympy as sp
from pages import replace_tables

import voxdask as vd
from voxdask.models import potentials
from voxdask.steppers import stepper_of
from voxdask.verify import rhs_order, solution_order

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_verify import ENDS

x, y, z, t, pi = vd.x, vd.y, vd.z, vd.t, sp.pi

#: What a second field adds to the first without leaving the boundary condition.
SECOND = {
    "periodic": vd.sin(2 * pi * x),
    "zero-flux": vd.cos(pi * x),
    "dirichlet": vd.sin(2 * pi * x),
    "flux": vd.cos(2 * pi * x),
    "dirichlet-flux": vd.sin(3 * pi * x / 2),
    "flux-dirichlet": vd.cos(3 * pi * x / 2),
}
#: Coefficients and indicators are mirrored at ends.
EVEN = 0.6 + 0.3 * vd.cos(2 * pi * x)


def one(u: Any, other: Any) -> dict[str, Any]:
    return {"c": u}


#: Model, and its known functions from two that meet the boundary condition.
MODELS: dict[str, tuple[vd.Model, Callable[[Any, Any], dict[str, Any]]]] = {
    "reaction-diffusion, D(c), f(t, c, x)": (
        vd.models.ReactionDiffusion(lambda c: 0.5 + c**2, lambda t, c, p: c * (1 - c) + t * p.x**2), one,
    ),
    "reaction-diffusion, D(x) D(c)": (
        vd.models.ReactionDiffusion((1.0, lambda c: 1 + c)), lambda u, v: {"c": u, "diffusivity_0": EVEN},
    ),
    "chemical diffusion, M(c) mu(c)": (
        vd.models.ChemicalDiffusion(lambda c: 0.2 + c, lambda c: vd.log(c) + c**2), one,
    ),
    "Gray-Scott": (vd.models.GrayScott(), lambda u, v: {"A": u, "B": u + 0.1 * v}),
    "Cahn-Hilliard, double well": (vd.models.CahnHilliard(0.5), one),
    "Cahn-Hilliard, regular solution": (
        vd.models.CahnHilliard(0.5, potential=potentials.RegularSolution(2.5), mobility="constant"), one,
    ),
    "Cahn-Hilliard, Legendre mu": (
        vd.models.CahnHilliard(0.5, potential=vd.models.legendre((0.0, 1.0, 0.3, -0.2))), one,
    ),
    "Allen-Cahn, full Laplacian": (
        vd.models.AllenCahn(0.5, curvature=1.0, form="full", force=0.2), lambda u, v: {"phi": u},
    ),
    "smoothed-boundary diffusion": (
        vd.models.SmoothedBoundaryDiffusion(0.7, lambda t, c, p: -c, flux=0.3), lambda u, v: {"c": u, "psi": EVEN},
    ),
    "smoothed-boundary Cahn-Hilliard": (
        vd.models.SmoothedBoundaryCahnHilliard(0.5, flux=0.1), lambda u, v: {"c": u, "psi": EVEN},
    ),
}  # fmt: skip

#: In more than one dimension, where the direction of the interface matters.
OBLIQUE = 0.5 + 0.2 * vd.sin(2 * pi * x + 0.3) * vd.cos(2 * pi * y) + 0.15 * vd.sin(2 * pi * (x + y + z))
#: A bent front whose gradient vanishes nowhere: there a normal is not smooth.
FRONT = 0.3 + 0.4 * x + 0.02 * vd.sin(pi * x) * vd.cos(2 * pi * y) * vd.cos(2 * pi * z)
FORMS = {f"Allen-Cahn, {form}": vd.models.AllenCahn(0.5, curvature=0.3, form=form) for form in ("normal", "curvature")}

STEPS = {"euler": (100, 140, 200, 280), "rk4": (40, 56, 80, 112), "etdrk4": (20, 28, 40, 56)}
STEPPERS = ("euler", "rk4", "rkc1", "rkc2", "imex", "sbdf2", "etd1", "etdrk4")


def in_space(found: list[dict[str, Any]]) -> list[str]:
    lines = [f"| model | {' | '.join(ENDS)} |", "|---|" + "---|" * len(ENDS)]
    for name, (model, known) in MODELS.items():
        cells = []
        for ends, (boundary, u) in ENDS.items():
            orders = []
            for nodes in ((), ("x",)):
                exact = known(u, SECOND[ends])
                study = rhs_order(
                    model, exact, boundary=boundary, node_centred=nodes, sizes=(48, 64, 96, 128), time=0.4
                )
                orders.append(study.order)
                found.append({"model": name, "ends": ends, "nodes": bool(nodes), "order": study.order})
            cells.append(" / ".join(f"{order:.2f}" for order in orders))
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def in_three_dimensions(found: list[dict[str, Any]]) -> list[str]:
    lines = ["| model | orders |", "|---|---|"]
    cases: dict[str, tuple[vd.Model, dict[str, Any], Any]] = {
        "Cahn-Hilliard": (vd.models.CahnHilliard(0.6), {"c": OBLIQUE}, "periodic"),
        "smoothed-boundary diffusion": (
            vd.models.SmoothedBoundaryDiffusion(0.7, flux=0.3),
            {"c": OBLIQUE, "psi": 0.6 + 0.3 * vd.cos(2 * pi * x) * vd.cos(2 * pi * y)},
            "periodic",
        ),
        **{name: (model, {"phi": FRONT}, {"x": vd.Dirichlet(0.3, 0.7)}) for name, model in FORMS.items()},
    }
    for name, (model, exact, boundary) in cases.items():
        study = rhs_order(model, exact, dims=("z", "y", "x"), sizes=(24, 32, 40, 48), boundary=boundary)
        found.append({"model": name, "dims": 3, "order": study.order})
        lines.append(f"| {name} | {study.order:.2f} |")
        print(lines[-1], flush=True)
    return lines


def in_time(found: list[dict[str, Any]]) -> list[str]:
    model = vd.models.ReactionDiffusion(0.05, lambda t, c, p: 3 * c * (1 - c))
    waves = {"periodic": vd.sin(2 * pi * x), "neumann": vd.cos(pi * x), "dirichlet": vd.sin(pi * x)}
    lines = [f"| stepper | {' | '.join(waves)} |", "|---|" + "---|" * len(waves)]
    for name in STEPPERS:
        cells = []
        for boundary, wave in waves.items():
            base = 0.0 if boundary == "dirichlet" else 0.5 + 0.1 * vd.sin(t)
            steps = STEPS.get(name, (40, 56, 80, 112))
            study = solution_order(
                model, {"c": base + 0.3 * vd.cos(3 * t) * wave}, name, t_end=1.0, dt=[1 / n for n in steps],
                vary="dt", sizes=12, boundary=boundary,
            )  # fmt: skip
            found.append({"stepper": name, "boundary": boundary, "order": study.order})
            cells.append(f"{study.order:.2f}")
        lines.append(f"| {name} (order {stepper_of(name).order}) | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, write the page, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the page whose tables are replaced")
    args = parser.parse_args(argv)
    results: dict[str, list[dict[str, Any]]] = {"space": [], "volume": [], "time": []}
    tables = {
        "space": in_space(results["space"]),
        "volume": in_three_dimensions(results["volume"]),
        "time": in_time(results["time"]),
    }
    replace_tables(args.page, tables)
    print(json.dumps(results))
    return results


if __name__ == "__main__":
    main()
