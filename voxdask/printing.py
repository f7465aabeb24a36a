"""Text of scalar expressions in Python (for numba) and C (for CUDA).

Numbers and parameters are entries of one small array of the fields' dtype: changing a parameter recompiles
nothing, and no double constant or bare integer slows a float32 loop.
"""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from voxdask.phi import Phi1, Phi2, Phi3
from voxdask.program import Sample
from voxdask.symbols import Clip, Coordinate, Inside, Parameter

#: Functions that are called by the same name in both languages.
_CALLED: dict[type[sp.Basic], str] = {
    **{getattr(sp, name): name for name in ("exp", "log", "erf", "erfc")},
    **{getattr(sp, name): name for name in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2")},
    **{getattr(sp, name): name for name in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    sp.Abs: "fabs",
}

#: Functions that the headers of generated source define.
_DEFINED: dict[type[sp.Basic], str] = {
    **{Clip: "clip", sp.Max: "larger", sp.Min: "smaller"},
    **{Phi1: "phi1", Phi2: "phi2", Phi3: "phi3"},
}

#: Integer powers up to this one are products.
_LARGEST_PRODUCT = 8


class Names:
    """Identifiers for things of any name: a prefix for the kind of thing, and no two alike.

    Examples
    --------
    >>> names = Names()
    >>> names("in", "c"), names("in", "stage.0"), names("in", "stage_0"), names("in", "lambda")
    ('in_c', 'in_stage_0', 'in_stage_0_', 'in_lambda')
    """

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def __call__(self, kind: str, name: str) -> str:
        key = (kind, name)
        if key not in self._given:
            identifier = f"{kind}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
            while identifier in self._taken:
                identifier += "_"
            self._taken.add(identifier)
            self._given[key] = identifier
        return self._given[key]

    def sample(self, kind: str, sample: Sample) -> str:
        """The identifier of something that belongs to an array at an offset; ``m`` stands for minus."""
        return self(kind, "_".join([f"{sample.array}.", *(f"{o}".replace("-", "m") for o in sample.offset)]))


@dataclass
class Scalars:
    """The layout of the array of scalars: named parameters, then the numbers of the expressions."""

    parameters: tuple[str, ...]
    numbers: list[sp.Expr] = field(default_factory=list)

    def index(self, scalar: sp.Expr) -> int:
        """Where a parameter or number stands in the array; a new number is appended."""
        if isinstance(scalar, Parameter):
            return self.parameters.index(scalar.name)
        if scalar not in self.numbers:
            if not (scalar.is_extended_real or scalar is sp.nan):
                raise ValueError(f"the equation holds {scalar}, which is no real number")
            self.numbers.append(scalar)
        return len(self.parameters) + self.numbers.index(scalar)

    def values(self) -> tuple[float, ...]:
        """The numbers, as they follow the parameters."""
        return tuple(float(number) for number in self.numbers)


@dataclass(frozen=True)
class Language:
    """What two languages say differently about scalars."""

    call: str
    choice: str
    conjunction: str
    disjunction: str
    negation: str
    true: str
    false: str


PYTHON = Language("math.{}", "({yes} if {condition} else {no})", " and ", " or ", "(not {})", "True", "False")
C = Language("{}", "({condition} ? {yes} : {no})", " && ", " || ", "(!{})", "1", "0")


class Printer:
    """Turns scalar expressions into text, and notes which scalars and temporaries that text needs.

    Attributes
    ----------
    constants : dict of str to int
        Scalars that were used, with their place in the array of scalars.
    assignments : list of (str, str)
        Temporaries, in the order in which they must be assigned.
    """

    def __init__(self, language: Language, scalars: Scalars, names: Names) -> None:
        self.language, self.scalars, self.names = language, scalars, names
        self.constants: dict[str, int] = {}
        self.assignments: list[tuple[str, str]] = []

    def results(self, expressions: Sequence[sp.Expr]) -> list[str]:
        """The text of each expression; what they share becomes temporaries."""
        shared, reduced = sp.cse(expressions, symbols=sp.numbered_symbols("v", cls=_Temporary), order="none")
        inline: dict[sp.Basic, sp.Basic] = {}
        for temporary, e in shared:
            e = e.xreplace(inline)
            if _is_negated(e) and e.args[1].is_Symbol:
                inline[temporary] = e  # a minus sign is not worth a name
            else:
                self.assignments.append((temporary.name, self.text(e)))
        return [self.text(e.xreplace(inline)) for e in reduced]

    def text(self, e: sp.Basic) -> str:
        if e.is_number or isinstance(e, Parameter):
            return self._constant(e)
        if isinstance(e, Sample):
            return self.names.sample("at", e)
        if isinstance(e, Coordinate):
            return self.names("position", e.name)
        if isinstance(e, _Temporary):
            return str(e.name)
        for kinds, method in self._RULES:
            if isinstance(e, kinds):
                return method(self, e)
        for function, name in _CALLED.items():
            if isinstance(e, function):
                return self._call(self.language.call.format(name), e.args)
        if e.func in _DEFINED:
            return self._call(_DEFINED[e.func], e.args)
        known = ", ".join(sorted(function.__name__ for function in (*_CALLED, *_DEFINED)))
        raise ValueError(f"no kernel can be made of {type(e).__name__!r} in the equation: {e}; known are {known}")

    def _constant(self, e: sp.Expr) -> str:
        index = self.scalars.index(e)
        number = index - len(self.scalars.parameters)
        name = self.names("p", e.name) if isinstance(e, Parameter) else f"k{number}"
        self.constants[name] = index
        return name

    def _call(self, name: str, arguments: Sequence[sp.Expr]) -> str:
        return f"{name}({', '.join(map(self.text, arguments))})"

    def _sum(self, e: sp.Add) -> str:
        first, *rest = sorted(e.args, key=_is_negated)  # stable: a plain term first, if there is one
        signed = (f"- {self.text(-term)}" if _is_negated(term) else f"+ {self.text(term)}" for term in rest)
        return f"({' '.join([self.text(first), *signed])})"

    def _product(self, e: sp.Mul) -> str:
        if _is_negated(e):
            return f"(-{self.text(sp.Mul(*e.args[1:]))})"
        under = [f for f in e.args if _is_divisor(f)]
        over = [f for f in e.args if not _is_divisor(f)] or [sp.Integer(1)]
        top = " * ".join(map(self.text, over))
        return f"({' / '.join([top, *(self.text(sp.Pow(f.base, -f.exp)) for f in under)])})"

    def _power(self, e: sp.Pow) -> str:
        base, exponent = e.args
        if _is_divisor(e):
            return f"({self.text(sp.Integer(1))} / {self.text(sp.Pow(base, -exponent))})"
        halves = 2 * float(exponent) if exponent.is_number else math.nan
        if not (halves.is_integer() and halves < 2 * _LARGEST_PRODUCT + 2):
            return self._call(self.language.call.format("pow"), e.args)
        whole, odd = divmod(int(halves), 2)
        name = self._temporary(base) if whole + odd > 1 else self.text(base)
        factors = [name] * whole + [f"{self.language.call.format('sqrt')}({name})"] * odd
        return factors[0] if len(factors) == 1 else f"({' * '.join(factors)})"

    def _temporary(self, e: sp.Expr) -> str:
        """The name of an expression that is read more than once."""
        text = self.text(e)
        if text.isidentifier():
            return text
        name = f"u{len(self.assignments)}"
        self.assignments.append((name, text))
        return name

    def _piecewise(self, e: sp.Piecewise) -> str:
        text = self.text(sp.nan) if e.args[-1].cond is not sp.true else ""
        for value, condition in reversed(e.args):
            if condition is sp.true:
                text = self.text(value)
            else:
                text = self.language.choice.format(condition=self.text(condition), yes=self.text(value), no=text)
        return text

    def _relational(self, e: Relational) -> str:
        return f"({self.text(e.lhs)} {e.rel_op} {self.text(e.rhs)})"

    def _logical(self, e: BooleanFunction) -> str:
        language, parts = self.language, [self.text(argument) for argument in e.args]
        if isinstance(e, sp.Not):
            return language.negation.format(*parts)
        if not isinstance(e, sp.And | sp.Or):
            return self.text(sp.to_nnf(e))
        return f"({(language.conjunction if isinstance(e, sp.And) else language.disjunction).join(parts)})"

    def _truth(self, e: sp.Basic) -> str:
        return self.language.true if e is sp.true else self.language.false

    def _step(self, e: sp.Expr) -> str:
        below, level, above = (-1, 0, 1) if isinstance(e, sp.sign) else (0, e.args[1], 1)
        value, zero = self._temporary(e.args[0]), self.text(sp.Integer(0))
        text = self.text(sp.sympify(level))
        for sign, side in (("<", below), (">", above)):
            condition, yes = f"({value} {sign} {zero})", self.text(sp.Integer(side))
            text = self.language.choice.format(condition=condition, yes=yes, no=text)
        return text

    def _extremum(self, e: sp.Expr) -> str:
        name, (first, *rest) = _DEFINED[e.func], map(self.text, e.args)
        for text in rest:
            first = f"{name}({first}, {text})"
        return first

    def _inside(self, e: Inside) -> str:
        value, lower, upper = map(self.text, e.args)
        condition = f"({lower} <= {value}{self.language.conjunction}{value} <= {upper})"
        yes, no = self.text(sp.Integer(1)), self.text(sp.Integer(0))
        return self.language.choice.format(condition=condition, yes=yes, no=no)

    _RULES: tuple[tuple[tuple[type[sp.Basic], ...], Callable[[Printer, sp.Basic], str]], ...] = (
        ((sp.Add,), _sum),
        ((sp.Mul,), _product),
        ((sp.Pow,), _power),
        ((sp.Piecewise,), _piecewise),
        ((Relational,), _relational),
        ((BooleanFunction,), _logical),
        ((sp.logic.boolalg.BooleanAtom,), _truth),
        ((sp.sign, sp.Heaviside), _step),
        ((sp.Max, sp.Min), _extremum),
        ((Inside,), _inside),
    )


class _Temporary(sp.Symbol):
    """A shared subexpression."""


def _is_negated(e: sp.Expr) -> bool:
    return bool(e.is_Mul and e.args[0] == -1)


def _is_divisor(e: sp.Expr) -> bool:
    return bool(e.is_Pow and e.exp.is_number and e.exp.is_negative)
