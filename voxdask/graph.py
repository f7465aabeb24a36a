"""Dask values one task each: a node of a graph that knows what it refers to.

``dask.delayed`` merges graphs at every call, so that a graph of n tasks takes time like n squared to build
(3 ms for a task among 1,000). Here a graph is put together once, when it is computed. This is the one module
that uses ``dask._task_spec``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.threaded
import numpy as np
from dask._task_spec import Alias, DataNode, Task, TaskRef, parse_input
from dask.highlevelgraph import HighLevelGraph
from distributed import KilledWorker, get_client
from distributed.client import FutureCancelledError


class Value:
    """A result that Dask computes when it is asked for; a Dask collection of one.

    Parameters
    ----------
    key : hashable
        Name of the result among all that a scheduler knows.
    node : object
        The task, or the result itself: data, or a Future.
    parents : sequence of Value
        What the task refers to.
    graph : mapping, optional
        A graph in which `key` is, instead of a node.
    """

    __slots__ = ("graph", "key", "node", "parents")

    def __init__(
        self, key: Any, node: Any, parents: Sequence[Value] = (), graph: Mapping[Any, Any] | None = None
    ) -> None:
        self.key, self.node, self.parents, self.graph = key, node, parents, graph

    __dask_optimize__ = None
    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __dask_graph__(self) -> dict[Any, Any]:
        return collect([self])

    def __dask_keys__(self) -> list[Any]:
        return [self.key]

    def __dask_tokenize__(self) -> Any:
        return self.key

    def __dask_postcompute__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _first, ()

    def __dask_postpersist__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _persisted, (self.key,)


class _Batch(Value):
    """Several values as one collection, so that their graph is put together once."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values
        super().__init__([value.key for value in values], None, graph=collect(values))

    def __dask_graph__(self) -> dict[Any, Any]:
        return dict(self.graph or {})

    def __dask_keys__(self) -> list[Any]:
        return list(self.key)

    def __dask_tokenize__(self) -> Any:
        return tuple(self.key)

    def __dask_postpersist__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _all_persisted, (self.key,)


def _first(results: Sequence[Any]) -> Any:
    return results[0]


def _persisted(results: Mapping[Any, Any], key: Any, rename: Any = None) -> Value:
    return constant(key, results[key])


def _all_persisted(results: Mapping[Any, Any], keys: Sequence[Any], rename: Any = None) -> list[Value]:
    return [constant(key, results[key]) for key in keys]


def constant(key: Any, data: Any) -> Value:
    """A value that is known, here or, as a Future, on a cluster."""
    return Value(key, data if isinstance(data, TaskRef) else DataNode(key, data))


def call(key: Any, function: Callable[..., Any], *arguments: Any) -> Value:
    """The value of a function; values may stand anywhere in lists, tuples and dicts among the arguments."""
    parents: list[Value] = []
    return Value(key, Task(key, function, *(parse_input(_refer(a, parents)) for a in arguments)), parents)


def _refer(argument: Any, parents: list[Value]) -> Any:
    """An argument with references in place of values, which are added to `parents`."""
    # no closure that calls itself: it would be in a cycle, and hold what values hold until that is found
    if isinstance(argument, Value):
        parents.append(argument)
        return TaskRef(argument.key)
    if type(argument) is dict:
        return {key: _refer(value, parents) for key, value in argument.items()}
    if type(argument) in (list, tuple):
        return type(argument)(_refer(value, parents) for value in argument)
    return argument


def collect(values: Sequence[Value]) -> dict[Any, Any]:
    """The graph of everything that values need."""
    graph: dict[Any, Any] = {}
    waiting, seen, merged = list(values), set(), set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.graph is None:
            graph[value.key] = value.node
        elif id(value.graph) not in merged:
            merged.add(id(value.graph))
            graph.update(value.graph)
        waiting.extend(value.parents)
    return graph


def persist(values: Sequence[Value]) -> list[Value]:
    """Compute values and keep the results where they were made."""
    (results,) = dask.persist(_Batch(values))
    return list(results)


def compute(values: Sequence[Value], scheduler: str | None = None) -> tuple[Any, ...]:
    """Results of values, brought here; by the active scheduler, if none is named.

    Raises
    ------
    RuntimeError
        If workers of a cluster died, and what they held can't be made again.
    """
    try:
        results: tuple[Any, ...] = dask.compute(*values, **({"scheduler": scheduler} if scheduler else {}))
    except (FutureCancelledError, KilledWorker) as error:
        raise RuntimeError(
            f"workers of the cluster died, and what they held can't be made again ({error}); with store=PATH, on a "
            "disk that all workers see, a run survives that, and the same call goes on from the last frame"
        ) from error
    return results


def require_everywhere(folder: Path) -> None:
    """ValueError unless all workers see a directory: this one, not one of that name on their own disk."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="seen-by-all-") as mark:
        seen = get_client().run(_is_there, mark.name)
    if blind := [worker for worker, there in seen.items() if not there]:
        raise ValueError(
            f"store={os.fspath(folder.parent)!r} is not seen by {len(blind)} of {len(seen)} workers ({blind[0]}, ...); "
            "give a path on a disk that all of them share"
        )


def run_everywhere(function: Callable[[], None]) -> None:
    """Call a function in every worker that is still there."""
    get_client().run(function, on_error="ignore")


def _is_there(path: str) -> bool:
    return os.path.exists(path)


def sent_again(value: Value) -> Value:
    """A value on a cluster, gathered here and sent out again: the scheduler does not know what it was made from."""
    (result,) = compute([value])
    future = get_client().scatter(result, hash=False)
    return constant(future.key, future)


def array_of(name: str, blocks: Sequence[Value], chunks: tuple[tuple[int, ...], ...], dtype: Any) -> da.Array:
    """A Dask array from its blocks along the first axis."""
    graph = collect(blocks)
    for i, block in enumerate(blocks):
        key = (name, i, *(0 for _ in chunks[1:]))
        graph[key] = Alias(key, block.key)
    whole = HighLevelGraph.from_collections(name, graph)
    return da.Array(whole, name, chunks, meta=np.empty((0,) * len(chunks), dtype))


def blocks_of(array: Any, name: str, rows: int) -> list[Value]:
    """Blocks of some rows each of an array, of Dask or in memory."""
    return blocks_of_each({"": array}, name, rows)[""]


def blocks_of_each(
    arrays: Mapping[str, Any], name: str, rows: int, distributed: bool = False
) -> dict[str, list[Value]]:
    """Blocks of some rows each of several arrays; those in memory are sent to a cluster at once.

    What several Dask arrays are made of, as the members of a family are of one image, is computed once.
    """
    lazy = {key: a.rechunk((rows, *a.shape[1:])) for key, a in arrays.items() if isinstance(a, da.Array)}
    # dask.optimize would fuse a task that two arrays share into both
    merged = HighLevelGraph.merge(*(a.__dask_graph__() for a in lazy.values()))
    graph = dict(da.optimize(merged, [a.__dask_keys__() for a in lazy.values()]))
    blocks: dict[str, list[Value]] = {}
    for key, array in arrays.items():
        if key in lazy:
            cut, first = lazy[key], (0,) * (array.ndim - 1)
            blocks[key] = [Value((cut.name, i, *first), None, graph=graph) for i in range(cut.numblocks[0])]
            continue
        parts = [array[lo : lo + rows] for lo in range(0, array.shape[0], rows)]
        if distributed:
            futures = get_client().scatter(parts, hash=False)
            blocks[key] = [constant(future.key, future) for future in futures]
        else:
            blocks[key] = [constant(f"{name}-{key}-{i}", part) for i, part in enumerate(parts)]
    return blocks
