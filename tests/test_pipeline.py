"""Items that are read ahead, shared out and written behind: the order, how many are under way, and how it ends."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from voxdask.pipeline import SharedOut, at_once, pipeline

COUNT = 23


class Log:
    """Runs items through a pipeline, and notes what happens to each."""

    def __init__(self, ahead: int, after: Any = lambda k: -1, fail: tuple[str, int] = ("", -1)) -> None:
        self.ahead, self.after, self.fail = ahead, after, fail
        self.events: list[tuple[str, int]] = []
        self.running, self.lock = 0, threading.Lock()

    def note(self, what: str, k: int) -> None:
        with self.lock:
            self.events.append((what, k))
        if (what, k) == self.fail:
            raise OSError(f"{what} {k}")

    def work(self, k: int) -> None:
        with self.lock:
            self.running += 1
        try:
            self.note("work", k)
        finally:
            with self.lock:
                self.running -= 1

    def run(self, threads: int = 3) -> list[tuple[str, int]]:
        with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(2) as io:
            shared = SharedOut(pool.submit if threads else at_once)

            def prepare(k: int) -> list[Any]:
                self.note("prepare", k)
                return [partial(self.work, k) for _ in range(4)]

            def begin(k: int) -> None:
                self.note("begin", k)
                shared.prepare(k, partial(prepare, k))

            def end(k: int) -> None:
                shared.end(k)
                self.note("end", k)

            try:
                pipeline(
                    io, COUNT, self.ahead, begin=begin, end=end, after=self.after,
                    **{name: partial(self.note, name) for name in ("take", "load", "store", "stored", "drop")},
                )  # fmt: skip
            finally:
                shared.give_up()
                assert self.running == 0  # whoever gives up memory may be sure that nobody is at it
        return self.events


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_every_item_goes_through_all_stages_in_order(ahead: int) -> None:
    events = Log(ahead).run()
    at = {event: place for place, event in enumerate(events)}
    for k in range(COUNT):
        stages = [at[w, k] for w in ("take", "load", "begin", "prepare", "work", "end", "drop", "store", "stored")]
        assert stages == sorted(stages)
        assert k == 0 or at["stored", k - 1] < at["drop", k]  # what one makes the next may be the last to need
        assert events.count(("work", k)) == 4
    for what in ("take", "load", "begin", "end", "drop", "store", "stored"):
        assert [k for name, k in events if name == what] == list(range(COUNT))


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
def test_so_many_are_under_way_and_no_more(ahead: int) -> None:
    under_way = most = 0
    for what, _ in Log(ahead).run():
        under_way += {"begin": 1, "end": -1}.get(what, 0)
        most = max(most, under_way)
    assert most == ahead + 1


def test_an_item_waits_for_those_that_it_comes_after() -> None:
    events = Log(5, after=lambda k: k - 1 if k % 3 == 0 else -1).run()
    at = {event: place for place, event in enumerate(events)}
    assert all(at["begin", k] > at["end", k - 1] for k in range(3, COUNT, 3))
    assert any(at["begin", k] < at["end", k - 1] for k in range(COUNT) if k % 3)


@pytest.mark.parametrize("what", ["load", "prepare", "work", "store", "stored"])
@pytest.mark.parametrize("k", [0, 7, COUNT - 1])
def test_a_failure_ends_it_when_nobody_works_any_more(what: str, k: int) -> None:
    log = Log(2, fail=(what, k))
    with pytest.raises(OSError, match=f"{what} {k}"):
        log.run()
    assert ("begin", k + 4) not in log.events


def test_one_job_fails_while_others_of_its_item_go_on() -> None:
    """Whoever gives up the memory of an item may be sure that nobody is at it."""
    started, going, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        started.set()
        going.wait(5)
        done.append("slow")

    def bad() -> None:
        started.wait(5)
        threading.Timer(0.1, going.set).start()
        raise OSError("bad")

    with ThreadPoolExecutor(2) as pool:
        shared = SharedOut(pool.submit)
        shared.begin(0, [bad, slow])
        with pytest.raises(OSError, match="bad"):
            shared.end(0)
        shared.give_up()
        assert done == ["slow"]


def test_jobs_begin_as_soon_as_they_are_made() -> None:
    """Threads do not wait for whoever reads, writes and keeps the order."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        shared = SharedOut(pool.submit)
        shared.prepare(0, lambda: [begun.set])
        assert begun.wait(5)
        shared.end(0)
