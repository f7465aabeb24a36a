"""Which of the targets for large runs are met on this machine?

Physics: spinodal decomposition, periodic, float32, `vd.models.CahnHilliard`, mostly by IMEX steps.
Cost: about an hour on two cores, 16 GB of memory and 50 GB of disk at the default size, most of it for the
1024^3 voxels and the long runs; `--size 64` shows in a few minutes that all of it works.
Command: `python benchmarks/scale.py --peer-python PATH --folder DISK --output scale.json`, for some parts
`python benchmarks/scale.py --only block spilled`.

| part | question |
|---|---|
| block | What does a step cost as a block (with MKL, too), chunked, on two processes, beside transforms and the peer? |
| spilled | What do 512^3 and 1024^3 voxels under 1 GB cost, beside the disk alone and a block? How much memory? |
| explicit | What do RK4 and RKC2 cost there, several evaluations in a sweep? |
| beyond | What do grids cost whose runs take more than the memory that there is? Not by default: 100 GB of disk. |
| growth | Does a voxel cost more where there are more of them? |
| long | Do 10,000 steps take ever more memory, time, or tasks? |
| plan | Does `vd.plan` foresee time and bytes? |
| scaling | What do two threads or processes gain? |

Every run is in a process of its own, one after the other, all children of this one; figures are medians over rounds in
which competitors take turns. `--size` is what stands for 256: all sizes and limits follow it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import probes
from figures import Figure, summary
from probes import apart, threads

#: Least limit under which a spilled run is asked for: what does not grow with the grid takes most of it.
LEAST_LIMIT = 40_000_000
#: Steps of a spilled run, and of the block beside it: the first lay out files, the last one settles the state.
SPILLED_STEPS = 9


def block(options: argparse.Namespace) -> Iterator[Figure]:
    """Tiers that hold the field, beside the bare transforms and the peer."""
    n, asked = options.size, (options.size, options.rounds, options.steps)
    alone, beside = apart(probes.in_memory, *asked), apart(probes.beside_processes, *asked)
    for name, each in {"block beside processes": beside["block"], **beside, **alone}.items():
        yield Figure("block", f"{name}, {n}^3", statistics.median(each), "ns")
    for name, under, found, most in (
        ("block", "pair", alone, 1.1), ("chunked", "block", alone, 1.25), ("distributed", "block", beside, 2.0)
    ):  # fmt: skip
        yield Figure("block", f"{name} / {under}, {n}^3", ratio(found[name], found[under]), "x", most)
    sent = apart(probes.link, 8 * n**3, options.rounds) / 1e9
    yield Figure("block", f"from worker to worker, arrays of {8 * n**3 / 1e6:.0f} MB", sent, "GB/s")
    if compiled := peer(options, "compile"):
        yield Figure("block", f"peer compiled, {n}^3", compiled, "ns")
        for name, library in probes.BLOCKS.items():
            again = [*alone[name], apart(probes.block, (n,) * 3, options.rounds, options.steps, fft=library)]
            faster = compiled / statistics.median(again)
            yield Figure("block", f"times that the peer compiled takes, {name}, {n}^3", faster, "x", 3.5, least=True)


def spilled(options: argparse.Namespace) -> Iterator[Figure]:
    """Twice and four times the size under a limit."""
    eager = peer(options, "eager")
    if eager:
        yield Figure("spilled", f"peer eager, {options.size}^3", eager, "ns")
    limit = limit_of(options)
    for n in (2 * options.size, 4 * options.size):
        held = (n if probes.fits(n, frames=0) else n // 2, n, n)  # if not the cube, half of it: most lines are as long
        blocks, rounds = [], []
        for _ in range(options.rounds_large):
            blocks.append(apart(probes.block, held, 1, SPILLED_STEPS, folder=options.folder))
            rounds.append(apart(probes.spilled, n, SPILLED_STEPS, limit, options.folder))
        yield Figure("spilled", f"block, {held[0]} x {n}^2", statistics.median(blocks), "ns")
        name, ns = f"{n}^3 under {limit / 1e6:.0f} MB", statistics.median(r["ns"] for r in rounds)
        yield Figure("spilled", f"step, {name}", ns, "ns")
        yield Figure("spilled", f"the disk alone, {name}", statistics.median(r["bare_ns"] for r in rounds), "ns")
        floors = [max(r["bare_ns"], held_ns) for r, held_ns in zip(rounds, blocks, strict=True)]
        over = ratio([r["ns"] for r in rounds], floors)
        yield Figure("spilled", f"step / the larger of disk and block, {name}", over, "x", 1.5)
        if eager:
            yield Figure("spilled", f"step / peer eager at {options.size}^3, {name}", ns / eager, "x", 1.0)
        yield from memory("spilled", name, rounds, limit)


def memory(part: str, name: str, rounds: list[dict[str, float]], limit: int) -> Iterator[Figure]:
    """Peaks above the base, as the system and as a look 50 times a second have it."""
    for kind in ("resident", "anonymous"):
        yield Figure(part, f"peak {kind}, {name}", max(r[kind] for r in rounds) / 1e6, "MB", limit / 1e6)
    worst = max(max(r["resident"], r["anonymous"]) / r["projected"] for r in rounds)
    yield Figure(part, f"peak / projected, {name}", worst, "x", 1.0)


def explicit(options: argparse.Namespace) -> Iterator[Figure]:
    """Methods of several stages, several of them in a sweep."""
    n = 2 * options.size
    limit = limit_of(options)
    for stepper in ("rk4", "rkc2"):
        at = n if probes.fits(n, 4) else options.size
        beside, runs = [], []
        for _ in range(options.rounds_large):
            beside.append(apart(probes.block, (at,) * 3, 1, SPILLED_STEPS, stepper))
            runs.append(apart(probes.spilled, n, SPILLED_STEPS, limit, options.folder, stepper))
        name = f"{stepper}, {n}^3 under {limit / 1e6:.0f} MB"
        where = f"{at}^3" if at == n else f"{at}^3, as {n}^3 does not fit"
        yield Figure("explicit", f"block, {stepper}, {where}", statistics.median(beside), "ns")
        yield Figure("explicit", f"step, {name}", statistics.median(r["ns"] for r in runs), "ns")
        yield Figure("explicit", f"evaluations in a sweep, {name}", runs[0]["depth"])
        yield Figure("explicit", f"step / block, {name}", ratio([r["ns"] for r in runs], beside), "x", 1.3)
        yield from memory("explicit", name, runs, limit)


def beyond(options: argparse.Namespace) -> Iterator[Figure]:
    """Four and six times the size under limits that a machine may have."""
    for times, share in ((4, 4), (4, 8), (6, 8)):
        n, limit = times * options.size, limit_of(options, share)
        found = apart(probes.spilled, n, SPILLED_STEPS, limit, options.folder)
        name = f"{n}^3 under {limit / 1e6:.0f} MB"
        yield Figure("beyond", f"step, {name}", found["ns"], "ns")
        yield Figure("beyond", f"the disk alone, {name}", found["bare_ns"], "ns")
        yield Figure("beyond", f"foreseen / measured time, {name}", found["foreseen_ns"] / found["ns"], "x")
        yield from memory("beyond", name, [found], limit)


def growth(options: argparse.Namespace) -> Iterator[Figure]:
    """The cost of a voxel as there are more of them, tier by tier."""
    sizes = [options.size // 2, options.size, 2 * options.size, 4 * options.size]

    def run(tier: str, n: int) -> float:
        rounds = options.rounds if n <= options.size else options.rounds_large
        if tier == "spilled":
            limit = limit_of(options, (n / sizes[-1]) ** 3)
            runs = (apart(probes.spilled, n, SPILLED_STEPS, limit, options.folder) for _ in range(rounds))
            return statistics.median(found["ns"] for found in runs)
        return apart(probes.block, (n,) * 3, rounds, 3, chunked=tier == "chunked")

    for tier, copies in (("block", 1), ("chunked", 4), ("spilled", 0)):
        each = {n: run(tier, n) for n in sizes if tier == "spilled" or probes.fits(n, copies)}
        for n, ns in each.items():
            yield Figure("growth", f"{tier}, {n}^3", ns, "ns")
        largest = max(each.values()) / each[sizes[0]]
        yield Figure("growth", f"{tier}, the dearest of {', '.join(map(str, each))} / {sizes[0]}", largest, "x", 1.3)


def long(options: argparse.Namespace) -> Iterator[Figure]:
    """Many steps of a small run."""
    n = max(options.size // 8, 8)
    for name, workers in (("threads", 0), ("processes", 2)):
        found = apart(probes.long, n, options.long_steps, workers)
        seconds, resident, tasks = found["seconds"], found["resident"], found["tasks"]
        what = f"{options.long_steps} steps of {n}^3 on {name}"
        for at in (0, 4, 9):
            yield Figure("long", f"resident at {10 * (at + 1)} %, {what}", resident[at] / 1e6, "MB")
        yield Figure("long", f"resident, 100 % / 10 %, {what}", resident[-1] / resident[0], "x", 1.05)
        yield Figure("long", f"resident, 100 % / 50 %, {what}", resident[-1] / resident[4], "x")
        yield Figure("long", f"a step, first tenth, {what}", seconds[0] / (options.long_steps // 10) * 1e3, "ms")
        yield Figure("long", f"time, last tenth / first, {what}", seconds[-1] / seconds[0], "x", 1.1)
        if workers:
            yield Figure("long", f"most tasks that the scheduler held, {what}", max(tasks))
            yield Figure("long", f"tasks, second half / first, {what}", max(tasks[5:]) / max(tasks[:5]), "x", 1.2)


def plan(options: argparse.Namespace) -> Iterator[Figure]:
    """Time within 30 %, bytes never exceeded."""
    limit = limit_of(options, 1 / 4)
    for tier in ("block", "chunked", "spilled"):
        n = 2 * options.size if tier == "spilled" else options.size
        for stepper in ("imex", "rk4"):
            runs = [
                apart(probes.foreseen, n, 4, tier, limit, options.folder, stepper) for _ in range(options.rounds_large)
            ]
            yield Figure("plan", f"step, {tier}, {stepper}, {n}^3", statistics.median(r["ns"] for r in runs), "ns")
            off = statistics.median(r["foreseen_ns"] / r["ns"] for r in runs)
            yield Figure("plan", f"foreseen / measured time, {tier}, {stepper}, {n}^3", off, "x")
            yield Figure("plan", f"off by, {tier}, {stepper}, {n}^3", abs(off - 1), "x", 0.3)
            worst = max(r["bytes"] / r["foreseen_bytes"] for r in runs)
            yield Figure("plan", f"measured / foreseen bytes, {tier}, {stepper}, {n}^3", worst, "x", 1.0)


def scaling(options: argparse.Namespace) -> Iterator[Figure]:
    """One and two threads, one and two processes: the same grid, and one that grows with them."""
    n, most = options.size, threads()
    run: dict[str, Callable[[tuple[int, ...], int], float]] = {
        "block": lambda shape, k: apart(probes.block, shape, options.rounds, options.steps, cores=k),
        "chunked": lambda shape, k: apart(probes.block, shape, options.rounds, options.steps, chunked=True, cores=k),
        "processes": lambda shape, k: apart(probes.distributed, shape, options.rounds, options.steps, k),
    }
    for name, each in run.items():
        one, half, all_of_them = each((n, n, n), 1), each((n // most, n, n), 1), each((n, n, n), most)
        yield Figure("scaling", f"{name}, 1 of them, {n}^3", one, "ns")
        yield Figure("scaling", f"{name}, {most} of them, {n}^3", all_of_them, "ns")
        yield Figure("scaling", f"{name}, strong: efficiency of {most}, {n}^3", one / (most * all_of_them))
        yield Figure("scaling", f"{name}, weak: efficiency of {most}, {n}^3", half / (most * all_of_them))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Figure]]] = {
    part.__name__: part for part in (block, spilled, explicit, beyond, growth, long, plan, scaling)
}
#: Parts that are run if none is asked for.
DEFAULT = [name for name in PARTS if name != "beyond"]


def ratio(above: list[float], below: list[float]) -> float:
    """The median of ratios, round by round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def limit_of(options: argparse.Namespace, share: float = 1.0) -> int:
    """1 GB at the default size, and for others what is as tight."""
    return max(int(1e9 * share * (options.size / 256) ** 3), LEAST_LIMIT)


def peer(options: argparse.Namespace, mode: str) -> float:
    """Nanoseconds per voxel of a step of the peer, in a process of its own; 0 without one."""
    if not options.peer_python:
        return 0.0
    script = Path(__file__).with_name("peer_evoxels.py")
    arguments = ["time", "--size", str(options.size), "--steps", str(options.steps), "--mode", mode, "--json"]
    command = [options.peer_python, str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1])["ns_per_voxel"])


def main(argv: list[str] | None = None) -> list[Figure]:
    """Run the parts that are asked for; print a table as it grows, write JSON."""
    question, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=question, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=DEFAULT, help="default: all but beyond")
    parser.add_argument("--size", type=int, default=256, help="voxels along an axis that stand for 256")
    parser.add_argument("--rounds", type=int, default=5, help="of runs up to that size")
    parser.add_argument("--rounds-large", type=int, default=2, help="of larger ones")
    parser.add_argument("--steps", type=int, default=6, help="of runs up to that size")
    parser.add_argument("--long-steps", type=int, default=10_000, help="of the long runs")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the disk to spill to")
    parser.add_argument("--peer-python", help="a Python that has evoxels and torch")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    found: list[Figure] = []
    for name in options.only:
        for figure in PARTS[name](options):
            found.append(figure)
            print(figure, flush=True)
    print(f"\n{summary(found)}")
    if options.output:
        about = {"machine": platform.machine(), "threads": threads(), "size": options.size, "limit": limit_of(options)}
        libraries = {name: version(name) for name in ("voxdask", "numpy", "scipy", "numba", "dask")}
        rows = [figure.as_json() for figure in found]
        options.output.write_text(json.dumps({**about, **libraries, "rows": rows}, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
