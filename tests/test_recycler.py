"""Memory that is used again: never by two at once, and given back when it is to be."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import distributed  # noqa: F401  # its defaults are Dask's
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxdask import graph
from voxdask.recycler import Recycler, pages

MB = 1 << 20
SHAPES = [(MB,), (4, MB), (2, 2, MB), (3 * MB // 2,), (1000,)]


@pytest.fixture
def held() -> Iterator[Any]:
    """Bytes that NumPy's allocator holds beyond those at the start, as it tells tracemalloc."""
    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(0, 5)), max_size=30))
def test_two_arrays_never_share_memory(orders: list[tuple[tuple[int, ...], int]]) -> None:
    """Arrays in some places of a table, replaced in any order; those that are there keep what was written to them."""
    recycler, table = Recycler(), dict[int, np.ndarray]()
    for number, (shape, place) in enumerate(orders):
        table[place] = recycler.empty(shape, np.uint8)
        table[place][...] = number
        table[place + 10] = table[place][: shape[0] // 2]  # a view outlives the array, and keeps its memory
    last = {place: number for number, (_, place) in enumerate(orders)}
    for place, number in last.items():
        assert (table[place] == number).all() and (table[place + 10] == number).all()


def test_memory_comes_back_with_the_last_view(held: Any) -> None:
    recycler = Recycler()
    array = recycler.empty((4, MB), np.uint8)
    view = array[2:].reshape(2, MB // 4, 4)[0].T
    del array
    other = recycler.empty((4, MB), np.uint8)
    assert 8 * MB <= held() < 9 * MB
    del view
    again = recycler.empty((MB, 2), np.float16)  # of as many bytes
    assert 8 * MB <= held() < 9 * MB
    assert not np.shares_memory(again, other)
    del again, other
    assert 8 * MB <= held() < 9 * MB  # kept
    recycler.clear()
    assert held() < MB


def test_no_more_is_kept_than_it_may(held: Any) -> None:
    recycler = Recycler(most=10 * MB)
    arrays = [recycler.empty((4 * MB,), np.uint8) for _ in range(5)]
    assert 20 * MB <= held() < 21 * MB
    arrays.clear()
    assert 8 * MB <= held() < 9 * MB
    arrays += [recycler.empty((4 * MB,), np.uint8) for _ in range(2)]
    assert 8 * MB <= held() < 9 * MB
    arrays.clear()  # what was given out does not count as kept
    assert 8 * MB <= held() < 9 * MB


def test_what_comes_back_after_a_clearing_is_kept(held: Any) -> None:
    recycler = Recycler(most=4 * MB)
    array = recycler.empty((4 * MB,), np.uint8)
    recycler.clear()
    del array
    assert 4 * MB <= held() < 5 * MB


def test_small_arrays_are_not_kept(held: Any) -> None:
    recycler = Recycler()
    array = recycler.empty((MB - 1,), np.uint8)
    assert array.shape == (MB - 1,) and held() > MB // 2
    del array
    assert held() < MB // 2


def test_an_array_is_as_any_other() -> None:
    array = Recycler().empty((2, 3, MB), np.complex64)
    assert array.shape == (2, 3, MB) and array.dtype == np.complex64
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned


def test_threads() -> None:
    """Each writes its number, lets others go on, and finds it again."""
    recycler = Recycler(most=8 * MB)

    def work(number: int) -> bool:
        arrays = []
        for _ in range(20):
            arrays = [*arrays[-2:], recycler.empty((MB + number % 3,), np.uint8)]
            arrays[-1][...] = number
        return all((array == number).all() for array in arrays)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(40)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux tells of a process")
def test_pages_go_back_to_the_system() -> None:
    size, process = 256 * MB, psutil.Process()
    before = process.memory_info().vms
    memory = pages(size)
    assert len(memory) == size and not memory[:: 1 << 12].any()
    part = memory[5:].view()
    del memory
    assert process.memory_info().vms - before > size // 2
    del part
    assert process.memory_info().vms - before < size // 2


def test_no_pages() -> None:
    assert len(pages(0)) <= 1


def test_a_graph_lets_go_of_what_it_holds() -> None:
    """At once: memory that waits for the collector of cycles would pile up over thousands of steps."""

    class Held:
        pass

    held = Held()
    reference = weakref.ref(held)
    value = graph.call("sum", id, {"parts": [graph.constant("part", held), 1]})
    gc.collect()
    gc.disable()
    try:
        del held, value
        assert reference() is None
    finally:
        gc.enable()


FAULTS = """
import resource
import numpy as np
from voxdask.recycler import keep_freed

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.empty(1 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

eager = faults()
keep_freed()
faults()
print(eager, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
def test_what_arrays_give_up_is_kept_on_a_worker() -> None:
    (nanny,) = (d["distributed"]["nanny"] for d in dask.config.defaults if "nanny" in d.get("distributed", {}))
    dasks = nanny["pre-spawn-environ"]["MALLOC_TRIM_THRESHOLD_"]
    for threshold in (dasks, 70_000):  # a worker's, unless its user chose another
        environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": str(threshold)}
        command = [sys.executable, "-c", FAULTS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        before, after = map(int, done.stdout.split())
        assert before > 50 * 200  # a megabyte has 256 pages
        assert after < 500 if threshold == dasks else after > 50 * 200
