"""The cluster that is at hand, if any, and how much memory may be taken there and here."""

from __future__ import annotations

from typing import Any

import distributed
import psutil


def active_client() -> Any:
    """The active distributed client, if any."""
    try:
        return distributed.get_client()
    except ValueError:
        return None


def cluster_memory(client: Any) -> int:
    """Most of what the workers may take: they begin to spill at 0.6 of it."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return int(0.6 * sum(limits)) if limits else free_memory()


def free_memory() -> int:
    """Most of what is free on this machine."""
    return int(0.8 * psutil.virtual_memory().available)
