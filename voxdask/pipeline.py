"""Read ahead and write behind: loading, work and storing of items, overlapped, and the work of one with the next's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, wait
from typing import Any


def pipeline(
    io: Executor,
    count: int,
    ahead: int,
    *,
    take: Callable[[int], None],
    load: Callable[[int], None],
    begin: Callable[[int], None],
    end: Callable[[int], None],
    store: Callable[[int], None],
    stored: Callable[[int], None],
    drop: Callable[[int], None] = lambda k: None,
    after: Callable[[int], int] = lambda k: -1,
) -> None:
    """Load, work and store, one item after the other, so that the next is loaded and the last stored meanwhile.

    Parameters
    ----------
    io : Executor
        Of two threads or more.
    count : int
    ahead : int
        Items that may be under way when another is begun.
    take, stored : callable
        What is called here, with the number of an item, before it is loaded, and after it is stored.
    load, store : callable
        What the executor is given.
    begin, end : callable
        What is called here to have an item worked on, and to wait until it is.
    drop : callable
        What is called here when an item's work has ended and the items before are stored, before it is itself.
    after : callable
        ``after(k)`` is the last item that must have ended before item k is begun.
    """
    loading: dict[int, Future[None]] = {}
    storing: Future[None] | None = None
    ended = 0

    def end_next() -> None:
        nonlocal ended, storing
        end(ended)
        if storing is not None:
            storing.result()
            stored(ended - 1)
        drop(ended)
        storing = io.submit(store, ended)
        ended += 1

    try:
        if count:
            take(0)
            loading[0] = io.submit(load, 0)
        for k in range(count):
            while ended <= max(after(k), k - ahead - 1):
                end_next()
            if k + 1 < count:
                take(k + 1)
                loading[k + 1] = io.submit(load, k + 1)
            loading[k].result()
            del loading[k]
            begin(k)
        while ended < count:
            end_next()
        if storing is not None:
            storing.result()
            stored(count - 1)
    finally:
        for future in (*loading.values(), *((storing,) if storing else ())):  # nobody may go on with what is given up
            future.cancel() or future.exception()


class SharedOut:
    """Work on items that is shared out among threads, and waited for item by item.

    Parameters
    ----------
    submit : callable
        Has a job done, and gives a Future of what it returns.
    """

    def __init__(self, submit: Callable[[Callable[[], Any]], Future[Any]]) -> None:
        self._submit = submit
        self._prepared: dict[int, Future[list[Future[None]]]] = {}
        self._going: dict[int, list[Future[None]]] = {}

    def prepare(self, k: int, work: Callable[[], Iterable[Callable[[], None]]]) -> None:
        """Have the jobs of an item made by a thread, and done, while others are at those of the one before."""
        # shared out by who made them: threads that waited for the caller to do that would be idle after every item
        self._prepared[k] = self._submit(lambda: [self._submit(job) for job in work()])

    def begin(self, k: int, jobs: Iterable[Callable[[], None]]) -> None:
        """Have the jobs of an item done."""
        self._going[k] = [self._submit(job) for job in jobs]

    def end(self, k: int) -> None:
        """Wait until an item is done."""
        if k in self._prepared:
            self._going[k] = self._prepared[k].result()
            del self._prepared[k]
        wait(self._going[k])  # what has begun is known to :meth:`give_up` until all of it has ended
        for job in self._going.pop(k):
            job.result()

    def give_up(self) -> None:
        """Wait until nobody works any more."""
        going = [*self._going.values()]
        for prepared in self._prepared.values():
            if not prepared.cancel() and prepared.exception() is None:
                going.append(prepared.result())
        for future in itertools.chain(*going):
            future.cancel() or future.exception()


def at_once(job: Callable[[], Any]) -> Future[Any]:
    """A job done by whoever has it done."""
    done: Future[Any] = Future()
    done.set_result(job())
    return done
