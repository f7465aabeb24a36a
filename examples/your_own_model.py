"""What does it take to simulate an equation of one's own?

Ten lines: a dataclass with its parameters, the names of its fields, and the right-hand side in the notation of vector
calculus. `Bistable` below is all of it; kernels for any boundary and any number of axes, the stiff part of
semi-implicit steps, tangent, adjoint and LaTeX are derived from it.

Physics: u is at rest in two states, 0 and 1, and unstable between them at a (Nagumo),

    du/dt = D lap(u) + r u (1 - u) (u - a).

A flat front (1 + tanh(x / w)) / 2, with w = sqrt(8 D / r), moves at V = sqrt(D r / 2) (1 - 2 a). A round one of
radius R moves at V - D / R, so that a disc smaller than D / V shrinks, though u = 1 wins.

Answer: in one dimension the front moves at 0.2821 for D = r = 1, a = 0.3 and voxels of 0.5; exact is 0.2828. In two,
discs of radius 2 and 3 shrink and vanish, those of 5 and 8 grow: the critical radius is 3.5.

Cost: two runs of a few seconds on two cores, compilation included, and 200 MB.

    python examples/your_own_model.py
    python examples/your_own_model.py --threshold 0.2
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import voxdask as vd


@dataclass(frozen=True)
class Bistable(vd.Model):
    """Two states at rest, and fronts between them."""

    diffusivity: float = 1.0
    rate: float = 1.0
    threshold: float = 0.3
    fields = ("u",)

    def rhs(self, t: Any, u: Any) -> Any:
        """Diffusion, and the way to 0 or 1."""
        return self.diffusivity * vd.laplace(u) + self.rate * u * (1 - u) * (u - self.threshold)


H, SQUARE, RADII = 0.5, 96, (2.0, 3.0, 5.0, 8.0)


def main(argv: Sequence[str] | None = None) -> tuple[float, xr.Dataset]:
    """Run the example as from the command line; return the speed over that of theory, and the frames of the discs."""
    args = parse(argv)
    model = Bistable(threshold=args.threshold)
    exact = math.sqrt(model.diffusivity * model.rate / 2) * (1 - 2 * model.threshold)
    measured = front_speed(model)
    print(f"\nspeed of a flat front {measured:.5f}, in theory {exact:.5f}: ratio {measured / exact:.5f}")
    discs = vd.simulate(model, start_of_discs(), dt=0.08, t_end=24.0, save_every=150, stepper="rk4")
    print(f"\n{discs.vd.report}\n\ncritical radius {model.diffusivity / exact:.2f}")
    areas = (discs.u * H**2).sum("y").groupby_bins("x", [H * SQUARE * k for k in range(len(RADII) + 1)]).sum()
    for radius, area in zip(RADII, areas.isel(time=-1).values, strict=True):
        print(f"a disc of radius {radius:4g} has now the radius {math.sqrt(max(area, 0.0) / math.pi):5.2f}")
    draw(discs).savefig(args.output / "bistable.png")
    print(args.output / "bistable.png")
    return measured / exact, discs


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--threshold", type=float, default=0.3, help="a, between 0 and 0.45 (default: 0.3)")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for bistable.png (default: .)")
    args = parser.parse_args(argv)
    if not 0 <= args.threshold <= 0.45:
        parser.error(f"--threshold is {args.threshold}; it must lie in [0, 0.45], so that u = 1 wins")
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def front_speed(model: Bistable) -> float:
    """How fast the part of a line where u = 1 gets longer."""
    x = H * (np.arange(400) + 0.5)
    front = (1 - np.tanh((x - 50) / math.sqrt(8 * model.diffusivity / model.rate))) / 2
    line = vd.dataset({"u": front}, spacing=H)
    run = vd.simulate(model, line, dt=0.08, t_end=160.0, save_every=1000, stepper="rk4", boundary="neumann")
    length = (run.u * H).sum("x").values
    return float((length[2] - length[1]) / 80.0)


def start_of_discs() -> xr.Dataset:
    """Discs side by side, each in a square of its own, with the profile of a front."""
    place = H * (np.arange(SQUARE) + 0.5 - SQUARE / 2)
    r = np.hypot(place[:, None], place[None, :])
    squares = [(1 - np.tanh((r - radius) / math.sqrt(8))) / 2 for radius in RADII]
    return vd.dataset({"u": np.concatenate(squares, axis=1)}, spacing=H)


def draw(discs: xr.Dataset) -> Figure:
    """The start and two later frames, one above the other."""
    figure = Figure(figsize=(9, 6.6), dpi=110, layout="constrained")
    panels = figure.subplots(3, 1)
    for ax, i in zip(panels, range(3), strict=True):
        frame = discs.u.isel(time=i)
        extent = (0, H * frame.sizes["x"], 0, H * frame.sizes["y"])
        drawn = ax.imshow(frame.values, cmap="YlGnBu", vmin=0.0, vmax=1.0, origin="lower", extent=extent)
        ax.set_title(f"t = {float(frame.time):g}", fontsize="medium")
        ax.set_xticks([H * SQUARE * (k + 0.5) for k in range(len(RADII))], [f"R = {radius:g}" for radius in RADII])
        ax.set_yticks([])
    figure.colorbar(drawn, ax=panels, label="u", shrink=0.6)
    return figure


if __name__ == "__main__":
    main()
