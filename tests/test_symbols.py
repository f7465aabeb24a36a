"""The vocabulary: what builds an equation, what is refused, and how it reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp

import voxdask as vd
from voxdask import symbols
from voxdask.symbols import (
    Clip,
    Divergence,
    Dot,
    Face,
    Field,
    Gradient,
    Inside,
    Laplacian,
    Parameter,
    Vector,
    clip,
    div,
    dot,
    exp,
    face,
    grad,
    laplace,
)

c, u = Field("c", real=True), Field("u", real=True)


def test_functions_build_expressions() -> None:
    assert laplace(c) == Laplacian(c)
    assert div(2 * c * grad(u)) == Divergence(2 * c * Gradient(u))
    assert dot(grad(c), -grad(u)) == Dot(Gradient(c), -Gradient(u))
    assert face(c**2) == Face(c**2)
    assert clip(c, 0, np.float64(0.5)) == Clip(c, 0, sp.Float(0.5))
    assert exp(c) == sp.exp(c)
    assert laplace(3) == Laplacian(3)


def test_vectors_are_a_linear_space() -> None:
    v, w = grad(c), grad(u)
    assert (v + w - v).expression == Gradient(u)
    assert (-v * 2 / c).expression == -2 * Gradient(c) / c
    assert sum([v, w]).expression == Gradient(c) + Gradient(u)  # type: ignore[arg-type, call-overload, union-attr]
    assert (np.float64(2) * v).expression == 2.0 * Gradient(c)
    assert repr(v) == "Vector(Gradient(c))"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: grad(c) * grad(u), "use dot"),
        (lambda: div(c), "div takes vectors such as grad(u), got Field"),
        (lambda: dot(grad(c), c), "dot takes vectors"),
        (lambda: grad(c) + c, "+ takes vectors"),
        (lambda: laplace(grad(c)), "laplace takes a scalar, got a vector"),
        (lambda: grad(grad(c)), "grad takes a scalar, got a vector"),
        (lambda: clip(grad(c), 0, 1), "clip takes a scalar, got a vector"),
        (lambda: face(grad(c)), "face takes a scalar, got a vector"),
        (lambda: exp(grad(c)), "exp takes a scalar, got a vector"),
        (lambda: laplace("c"), "laplace takes a scalar expression, got str"),
        (lambda: laplace(np.ones(3)), "laplace takes a scalar expression, got ndarray"),
        (lambda: laplace([c]), "laplace takes a scalar expression, got list"),
        (lambda: laplace(True), "laplace takes a scalar expression, got bool"),
        (lambda: grad(c) * "2", "a factor of a vector takes a scalar expression, got str"),
        (lambda: grad(c) * np.ones(3), "a factor of a vector takes a scalar expression, got ndarray"),
        (lambda: grad(c) / grad(u), "the divisor of a vector takes a scalar, got a vector"),
        (lambda: laplace(c, boundary="neumann"), "takes no 'boundary'"),
        (lambda: grad(c, boundary="neumann"), "takes no 'boundary'"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError) as error:
        build()
    assert message in str(error.value)


def test_a_scalar_and_a_vector_do_not_add() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        c + grad(c)


def test_clip_of_numbers_and_its_derivatives() -> None:
    low, high = Parameter("low", real=True), Parameter("high", real=True)
    assert [clip(v, 0, 1) for v in (-1, sp.Rational(1, 3), 4)] == [0, sp.Rational(1, 3), 1]
    assert sp.diff(clip(c, 0, 1) ** 2, c) == 2 * Clip(c, 0, 1) * Inside(c, 0, 1)
    assert [Inside(v, 0, 1) for v in (-1, 0, sp.Rational(1, 2), 1, 2)] == [0, 1, 1, 1, 0]
    assert sp.diff(Inside(c, 0, 1), c) == 0
    value = clip(c, low, high)
    for at, slopes in {-1: (0, 1, 0), 0.5: (1, 0, 0), 3: (0, 0, 1)}.items():
        numbers = {c: at, low: 0, high: 2}
        assert tuple(sp.diff(value, s).subs(numbers) for s in (c, low, high)) == slopes
    assert clip(c, 0, 1).is_extended_real


def test_limits_in_the_wrong_order() -> None:
    with pytest.raises(ValueError, match="limits 1 and 0; the lower one comes first"):
        clip(c, 1, 0)


def test_symbols_of_different_kinds_differ() -> None:
    assert len({kind("x", real=True) for kind in (Field, Parameter, symbols.Coordinate, sp.Symbol)}) == 4


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (div(c * u * grad(c)), r"\nabla \cdot \left( c u \nabla c \right)"),
        (div(exp(c) * grad(c)), r"\nabla \cdot \left( e^{c} \nabla c \right)"),
        (div((1 + c) * grad(c)), r"\nabla \cdot \left( \left( c + 1 \right) \nabla c \right)"),
        (div(c * grad(c) - grad(u)), r"\nabla \cdot \left( c \nabla c - \nabla u \right)"),
        (div(c * (grad(c) + grad(u))), r"\nabla \cdot \left( c \left( \nabla c + \nabla u \right) \right)"),
        (laplace(c**2), r"\nabla^2 \left( c^{2} \right)"),
        (laplace(c) ** 2, r"\left( \nabla^2 c \right)^{2}"),
        (clip(c, 0, 1) ** 3, r"\left( \left[ c \right]_{0}^{1} \right)^{3}"),
        (face(c) ** 2, r"\left( \overline{c} \right)^{2}"),
        (dot(grad(c), grad(c)) ** 2, r"\left( \left| \nabla c \right|^2 \right)^{2}"),
        (dot(grad(c), grad(u)), r"\left( \nabla c \right) \cdot \left( \nabla u \right)"),
        (symbols.Component(Gradient(c), sp.Symbol("x")), r"\left( \nabla c \right)_{x}"),
    ],
)
def test_latex(expression: sp.Expr, text: str) -> None:
    assert sp.latex(expression) == text


def test_the_vocabulary_is_public_and_documented() -> None:
    names = [n for n in symbols.__all__ if n[0].islower()]
    for name in names:
        value = getattr(symbols, name)
        assert getattr(vd, name) is value
        if inspect.isfunction(value):
            assert value.__name__ == name
        assert inspect.getdoc(value)
    assert isinstance(grad(c), Vector)
