"""How fast does a phase-separated mixture coarsen?

Physics: Cahn-Hilliard with constant mobility in two dimensions, equal shares of both phases, periodic. Diffusion
through the phases from strongly to weakly curved interfaces makes the domains grow with the cube root of time
(Lifshitz and Slyozov 1961, doi:10.1016/0022-3697(61)90054-3; Huse 1986, doi:10.1103/PhysRevB.34.7845). Their size is
L = 2 pi <1 / k>, the mean wavelength of the structure factor S(k). (The mean of k itself depends on the width of the
interfaces: S falls as k^-3 in two dimensions, and that mean grows with the logarithm of where it is cut off.)
Cost: about one minute on two cores at the default size, 0.5 GB of memory.
Command: ``python benchmarks/coarsening.py``

Prints a table, and JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import xarray as xr

import voxdask as vd

EPS = 3.0


def domain_size(c: np.ndarray, spacing: float = 1.0) -> float:
    """The mean wavelength of the structure factor of a field.

    Examples
    --------
    >>> x = np.arange(32)
    >>> round(domain_size(np.cos(2 * np.pi * x / 8) + 0 * x[:, None]), 9)
    8.0
    """
    power = np.abs(np.fft.rfft2(c - c.mean())) ** 2
    power[:, 1 : (c.shape[1] + 1) // 2] *= 2  # the half that a real transform leaves out
    k_y, k_x = (2 * np.pi * f(n, spacing) for f, n in zip((np.fft.fftfreq, np.fft.rfftfreq), c.shape, strict=True))
    k = np.hypot(k_y[:, None], k_x)
    k[0, 0] = np.inf  # the mean, which is no wave
    return float(2 * np.pi * (power / k).sum() / power.sum())


def coarsen(size: int, t_end: float, dt: float, seed: int, frames: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Times, evenly spaced in their logarithm, and the size of the domains then."""
    noise = np.random.default_rng(seed).uniform(-0.05, 0.05, (size, size)).astype(np.float32)
    ds = vd.dataset({"c": np.float32(0.5) + noise - noise.mean()}, spacing=1.0)
    steps = np.unique(np.round(np.geomspace(50 / dt, t_end / dt, frames)))
    run: xr.Dataset = vd.simulate(
        vd.models.CahnHilliard(EPS, mobility="constant"), ds, dt=dt, t_end=float(steps[-1] * dt),
        save_at=(steps * dt).tolist(), progress=False,
    )  # fmt: skip
    saved = run.sel(time=run.time > 0)
    return saved.time.values, np.array([domain_size(frame.values) for frame in saved.c])


def exponent(times: np.ndarray, sizes: np.ndarray, begin: float) -> float:
    """Slope of log L over log t from a time on, by least squares."""
    late = times >= begin
    return float(np.polyfit(np.log(times[late]), np.log(sizes[late]), 1)[0])


def exponent_with_offset(times: np.ndarray, sizes: np.ndarray, begin: float) -> float:
    """The exponent n for which L^(1/n) is most nearly a straight line in t from a time on."""
    late = times >= begin

    def bend(n: float) -> float:
        power = sizes[late] ** (1 / n)
        fit = np.polyval(np.polyfit(times[late], power, 1), times[late])
        return float(np.abs(fit**n / sizes[late] - 1).max()) if (fit > 0).all() else np.inf

    trials = np.linspace(0.2, 0.5, 301)
    return float(trials[np.argmin([bend(n) for n in trials])])


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run what is asked for, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels along an axis")
    parser.add_argument("--t-end", type=float, default=4000.0)
    parser.add_argument("--dt", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3, help="runs to take the mean of")
    parser.add_argument("--begin", type=float, default=400.0, help="time from which exponents are fitted")
    options = parser.parse_args(argv)
    runs = [coarsen(options.size, options.t_end, options.dt, seed) for seed in range(options.seeds)]
    times, sizes = runs[0][0], np.mean([found for _, found in runs], axis=0)
    print(f"{'t':>8} {'L':>8} {'L^3/t':>8}")
    for t, length in zip(times, sizes, strict=True):
        print(f"{t:8.0f} {length:8.2f} {length**3 / t:8.2f}")
    results = {
        "size": options.size,
        "seeds": options.seeds,
        "times": times.tolist(),
        "lengths": sizes.tolist(),
        "exponent": exponent(times, sizes, options.begin),
        "exponent_with_offset": exponent_with_offset(times, sizes, options.begin),
        "expected": 1 / 3,
    }
    print(f"exponent {results['exponent']:.3f}, with an offset {results['exponent_with_offset']:.3f}, expected 0.333")
    print(json.dumps(results))
    return results


if __name__ == "__main__":
    main()
