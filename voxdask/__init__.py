"""Physics on voxel images that may be larger than memory."""

from voxdask import accessor as accessor  # registers .vd
from voxdask import models, steppers, verify
from voxdask.boundary import Dirichlet, Neumann
from voxdask.bounds import hashin_shtrikman_bounds, wiener_bounds
from voxdask.clusters import clusters
from voxdask.grid import Grid, dataset
from voxdask.images import open_image
from voxdask.indicator import indicator
from voxdask.labels import labels_from_phases, phases_from_labels
from voxdask.model import Model
from voxdask.plot import plot_slices
from voxdask.report import Report
from voxdask.segmented import volume_fractions
from voxdask.simulate import plan, simulate
from voxdask.surface import surface_area
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
from voxdask.transport.effective import EffectiveDiffusivity, effective_diffusivity
from voxdask.transport.electrode import Electrode, electrode_tortuosity
from voxdask.transport.extrapolation import Extrapolation, extrapolated_tortuosity
from voxdask.transport.representative import RepresentativeVolume, representative_volume
from voxdask.transport.tortuosity import Tortuosity, tortuosity
from voxdask.triple import triple_phase_boundary

__all__ = [
    "Dirichlet",
    "EffectiveDiffusivity",
    "Electrode",
    "Extrapolation",
    "Grid",
    "Model",
    "Neumann",
    "Report",
    "RepresentativeVolume",
    "Tortuosity",
    "clip",
    "clusters",
    "cos",
    "dataset",
    "div",
    "dot",
    "effective_diffusivity",
    "electrode_tortuosity",
    "exp",
    "extrapolated_tortuosity",
    "face",
    "grad",
    "hashin_shtrikman_bounds",
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
    "representative_volume",
    "simulate",
    "sin",
    "sqrt",
    "steppers",
    "surface_area",
    "t",
    "tangential_laplace",
    "tanh",
    "tortuosity",
    "triple_phase_boundary",
    "verify",
    "volume_fractions",
    "wiener_bounds",
    "x",
    "y",
    "z",
]


def __dir__() -> list[str]:
    return __all__
