"""Equations that are ready to use, each written once in vector notation."""

from voxdask.models.cahn_hilliard import CahnHilliard
from voxdask.models.reaction_diffusion import ReactionDiffusion

__all__ = ["CahnHilliard", "ReactionDiffusion"]
