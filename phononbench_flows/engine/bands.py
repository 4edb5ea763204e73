"""A band structure as plain arrays; free of torch, so that drawing one is quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bands:
    """Frequencies along the path, segment by segment.

    Attributes:
        q: per segment (n, 3); distances: per segment (n,), 1/Å; frequencies: per segment (n, n_bands), THz.
        labels: names of the points at the segments' ends, in phonopy's order.
        connections: whether each segment continues into the next.
    """

    q: list[np.ndarray]
    distances: list[np.ndarray]
    frequencies: list[np.ndarray]
    labels: list[str]
    connections: list[bool]

    def arrays(self) -> dict[str, np.ndarray]:
        """One array a field, for the blob store."""
        return {
            "q": np.concatenate(self.q),
            "distances": np.concatenate(self.distances),
            "frequencies": np.concatenate(self.frequencies),
            "lengths": np.array([len(q) for q in self.q]),
            "labels": np.array(self.labels),
            "connections": np.array(self.connections),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Bands:
        """Inverse of :meth:`arrays`."""
        ends = np.cumsum(arrays["lengths"])[:-1]
        return cls(
            q=np.split(arrays["q"], ends),
            distances=np.split(arrays["distances"], ends),
            frequencies=np.split(arrays["frequencies"], ends),
            labels=[str(label) for label in arrays["labels"]],
            connections=[bool(connected) for connected in arrays["connections"]],
        )
