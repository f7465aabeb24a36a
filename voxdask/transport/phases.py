"""What the values of an image conduct, and how much of that there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from voxdask.segmented import mask_of, open_segmented, parse_labels
from voxdask.transport.scan import Scan, require_labels


class Phase(Protocol):
    """Relative diffusivities from the values of an image.

    Attributes
    ----------
    kind : dtype
        Of what conducts: one byte where it does or does not.
    """

    @property
    def kind(self) -> Any:
        """See above."""

    def read(self, block: np.ndarray) -> tuple[np.ndarray, Any]:
        """What voxels conduct, and the sum of it, or several that add up to it."""


@dataclass(frozen=True)
class Labelled:
    """Some labels, which conduct.

    Attributes
    ----------
    labels : tuple of int
    """

    labels: Sequence[int]

    @classmethod
    def of(cls, scan: Scan, phase: Any) -> Labelled:
        """From a user's argument; TypeError if the image holds no labels."""
        require_labels(scan.image)
        return cls(parse_labels("phase", phase))

    @property
    def kind(self) -> Any:
        """See :class:`Phase`."""
        return np.uint8

    def read(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Phase`; the voxels of each label."""
        mine = mask_of(block, self.labels)
        if len(self.labels) == 1:
            return mine, np.array([np.count_nonzero(mine)])
        return mine, np.array([np.count_nonzero(block == label) for label in self.labels])

    def require(self, counts: np.ndarray, scan: Scan) -> None:
        """ValueError if there is none of a label."""
        if not counts.all():
            open_segmented(scan.image).require("phase", self.labels, counts)


@dataclass(frozen=True)
class Shares:
    """The image holds the share of each voxel that conducts.

    Attributes
    ----------
    dtype : dtype
    """

    dtype: np.dtype

    @property
    def kind(self) -> Any:
        """See :class:`Phase`."""
        return self.dtype

    def read(self, block: np.ndarray) -> tuple[np.ndarray, float]:
        """See :class:`Phase`; ValueError for what is no share."""
        inside = (block >= 0) & (block <= 1)  # False where it is NaN
        if not inside.all():
            raise ValueError(
                f"image holds {block[~inside][0]} where a share between 0 and 1 is needed (phase=None); give the "
                "phase's label for a segmented image"
            )
        return block, float(block.sum(dtype=np.float64))


@dataclass(frozen=True)
class Relative:
    """Diffusivities, by label or as they are in the image, over the largest.

    Attributes
    ----------
    dtype : dtype
    scale : float
        The largest.
    labels, given : ndarray, optional
        Labels, rising, and the diffusivity of each.
    """

    dtype: np.dtype
    scale: float
    labels: np.ndarray | None = None
    given: np.ndarray | None = None

    @property
    def kind(self) -> Any:
        """See :class:`Phase`."""
        binary = self.given is not None and set(self.given.tolist()) <= {0.0, self.scale}
        return np.uint8 if binary else self.dtype

    def read(self, block: np.ndarray) -> tuple[np.ndarray, float]:
        """See :class:`Phase`."""
        scale = self.scale or 1.0
        if self.labels is None or self.given is None:
            values: np.ndarray = block / scale
        else:
            values = (self.given / scale)[np.searchsorted(self.labels, block)]
        return values, float(values.sum(dtype=np.float64))
