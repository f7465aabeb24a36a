"""Source text of loops: Python for numba, C for CUDA. Both print the same :class:`~voxdask.loops.Loop`."""

from __future__ import annotations

from collections.abc import Sequence

from voxdask.loops import Loop, Store
from voxdask.phi import horner
from voxdask.printing import PYTHON, C, Names, Printer, Scalars
from voxdask.program import Sample

#: LLVM may contract and reorder, but must not assume that there is no NaN: the time loop looks for it.
_NUMBA_HEADER = """\
import math
from numba import njit

FASTMATH = {'contract', 'reassoc', 'arcp', 'nsz'}


@njit(fastmath=FASTMATH, nogil=True)
def clip(u, lower, upper):
    v = lower if u < lower else u  # two selects vectorise to a maximum and a minimum, a nested one does not
    return upper if v > upper else v


@njit(fastmath=FASTMATH, nogil=True)
def larger(a, b):
    return a if a >= b or a != a else b


@njit(fastmath=FASTMATH, nogil=True)
def smaller(a, b):
    return a if a <= b or a != a else b


@njit(fastmath=FASTMATH, nogil=True)
def phi3(z):
    if abs(z) < 1.0:
        return {horner}
    return ((math.expm1(z) / z - 1.0) / z - 0.5) / z


@njit(fastmath=FASTMATH, nogil=True)
def phi2(z):
    return 0.5 + z * phi3(z) if abs(z) < 1.0 else (math.expm1(z) / z - 1.0) / z


@njit(fastmath=FASTMATH, nogil=True)
def phi1(z):
    return math.expm1(z) / z if z != 0.0 else 1.0
""".replace("{horner}", horner())

_CUDA_HEADER = """\
static __device__ inline real clip(real u, real lower, real upper) {
    return u < lower ? lower : (u > upper ? upper : u);
}
static __device__ inline real larger(real a, real b) { return a >= b || a != a ? a : b; }
static __device__ inline real smaller(real a, real b) { return a <= b || a != a ? a : b; }
static __device__ inline real phi3(real z) {
    return fabs(z) < (real)1 ? {horner} : ((expm1(z) / z - (real)1) / z - (real)1 / 2) / z;
}
static __device__ inline real phi2(real z) {
    return fabs(z) < (real)1 ? (real)1 / 2 + z * phi3(z) : (expm1(z) / z - (real)1) / z;
}
static __device__ inline real phi1(real z) { return z != 0 ? expm1(z) / z : (real)1; }
""".replace("{horner}", horner("(real)"))


def numba_source(loop: Loop, scalars: Scalars) -> str:
    """Python source of ``<loop>(*writes, *reads, *positions, p, *scales)``.

    Over volumes the last arguments are the first line of a strip and how many it has; arrays that loops make for each
    other hold no more than that. Every neighbour is an element of a row along the last axis, at a shift that is not
    negative, so that LLVM vectorises the inner loop.

    Examples
    --------
    >>> from voxdask.loops import loops_of
    >>> from voxdask.lowering import lower
    >>> from voxdask.symbols import Field, laplace
    >>> program = lower((laplace(Field("u")),), ("du",), ("x",))
    >>> "for i0 in range(n0)" in numba_source(loops_of(program)[0], Scalars(program.parameters))
    True
    """
    return f"{_NUMBA_HEADER}\n\n{_numba_loop(loop, scalars)}"


def cuda_source(loops: Sequence[Loop], scalars: Scalars) -> str:
    """CUDA C source of one kernel for every loop, for a type ``real`` that is yet to be defined.

    The arguments are those of :func:`numba_source` without strips, then the extents of what is written, and for a
    filter how many reals a mode has. Threads stride over the grid, so that any launch is right.

    Examples
    --------
    >>> from voxdask.loops import loops_of
    >>> from voxdask.lowering import lower
    >>> from voxdask.symbols import Field, laplace
    >>> program = lower((laplace(Field("u")),), ("du",), ("x",))
    >>> "__global__ void evaluate0(" in cuda_source(loops_of(program), Scalars(program.parameters))
    True
    """
    return "\n".join([_CUDA_HEADER, *(_cuda_loop(loop, scalars) for loop in loops)])


def _numba_loop(loop: Loop, scalars: Scalars) -> str:
    names, last = Names(), len(loop.axes) - 1
    printer = Printer(PYTHON, scalars, names)
    results = printer.results(loop.expressions)

    def at(name: str, a: int, offset: int) -> str:
        return _plus("first + i1" if a == 1 and loop.in_strips and name in loop.whole else f"i{a}", offset)

    def row(array: str, *index: str) -> str:
        return f"{array}[{', '.join(index)}]" if index else array

    # with a slice for every neighbour loops take longer to compile, and up to half as long again to run
    rows, values, loads = {}, {}, []
    for name, array in _in_place(loop, names).items():
        g = loop.around.get(name, 0) if last else 0
        rows[names("row", name)] = row(array, *(at(name, a, g if a else 0) for a in range(last)))
        values[name] = f"{names('row', name)}[{_plus(f'i{last}', g)}]"
    for sample in loop.samples:
        *starts, start = (loop.reach[sample.array] + o for o in sample.offset)
        line = names.sample("row", Sample(sample.array, sample.offset[:-1]))
        rows[line] = row(names("in", sample.array), *(at(sample.array, a, s) for a, s in enumerate(starts)))
        loads.append(f"{names.sample('at', sample)} = {line}[{_plus(f'i{last}', start)}]")
    fixed = [f"{name} = {text}" for name, text in rows.items()]
    for axis in loop.coordinates:
        a = loop.axes.index(axis)
        where = loads if a == last else fixed
        where.append(f"{names('position', axis)} = {names('along', axis)}[{at('', a, loop.reach[''])}]")
    loads += [f"{names('was', name)} = {values[name]}" for name in _read_in_place(loop)]
    stores = [f"{values[store.target]} = {_sum_of(store, results, names)}" for store in loop.stores]

    arguments = [names("out", n) for n in loop.writes] + [names("in", n) for n in loop.reads]
    arguments += [*(names("along", axis) for axis in loop.coordinates), "p", *loop.scales]
    arguments += ["first", "lines"] if loop.in_strips else []
    extents = "".join(f"n{a}, " for a in range(last + 1))
    lines = ["@njit(fastmath=FASTMATH, nogil=True, cache=True, error_model='numpy')"]
    lines.append(f"def {loop.name}({', '.join(arguments)}):")
    lines += [f"    {name} = p[{index}]" for name, index in sorted(printer.constants.items())]
    lines.append(f"    {extents}= {arguments[0]}.shape")
    if g := loop.around.get(loop.writes[0], 0):
        lines += [f"    n{a} -= {2 * g}" for a in range(1, last + 1)]
    lines += [f"    n1 = {_plus('lines', 2 * loop.margin)}"] if loop.in_strips else []
    lines += [f"{'    ' * (a + 1)}for i{a} in range(n{a}):" for a in range(last)]
    lines += ["    " * (last + 1) + line for line in fixed]
    lines.append(f"{'    ' * (last + 1)}for i{last} in range(n{last}):")
    assignments = [f"{name} = {text}" for name, text in printer.assignments]
    lines += ["    " * (last + 2) + line for line in (*loads, *assignments, *stores)]
    return "\n".join(lines) + "\n"


def _cuda_loop(loop: Loop, scalars: Scalars) -> str:
    names, ndim = Names(), len(loop.axes)
    printer = Printer(C, scalars, names)
    results = printer.results(loop.expressions)

    # for arrays that reach g voxels beyond the region: the stride s<g>_<a> along each axis, the place of this voxel in
    # one that reaches so far along the first axis, too (at<g>), and in one that does not (row<g>)
    arrays = _in_place(loop, names)
    around = {name: loop.around.get(name, 0) for name in arrays}
    reaching = {("at", loop.reach[sample.array]) for sample in loop.samples} | {("row", g) for g in around.values()}
    strides, places = [], []
    for g in sorted({g for _, g in reaching}):
        for a in reversed(range(ndim - 1)):
            further = f"s{g}_{a + 1} * " if a + 1 < ndim - 1 else ""
            strides.append(f"const long long s{g}_{a} = {further}({_plus(f'n{a + 1}', 2 * g)});")
    for name, g in sorted(reaching):
        *by_axis, last = [_plus(f"i{a}", g if a or name == "at" else 0) for a in range(ndim)]
        terms = [f"({i}) * s{g}_{a}" for a, i in enumerate(by_axis)]
        places.append(f"const long long {name}{g} = {' + '.join([*terms, last])};")
    loads = []
    for sample in loop.samples:
        g = loop.reach[sample.array]
        place = f"at{g}" + "".join(f" + {o} * s{g}_{a}" for a, o in enumerate(sample.offset[:-1]) if o)
        value = f"{names('in', sample.array)}[{_plus(place, sample.offset[-1])}]"
        loads.append(f"const real {names.sample('at', sample)} = {value};")
    for axis in loop.coordinates:
        place = _plus(f"i{loop.axes.index(axis)}", loop.reach[""])
        loads.append(f"const real {names('position', axis)} = {names('along', axis)}[{place}];")
    elements = {n: f"{a}[{'row0 * components + m' if loop.modes else f'row{around[n]}'}]" for n, a in arrays.items()}
    stores = [f"const real {names('was', name)} = {elements[name]};" for name in _read_in_place(loop)]
    stores += [f"{elements[store.target]} = {_sum_of(store, results, names)};" for store in loop.stores]
    if loop.modes:
        stores = ["for (int m = 0; m < components; ++m) {", *("    " + line for line in stores), "}"]

    sampled = {sample.array for sample in loop.samples}  # these can't overlap what is written
    arguments = [f"real* {names('out', n)}" for n in loop.writes]
    arguments += [f"const real* {'__restrict__ ' * (n in sampled)}{names('in', n)}" for n in loop.reads]
    arguments += [f"const real* __restrict__ {names('along', axis)}" for axis in loop.coordinates]
    arguments += ["const real* __restrict__ p", *(f"real {w}" for w in loop.scales)]
    arguments += [f"int n{a}" for a in range(ndim)] + ["int components"] * loop.modes
    lines = [f'extern "C" __global__ void {loop.name}({", ".join(arguments)}) {{']
    lines += [f"    const real {name} = p[{index}];" for name, index in sorted(printer.constants.items())]
    lines += [f"    {stride}" for stride in strides]
    for a, d in enumerate("xyz"[ndim - 1 :: -1]):
        first, step = f"blockIdx.{d} * blockDim.{d} + threadIdx.{d}", f"gridDim.{d} * blockDim.{d}"
        lines.append(f"    for (int i{a} = {first}; i{a} < n{a}; i{a} += {step})")
    lines[-1] += " {"
    assignments = [f"const real {name} = {text};" for name, text in printer.assignments]
    lines += ["        " + line for line in (*places, *loads, *assignments, *stores)]
    return "\n".join([*lines, "    }", "}\n"])


def _in_place(loop: Loop, names: Names) -> dict[str, str]:
    """The arrays that have the extent of the loop, with their identifiers: targets and bases."""
    bases = {name: names("in", name) for store in loop.stores for name in store.arrays if name not in loop.writes}
    return {**bases, **{name: names("out", name) for name in loop.writes}}


def _read_in_place(loop: Loop) -> list[str]:
    """The arrays that stores read, before the first of them writes."""
    return list(dict.fromkeys(name for store in loop.stores for name in store.arrays))


def _sum_of(store: Store, results: Sequence[str], names: Names) -> str:
    """A store's sum of products in source text."""

    def text(factor: str | int, last: bool) -> str:
        if isinstance(factor, int):
            return results[factor]
        return names("was", factor) if last else factor

    terms = [" * ".join(text(f, last=f is term[-1]) for f in term) for term in store.terms]
    return " + ".join(terms) or "0"


def _plus(text: str, number: int) -> str:
    """A sum in source text, without a zero."""
    return f"{text} {'-' if number < 0 else '+'} {abs(number)}" if number else text
