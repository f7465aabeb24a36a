"""How long would a step take on machines that are not here, and how much memory?

Physics: an IMEX step of Cahn-Hilliard, float32, periodic; [docs/scaling.md](../docs/scaling.md) has the formulas.
Cost: a second. Command: `python benchmarks/scaling_model.py`, beside measured points
`python benchmarks/scaling_model.py --measured scale.json` with what `scale.py` wrote.

Nothing here runs on the machines of the table: their rates are assumptions, from data sheets, stated as such.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

#: Bytes of a value; ghost layers; share of the transforms in a step of 256^3 voxels.
VALUE, HALO, TRANSFORMS = 4, 2, 0.75
#: Rows of the field that a spilled run needs memory for at the least: what `vd.plan` says at 4096^3.
LEAST_ROWS = 55
#: Share of a machine's memory that runs are planned for.
PLANNED = 0.8
#: Seconds of the scheduler for a task, which no number of workers shortens: a round number of Dask's documentation.
TASK = 1e-3


@dataclass(frozen=True)
class Machine:
    """Rates of a machine.

    Attributes
    ----------
    name : str
    workers : int
        Processes or GPUs, each with one slab.
    ns : float
        Nanoseconds that one worker takes for a voxel and step at 256^3.
    network, disk : float
        Bytes in a second that a worker sends while it receives as many; that the disk of one takes or gives.
    memory : float
        Bytes of one worker.
    """

    name: str
    workers: int
    ns: float
    network: float = math.inf
    disk: float = 0.0
    memory: float = math.inf


MACHINES = (
    Machine("workstation: 16 cores, 64 GB, NVMe", 1, 1.5, disk=5e9, memory=64e9),
    Machine("16 nodes: 32 cores, 256 GB, 100 Gbit/s", 16, 0.8, network=5e9, memory=256e9),
    Machine("8 GPUs in a node: 80 GB, NVLink", 8, 0.1, network=100e9, memory=80e9),
    Machine("64 GPUs: 80 GB, 400 Gbit/s", 64, 0.1, network=25e9, memory=80e9),
)


@dataclass(frozen=True)
class Step:
    """What a step takes: seconds of each kind, bytes that are moved, and bytes of memory of a worker."""

    how: str
    arithmetic: float
    moving: float
    scheduling: float
    moved: float
    memory: float

    @property
    def seconds(self) -> float:
        """Files are read and written beside arithmetic; what is sent is waited for."""
        if self.how == "spilled":
            return max(self.arithmetic, self.moving)
        return self.arithmetic + self.moving + self.scheduling


def arithmetic(n: int, machine: Machine) -> float:
    """Seconds of arithmetic: that of the transforms grows like the logarithm of the voxels."""
    return n**3 * machine.ns * 1e-9 * (1 + TRANSFORMS * (math.log2(n**3) / 24 - 1)) / machine.workers


def block(n: int, machine: Machine) -> Step:
    """The state with ghost layers and its spectrum, in memory."""
    held = n**3 * VALUE * ((1 + 2 * HALO / n) ** 3 + 1 + 2 / n)
    return Step("block", arithmetic(n, machine), 0.0, 0.0, 0.0, held)


def chunked(n: int, machine: Machine) -> Step:
    """Three states and four spectra in memory, as slabs and as pencils; the spectrum changes places twice."""
    slabs = machine.workers
    spectrum = n**2 * (n + 2) * VALUE
    moved = 2 * spectrum * (1 - 1 / slabs) + 2 * HALO * slabs * n**2 * VALUE
    held = (3 * n**3 * VALUE + 4 * spectrum) / slabs
    tasks = 4 * slabs + 2 * slabs**2
    return Step("chunked", arithmetic(n, machine), moved / (slabs * machine.network), tasks * TASK, moved, held)


def spilled(n: int, machine: Machine) -> Step:
    """The state is read and written once; the spectrum twice, but for what stays in the memory that is left."""
    held, spectrum = LEAST_ROWS * (n + 2 * HALO) ** 2 * VALUE, n**2 * (n + 2) * VALUE
    resident = min(max(PLANNED * machine.memory - held, 0), spectrum)
    moved = 2 * n * (n + 2 * HALO) ** 2 * VALUE + 4 * (spectrum - resident)
    held += resident
    return Step("spilled", arithmetic(n, machine), moved / machine.disk, 0.0, moved, held)


def step(n: int, machine: Machine) -> Step | None:
    """What a step takes where it fits; None where it does not."""
    ways = [chunked(n, machine)] if machine.workers > 1 else [block(n, machine)]
    if machine.disk:
        ways.append(spilled(n, machine))
    return next((way for way in ways if way.memory <= PLANNED * machine.memory), None)


def table() -> Iterator[str]:
    """Every machine, every size, as Markdown."""
    yield "| machine | voxels | how | memory of a worker | moved in a step | arithmetic | moving | tasks | a step |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for machine in MACHINES:
        for n in (512, 1024, 2048, 4096):
            made = step(n, machine)
            if made is None:
                yield f"| {machine.name} | {n}³ | does not fit | | | | | | |"
                continue
            spent = " | ".join(_short(s) for s in (made.arithmetic, made.moving, made.scheduling, made.seconds))
            sizes = f"{made.memory / 1e9:.2g} GB | {made.moved / 1e9:.0f} GB"
            yield f"| {machine.name} | {n}³ | {made.how} | {sizes} | {spent} |"


def _short(seconds: float) -> str:
    return "" if not seconds else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def check(measured: Path) -> Iterator[str]:
    """The model with rates that were measured at the smallest size, beside what was measured at others."""
    found = json.loads(measured.read_text(encoding="utf-8"))
    size, rows = found["size"], {row["what"]: row["value"] for row in found["rows"]}
    network = next((1e9 * rate for what, rate in rows.items() if what.startswith("from worker to worker")), math.inf)
    alone = rows[f"block, {size}^3"]
    here = Machine("here", 1, alone / (1 + TRANSFORMS * (math.log2(size**3) / 24 - 1)))
    # two processes of a thread each, beside a block of all threads in the same minutes
    slower = found["threads"] * rows.get(f"block beside processes, {size}^3", alone) / alone
    processes = replace(here, workers=2, ns=slower * here.ns, network=network)
    yield "| point | measured, ns | model, ns | model / measured |"
    yield "|---|---|---|---|"
    for n in (size // 2, size, 2 * size, 4 * size):
        foreseen = {f"block, {n}^3": block(n, here), f"distributed, {n}^3": chunked(n, processes)}
        for name in rows:
            if name.startswith(f"the disk alone, {n}^3"):
                limited = replace(here, disk=1.0, memory=found["limit"] / PLANNED)
                disk = replace(limited, disk=spilled(n, limited).moved / (rows[name] * n**3 * 1e-9))
                foreseen[name.replace("the disk alone", "step")] = spilled(n, disk)
        for name, made in foreseen.items():
            if name in rows:
                model = made.seconds / n**3 * 1e9
                yield f"| {name} | {rows[name]:.1f} | {model:.1f} | {model / rows[name]:.2f} |"


def main(argv: list[str] | None = None) -> None:
    """Print the table, and how the model does on measured points."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", type=Path, help="JSON of scale.py")
    options = parser.parse_args(argv)
    print("\n".join(table()))
    if options.measured:
        print("\n" + "\n".join(check(options.measured)))


if __name__ == "__main__":
    main()
