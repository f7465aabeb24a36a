"""Steady transport in voxel images: tortuosity, effective diffusivity, electrodes."""
