"""How a run is cut up: integers only, against a limit."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from voxdask import planning
from voxdask.costs import Rates
from voxdask.pencil import split
from voxdask.planning import spilled_seconds, with_chunks
from voxdask.plans import Plan
from voxdask.problem import Problem
from voxdask.spilling import Cut, Route, Transform, pencil_bytes, window_bytes
from voxdask.units import format_bytes, parse_bytes
from voxdask.windows import AHEAD, Chain, Link, Use

LIMITS = st.integers(20, 45).map(lambda power: 2**power)
THREADS = st.integers(1, 64)


@st.composite
def problems(draw: Any) -> Problem:
    """Anything from one voxel to 4096^3."""
    shape = tuple(draw(st.lists(st.integers(1, 4096), min_size=1, max_size=3)))
    local = list(shape[1:]) or [1]
    local[-1] = local[-1] // 2 + 1
    spectra = draw(st.integers(0, 3))
    itemsize = draw(st.sampled_from([4, 8]))
    return Problem(
        shape=shape,
        itemsize=itemsize,
        fields=draw(st.integers(1, 3)),
        constants=draw(st.integers(0, 2)),
        inner=draw(st.integers(0, 3)),
        halo=draw(st.integers(0, 4)),
        registers=draw(st.integers(1, 4)),
        spectra=spectra,
        columns=local[0],
        mode_bytes=2 * itemsize * (local[1] if len(local) > 1 else 1),
    )


def make_plan(problem: Problem, **options: Any) -> Plan:
    """A plan that may spill, along the routes that such a problem would have."""
    return planning.make_plan(planning.plan_in_memory(problem, **options), routes=lambda: routes(problem))


def routes(problem: Problem) -> list[Route]:
    """Semi-implicit steps, or explicit ones with one to four evaluations in a sweep."""
    state, spectra = problem.stream_width("state"), problem.stream_width("spectra")
    if problem.spectral:
        read, old, new, out = range(4)
        finish = Link((Use(read), Use(old)), (new,), "finish")
        links = (finish, Link((Use(new, problem.halo),), (out,), "forward"))
        step = Chain(links, frozenset([new, out]), (spectra, state, state, spectra))
        every = (Transform(problem.spectra, problem.spectra, problem.spectra),)
        return [Route(1, 1, (step,), (step,), every, problem.registers, 1)]
    found = []
    for depth in range(1, 5):
        links = tuple(Link((Use(k, problem.halo), Use(0)), (k + 1,)) for k in range(depth))
        chain = Chain(links, frozenset([depth]), (state,) * (depth + 1))
        found.append(Route(depth, depth, (chain,), (chain,), (), problem.registers, 1))
    return found


def check(plan: Plan, limit: int, threads: int) -> None:
    problem = plan.problem
    size = problem.shape[0]
    assert 1 <= plan.threads <= threads
    assert 1 <= plan.rows <= size and 1 <= plan.columns <= problem.columns and 1 <= plan.chunk_rows <= size
    for total, width in ((size, plan.rows), (size, plan.chunk_rows), (problem.columns, plan.columns)):
        ranges = split(total, width)
        assert ranges[0][0] == 0 and ranges[-1][1] == total
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    assert planning.OVERHEAD_BYTES <= plan.memory_bytes <= limit == plan.memory_limit
    assert (plan.disk_bytes > 0) == (plan.tier == "spilled")
    if plan.tier == "spilled":
        streamed, resident = problem.columns - plan.resident_columns, plan.resident_columns
        route = next(r for r in routes(problem) if r.depth == plan.depth).narrowed(streamed, problem.columns)
        assert 0 <= resident <= problem.columns * problem.spectral
        stays = problem.fields * problem.spectra * problem.shape[0] * resident * problem.mode_bytes
        held = window_bytes(route, size, plan.slab_rows, plan.ahead), pencil_bytes(
            route, size * problem.mode_bytes, plan.pencil_columns, plan.ahead
        )
        held = held if streamed else held[:1]
        assert max(held) <= plan.hand_bytes <= plan.memory_bytes - planning.OVERHEAD_BYTES - stays
        assert plan.batch == route.steps
    assert plan.reason and plan.tier in str(plan) and plan.reason in str(plan)


@settings(max_examples=200)
@given(problems(), LIMITS, THREADS, st.booleans())
def test_a_plan_fits(problem: Problem, limit: int, threads: int, chunked: bool) -> None:
    try:
        plan = make_plan(problem, memory_limit=limit, threads=threads, chunked=chunked)
    except MemoryError:
        assume(False)
    check(plan, limit, threads)
    assert plan.tier in ("spilled", "chunked" if chunked else "block")


def seconds_of(plan: Plan, rates: Rates | None = None) -> float:
    """What a step of a spilled run costs, on paper."""
    columns, resident = plan.problem.columns, plan.resident_columns
    route = next(r for r in routes(plan.problem) if r.depth == plan.depth).narrowed(columns - resident, columns)
    found = Cut(route, plan.slab_rows, plan.pencil_columns, plan.hand_bytes, plan.ahead, resident)
    return spilled_seconds(plan.problem, found, plan.threads, plan.rows, plan.columns, rates)


@settings(max_examples=200)
@given(problems(), LIMITS, THREADS)
def test_more_memory_is_never_worse(problem: Problem, limit: int, threads: int) -> None:
    """A plan that fits still fits with more, and is not spilled if it was not before."""
    try:
        small = make_plan(problem, memory_limit=limit, threads=threads)
    except MemoryError as error:
        (needed,) = re.findall(r"takes? ([0-9.]+ \w?B)", str(error))
        assert parse_bytes(needed) >= 0.94 * limit
        return
    large = make_plan(problem, memory_limit=2 * limit, threads=threads)
    assert large.tier == small.tier or large.tier == "block"
    if large.tier == small.tier == "spilled":
        assert seconds_of(large) <= 1.1 * seconds_of(small)  # the thickest slabs are not always the fastest


@given(
    problems(),
    THREADS,
    LIMITS,
    st.booleans(),
    st.sampled_from(["fields", "constants", "inner", "registers", "spectra"]),
)
def test_more_to_hold_takes_more(problem: Problem, threads: int, limit: int, chunked: bool, what: str) -> None:
    more = Problem(**{**vars(problem), what: getattr(problem, what) + 1})
    small, large = (make_plan(p, memory_limit=1 << 62, threads=threads, chunked=chunked) for p in (problem, more))
    assert small.tier == large.tier
    assert large.memory_bytes >= small.memory_bytes
    state = problem.registers * problem.fields * problem.voxels * problem.itemsize
    assert small.memory_bytes >= state + planning.OVERHEAD_BYTES
    try:
        make_plan(more, memory_limit=limit, threads=threads)
    except MemoryError:
        return
    assert make_plan(problem, memory_limit=limit, threads=threads).memory_bytes <= limit  # it fits, too


@given(problems(), THREADS, st.integers(1, 5000))
def test_chunks_that_a_caller_wants(problem: Problem, threads: int, rows: int) -> None:
    plan = make_plan(problem, memory_limit=1 << 62, threads=threads, chunked=True, chunk_rows=rows, why="chunks")
    check(plan, 1 << 62, threads)
    assert plan.tier == "chunked" and plan.reason == "chunks"
    assert plan.chunk_rows == min(problem.shape[0], rows)


@given(problems(), st.integers(1, 64), st.integers(1, 32))
def test_a_cluster_has_a_slab_for_each_worker(problem: Problem, workers: int, threads: int) -> None:
    plan = planning.plan_in_memory(problem, memory_limit=1, threads=workers * threads, workers=workers, chunked=True)
    size = problem.shape[0]
    assert plan.tier == "chunked" and plan.slab_threads == threads
    assert plan.chunk_rows == min(size, max(-(-size // workers), problem.halo, 1))


@given(problems(), THREADS, st.integers(1, 5000), st.integers(1, 5000))
def test_slabs_go_on_in_whole_chunks_of_a_store(problem: Problem, threads: int, rows: int, stored: int) -> None:
    size = problem.shape[0]
    stored = min(stored, size)
    wanted = make_plan(problem, memory_limit=1 << 62, threads=threads, chunked=True, chunk_rows=rows)
    plan = with_chunks(wanted, stored)
    check(plan, 1 << 62, threads)
    assert plan.chunk_rows == stored and (plan.slab_rows % stored == 0 or plan.slab_rows == size)
    assert abs(plan.slab_rows - wanted.slab_rows) <= stored / 2 or plan.slab_rows == stored
    assert plan.rows <= plan.slab_rows and with_chunks(wanted, wanted.chunk_rows) == wanted


def problem_256(**changes: Any) -> Problem:
    values = {"shape": (256,) * 3, "itemsize": 4, "fields": 1, "constants": 0, "inner": 1, "halo": 2}
    values |= {"registers": 1, "spectra": 1, "columns": 256, "mode_bytes": 129 * 8}
    return Problem(**{**values, **changes})


def test_one_block_takes_few_bytes_per_voxel() -> None:
    """At most 20 bytes beside the caller's array, for Cahn-Hilliard in float32."""
    plan = make_plan(problem_256(), memory_limit=1 << 40, threads=2)
    assert plan.tier == "block" and plan.memory_bytes <= 20 * plan.problem.voxels


@pytest.mark.study
def test_a_grid_that_is_small_is_one_tile() -> None:
    """Whatever number of threads there is; one that is not small has tiles for all of them."""
    for n, rows in ((12, 12), (128, 128), (1024, 32)):
        problem = problem_256(shape=(n, n), columns=n, mode_bytes=8)
        assert make_plan(problem, memory_limit=1 << 40, threads=8).rows == rows


def test_frames_in_memory_count() -> None:
    problem = problem_256()
    limit = make_plan(problem, memory_limit=1 << 40, threads=2).memory_bytes
    assert make_plan(problem, memory_limit=limit, threads=2).tier == "block"
    assert make_plan(problem, memory_limit=limit, threads=2, frame_bytes=1).tier == "spilled"


def test_what_cannot_fit_says_what_it_needs() -> None:
    problem = problem_256(shape=(4096,) * 3, columns=4096, mode_bytes=2049 * 8)
    with pytest.raises(MemoryError, match=r"memory_limit=40.0 MB even spilled to disk: .*4096 x 4096") as caught:
        make_plan(problem, memory_limit=40_000_000, threads=2)
    (needed,) = re.findall(r"takes? ([0-9.]+ [kMGT]?B)", str(caught.value))
    assert make_plan(problem, memory_limit=int(1.01 * parse_bytes(needed)), threads=2).tier == "spilled"


@pytest.mark.parametrize(("limit", "threads", "ahead"), [("60MB", 2, 0), ("200MB", 2, AHEAD), ("200MB", 1, 0)])
def test_going_ahead_is_for_threads_that_have_the_memory(limit: str, threads: int, ahead: int) -> None:
    plan = make_plan(problem_256(spectra=2), memory_limit=parse_bytes(limit), threads=threads)
    assert (plan.tier, plan.threads, plan.ahead) == ("spilled", threads, ahead)


@pytest.mark.parametrize(
    ("size", "limit", "fewest", "most"),
    [(256, "60MB", 6, 50), (512, "1GB", 16, 16), (1024, "1GB", 16, 30), (1024, "8GB", 16, 16)],
)
def test_pencils_are_about_as_wide_as_each_other_and_no_wider_than_they_gain_by(
    size: int, limit: str, fewest: int, most: int
) -> None:
    problem = problem_256(shape=(size,) * 3, columns=size, mode_bytes=(size // 2 + 1) * 8)
    plan = planning.spill(problem, parse_bytes(limit), 2, 0, routes(problem))
    count = len(split(size, plan.pencil_columns))
    assert fewest <= count <= most
    assert len(split(size, plan.pencil_columns - 1)) > count


def test_columns_stay_in_memory_that_has_room_for_them() -> None:
    """The more of them, the more memory there is; then less is moved, and what is planned takes less time."""
    problem = problem_256(shape=(512,) * 3, columns=512, mode_bytes=257 * 8)
    limits = ["150MB", "400MB", "700MB", "1GB"]
    plans = [make_plan(problem, memory_limit=parse_bytes(limit), threads=2) for limit in limits]
    for plan in plans:
        check(plan, plan.memory_limit, 2)
    resident = [plan.resident_columns for plan in plans]
    assert resident == sorted(resident) and resident[0] == 0 < resident[1] and resident[-1] == 512
    assert f"; {resident[1]} of 512 stay in memory" in str(plans[1]) and "stay" not in str(plans[0])
    disk, seconds = [plan.disk_bytes for plan in plans], [seconds_of(plan) for plan in plans]
    assert disk == sorted(disk, reverse=True) and seconds == sorted(seconds, reverse=True)
    least = planning.spill(problem, parse_bytes("1GB"), 2, 0, routes(problem))
    assert 1 <= (least.disk_bytes - plans[-1].disk_bytes) / problem.spectrum_bytes <= 1.2  # whole files of last slabs
    assert least.slab_rows >= plans[-1].slab_rows


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("limit", ["120MB", "300MB", "600MB", "900MB", "2GB"])
def test_no_number_of_threads_would_be_faster(limit: str, threads: int) -> None:
    """On many threads slabs may be so thin that few of them are at work."""
    problem = Problem((1024, 1024, 1024), 4, 1, 0, 1, 2, 2, 0, 1024, 513 * 8)
    try:
        best = make_plan(problem, memory_limit=parse_bytes(limit), threads=threads)
    except MemoryError:
        return
    assert best.slab_rows * (2 if best.ahead else 1) >= best.threads
    for fewer in range(1, threads):
        try:
            other = make_plan(problem, memory_limit=parse_bytes(limit), threads=fewer)
        except MemoryError:
            continue
        assert seconds_of(best) <= seconds_of(other)


@pytest.mark.parametrize("ns", [0.0, 0.1, 0.2, 0.4, 0.8, 1.6])
def test_of_ways_that_are_alike_the_shallowest_is_taken(ns: float) -> None:
    """Rates are measured, and differ a little each time; a plan and its run should not."""
    problem = problem_256(shape=(512,) * 3, spectra=0)
    rates = replace(problem.nominal_rates, moved=ns * 1e-9)
    alone = [planning.spill(problem, 10**9, 2, 0, [route], rates) for route in routes(problem)]
    seconds = [seconds_of(plan, rates) for plan in alone]
    plan = planning.spill(problem, 10**9, 2, 0, routes(problem), rates)
    assert plan.depth == next(p.depth for p, s in zip(alone, seconds, strict=True) if s <= 1.05 * min(seconds))
    assert seconds_of(plan, rates) <= 1.05 * min(seconds)


@pytest.mark.parametrize(("halo", "limit"), [(3, 1_100_000_000), (6, 2_400_000_000)])
def test_slabs_as_thick_as_the_reach_fit_where_thinner_ones_do_not(halo: int, limit: int) -> None:
    problem = Problem((2048, 2048, 2048), 4, 1, 0, 0, halo, 2, 0, 2048, 1025 * 8)
    plan = make_plan(problem, memory_limit=limit, threads=1)
    check(plan, limit, 1)
    route = routes(problem)[0]
    assert window_bytes(route, 2048, 1, 0) > window_bytes(route, 2048, plan.slab_rows, 0)


def test_a_plan_prints_as_a_table() -> None:
    plan = make_plan(problem_256(), memory_limit=100_000_000, threads=2)
    text = str(plan)
    for word in ("spilled", "256 x 256 x 256 = 16,777,216 voxels, 32-bit", "of 100.0 MB", "would not fit"):
        assert word in text
    assert plan._repr_html_() == f"<pre>{text}</pre>"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (1, 1), (2.5e9, 2_500_000_000), ("200MB", 200_000_000), ("1.5 GiB", 3 << 29), (" 3 kb ", 3000), ("7", 7),
        ("1e3 KiB", 1_024_000), ("64 mib", 64 << 20), ("1TB", 10**12), ("12 B", 12),
    ],
)  # fmt: skip
def test_parse_bytes(text: Any, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["abc", "", "12 XB", "MB", "1 2 MB", None, "200M B", [3]])
def test_no_number_of_bytes(text: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f'memory_limit is {text!r}; give bytes or a text such as "200MB"')):
        parse_bytes(text)


@pytest.mark.parametrize("text", [0, -1, "-5MB", "0", float("inf"), float("nan"), "nan"])
def test_no_memory(text: Any) -> None:
    with pytest.raises(ValueError, match=r"memory_limit is .*; (it must be positive|give bytes)"):
        parse_bytes(text)


@given(st.integers(0, 10**15))
def test_format_bytes_is_read_back(count: int) -> None:
    if count:
        assert abs(parse_bytes(format_bytes(count)) - count) <= 0.051 * count
