"""Read ahead and write behind: loading, work and storing of items, overlapped."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future


def pipeline(
    io: Executor,
    count: int,
    take: Callable[[int], None],
    load: Callable[[int], None],
    work: Callable[[int], None],
    done: Callable[[int], None],
    store: Callable[[int], None],
    stored: Callable[[int], None],
) -> None:
    """Load, work and store, one item after the other, so that the next is loaded and the last stored meanwhile.

    Parameters
    ----------
    io : Executor
        Of two threads or more.
    count : int
    take, done, stored : callable
        What is called here, with the number of an item, before it is loaded, after it is worked on, after it is stored.
    load, store : callable
        What the executor is given.
    work : callable
    """
    waiting: list[Future[None]] = []

    def begin(job: Callable[[int], None], k: int) -> Future[None]:
        future = io.submit(job, k)
        waiting.append(future)
        return future

    try:
        take(0)
        loading, storing = begin(load, 0), None
        for k in range(count):
            if k + 1 < count:
                take(k + 1)
                after = begin(load, k + 1)
            loading.result()
            work(k)
            if storing is not None:
                storing.result()
                stored(k - 1)
            done(k)
            storing, loading = begin(store, k), after if k + 1 < count else loading
        if storing is not None:
            storing.result()
            stored(count - 1)
    finally:
        for future in waiting[-3:]:  # nobody may read or write what is given up
            future.cancel() or future.exception()
