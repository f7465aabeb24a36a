"""How many bytes a step of a plan moves, and how long it takes, from rates that were measured."""

from __future__ import annotations

from dataclasses import replace

from voxdask.costs import Rates, sum_terms
from voxdask.planning import spilled_seconds
from voxdask.plans import Plan
from voxdask.spilling import Cut, Route

#: What tasks cost beyond the work that is in them: seconds of a thread for each, or of the one scheduler of a cluster.
TASK_SECONDS, REMOTE_TASK_SECONDS = 4e-4, 1e-3
#: How much longer passes take over chunks, whose memory others share and which are put together from parts.
CHUNKED_SHARE = 1.08
#: Bytes in a second that a worker sends while it receives as many.
NETWORK_BYTES = 1e9


def forecast(plan: Plan, routes: tuple[Route, ...], rates: Rates) -> Plan:
    """A plan with the bytes and the seconds of a step.

    Parameters
    ----------
    plan : Plan
    routes : tuple of Route
        Of the stepper, the shallowest first.
    rates : Rates

    Returns
    -------
    Plan
    """
    if plan.tier == "spilled":
        cut = Cut(
            _route_of(plan, routes), plan.slab_rows, plan.pencil_columns, plan.hand_bytes, plan.ahead,
            plan.resident_columns,
        )  # fmt: skip
        seconds = spilled_seconds(plan.problem, cut, plan.threads, plan.rows, plan.columns, rates)
        return replace(with_traffic(plan, routes), step_seconds=seconds)
    route = routes[0]
    seconds, traffic = _seconds_in_memory(plan, route, rates), _streamed_bytes(plan, route)
    if plan.tier == "chunked":
        slabs = -(-plan.problem.shape[0] // plan.slab_rows)
        transforms, evaluations = len(route.pencils), _count(route, "advance") + _count(route, "forward")
        traffic = _exchanged_bytes(plan, route, slabs)
        tasks = slabs * (2 * transforms + 2 * evaluations) * plan.problem.fields
        idle = max(1.0, plan.threads / (slabs * plan.slab_threads))  # threads that have no slab
        seconds *= CHUNKED_SHARE * idle
        if plan.workers:
            tasks += 2 * transforms * slabs**2 * plan.problem.fields
            seconds += tasks * REMOTE_TASK_SECONDS + traffic / (plan.workers * NETWORK_BYTES)
        else:
            seconds += tasks * TASK_SECONDS / plan.threads
    return replace(plan, traffic_bytes=traffic, step_seconds=seconds)


def with_traffic(plan: Plan, routes: tuple[Route, ...]) -> Plan:
    """A plan of a streamed run with the bytes of a step."""
    return replace(plan, traffic_bytes=_streamed_bytes(plan, _route_of(plan, routes)))


def _route_of(plan: Plan, routes: tuple[Route, ...]) -> Route:
    whole = next(route for route in routes if (route.depth, route.steps) == (plan.depth, plan.batch))
    return whole.narrowed(plan.streamed_columns, plan.problem.columns)


def _seconds_in_memory(plan: Plan, route: Route, rates: Rates) -> float:
    """Of a step whose rows and columns are all at hand."""
    evaluations = _count(route, "advance") + _count(route, "forward")
    sums = [link for chain in route.chains for link in chain.links if link.work == "sum"]
    terms = sum(sum_terms(link.uses, len(link.makes)) for link in sums)
    row = evaluations * (rates.evaluate + rates.around / plan.rows)
    row += _count(route, "finish") * rates.finish + terms * rates.add
    columns = len(route.pencils) * plan.problem.fields * plan.problem.columns
    return (plan.problem.shape[0] * row + columns * rates.through) / plan.threads


def _streamed_bytes(plan: Plan, route: Route) -> int:
    """Bytes that the sweeps of a step read and write."""
    rows = sum(chain.traffic for chain in route.chains) * plan.problem.shape[0]
    spectra = sum(each.read + each.written for each in route.pencils)
    streamed = plan.problem.shape[0] * plan.streamed_columns * plan.problem.mode_bytes
    return (rows + spectra * plan.problem.fields * streamed) // route.steps


def _exchanged_bytes(plan: Plan, route: Route, slabs: int) -> int:
    """Bytes that go from a slab to another, or to a pencil and back."""
    problem, elsewhere = plan.problem, 1 - 1 / slabs
    halos = (_count(route, "advance") + _count(route, "forward")) * 2 * problem.halo * slabs * problem.row_bytes
    there_and_back = 2 * len(route.pencils) * problem.spectrum_bytes * elsewhere
    return int(problem.fields * (halos * (slabs > 1) + there_and_back))


def _count(route: Route, work: str) -> int:
    return sum(link.work == work for chain in route.chains for link in chain.links)
