"""Physics on voxel images that may be larger than memory."""

from voxdask import accessor as accessor  # registers .vd
from voxdask import models, steppers, verify
from voxdask.boundary import Dirichlet, Neumann
from voxdask.grid import Grid, dataset
from voxdask.images import open_image
from voxdask.indicator import indicator
from voxdask.labels import labels_from_phases, phases_from_labels
from voxdask.model import Model
from voxdask.plot import plot_slices
from voxdask.report import Report
from voxdask.simulate import plan, simulate
from voxdask.symbols import (
    clip,
    cos,
    div,
    dot,
    exp,
    face,
    grad,
    laplace,
    log,
    norm,
    normal_laplace,
    sin,
    sqrt,
    t,
    tangential_laplace,
    tanh,
    x,
    y,
    z,
)

__all__ = [
    "Dirichlet",
    "Grid",
    "Model",
    "Neumann",
    "Report",
    "clip",
    "cos",
    "dataset",
    "div",
    "dot",
    "exp",
    "face",
    "grad",
    "indicator",
    "labels_from_phases",
    "laplace",
    "log",
    "models",
    "norm",
    "normal_laplace",
    "open_image",
    "phases_from_labels",
    "plan",
    "plot_slices",
    "simulate",
    "sin",
    "sqrt",
    "steppers",
    "t",
    "tangential_laplace",
    "tanh",
    "verify",
    "x",
    "y",
    "z",
]
