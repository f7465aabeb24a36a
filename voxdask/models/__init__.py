"""Equations that are ready to use, each written once in vector notation."""

from voxdask.models.allen_cahn import AllenCahn
from voxdask.models.cahn_hilliard import CahnHilliard
from voxdask.models.free_energy import GradientFlow, from_free_energy
from voxdask.models.gray_scott import GrayScott
from voxdask.models.legendre import ExpLegendre, Legendre, exp_legendre, legendre
from voxdask.models.multiphase import MultiPhaseAllenCahn
from voxdask.models.potentials import DoubleWell, Obstacle, RegularSolution
from voxdask.models.reaction_diffusion import ChemicalDiffusion, ReactionDiffusion
from voxdask.models.smoothed_boundary import SmoothedBoundaryCahnHilliard, SmoothedBoundaryDiffusion

__all__ = [
    "AllenCahn",
    "CahnHilliard",
    "ChemicalDiffusion",
    "DoubleWell",
    "ExpLegendre",
    "GradientFlow",
    "GrayScott",
    "Legendre",
    "MultiPhaseAllenCahn",
    "Obstacle",
    "ReactionDiffusion",
    "RegularSolution",
    "SmoothedBoundaryCahnHilliard",
    "SmoothedBoundaryDiffusion",
    "exp_legendre",
    "from_free_energy",
    "legendre",
]
