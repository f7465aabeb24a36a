"""The cluster that is at hand, if any, and how much memory may be taken there and here."""

from __future__ import annotations

from typing import Any

import distributed
import psutil

#: The share of a worker's memory that may be taken: beyond it, workers begin to write to disk.
WORKER_SHARE = 0.6


def active_client() -> Any:
    """The active distributed client, if any."""
    try:
        return distributed.get_client()
    except ValueError:
        return None


def within_task() -> bool:
    """Whether this is called from a task of a cluster, which holds one of the threads that it might wait for."""
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def cluster_memory(client: Any) -> int:
    """Most of what the workers may take."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return int(WORKER_SHARE * sum(limits)) if limits else free_memory()


def free_memory() -> int:
    """Most of what is free on this machine."""
    return int(0.8 * psutil.virtual_memory().available)
