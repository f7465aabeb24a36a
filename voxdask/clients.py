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


def workers_of(client: Any) -> dict[str, Any]:
    """What the scheduler knows of every worker, by address."""
    # Client.scheduler_info returns what a timer may just have replaced by an answer without workers
    workers: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return workers


def cluster_memory(client: Any) -> int:
    """Most of what the workers may take."""
    limits = [worker["memory_limit"] for worker in workers_of(client).values() if worker["memory_limit"]]
    return int(WORKER_SHARE * sum(limits)) if limits else free_memory()


def free_memory() -> int:
    """Most of what is free on this machine."""
    return int(0.8 * psutil.virtual_memory().available)
