"""What does taufactor say of an image, how soon, and how fast does it get there?

Command: ``python benchmarks/peer_taufactor.py IMAGE.npy ITERATIONS THREADS``, in any Python with taufactor and PyTorch.
The image holds 1 where it conducts; the flow goes along the first axis. Prints JSON: at every check of convergence the
iteration, the tortuosity factor and the seconds since the solver was made, whether it took itself for converged, and
the peak resident bytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import taufactor
import torch


def main(path: str, iterations: int, threads: int) -> None:
    """Solve, and note how it goes."""
    torch.set_num_threads(threads)
    image = np.load(path)
    began = time.perf_counter()
    solver = taufactor.Solver(image, device="cpu")
    history: list[tuple[int, float, float]] = []
    check = solver.check_convergence

    def noted(*args: Any, **options: Any) -> Any:
        done = check(*args, **options)
        history.append((int(solver.iter), float(np.ravel(solver.tau)[0]), time.perf_counter() - began))
        return done

    solver.check_convergence = noted
    solver.solve(iter_limit=iterations, verbose=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"history": history, "converged": bool(solver.converged), "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
