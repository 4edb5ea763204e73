"""The interpolation that passes through a crystal's exact looks, made again from what is kept, and in phonopy's terms.

What is kept are its force constants, and the dynamical matrices at the q-points that were looked at. phonopy's matrices
are in eV/Å^2/u with the phases of the atoms' positions, D_ij(q) exp(2 pi i q.(r_j - r_i)), where ours are in THz^2 with
those of the cells; see :mod:`phononbench_flows.engine.interpolation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phononbench_flows.engine.force_constants import ForceConstants
from phononbench_flows.engine.interpolation import THZ2, Interpolation, Known, interpolation
from phononbench_flows.engine.q_symmetry import operations, star


def looks_arrays(known: Sequence[Known], tolerance: float) -> dict[str, np.ndarray]:
    """What has to be kept of exact looks, with the tolerance in Å of the interpolation that they correct.

    Returns:
        ``q`` (n, 3), ``matrices`` (n, 3N, 3N) in THz^2, and ``tolerance``.
    """
    return {
        "q": np.array([each.q for each in known]).reshape(-1, 3),
        "matrices": np.array([each.matrix for each in known]).astype(complex),
        "tolerance": np.asarray(tolerance),
    }


def through_looks(constants: ForceConstants, looks: Mapping[str, np.ndarray]) -> Interpolation:
    """The interpolation that passes through exact looks, and through all that symmetry makes of them.

    Parameters:
        constants: the first force constants.
        looks: from :func:`looks_arrays`.
    """
    start = interpolation(constants.phonopy(symmetry=False), tolerance=float(looks["tolerance"]))
    symmetry = operations(start.cell, constants.symprec)
    known = [Known(q, matrix) for q, matrix in zip(looks["q"], looks["matrices"], strict=True)]
    return start.passing_through([each for found in known for each in star(found, symmetry)])


class PhonopyMatrix:
    """Stands for phonopy's ``DynamicalMatrix`` where phonopy asks for one q-point after the other."""

    def __init__(self, phonon: Phonopy, interpolated: Interpolation) -> None:
        self.primitive: PhonopyAtoms = phonon.primitive
        self.supercell: PhonopyAtoms = phonon.supercell
        self.dynamical_matrix: np.ndarray | None = None
        self._interpolated = interpolated

    def run(self, q: np.ndarray) -> None:
        """Set ``dynamical_matrix`` (3n, 3n) to that of a q-point (3,), in eV/Å^2/u."""
        phases = np.repeat(np.exp(2j * np.pi * self.primitive.scaled_positions @ q), 3)
        matrix = self._interpolated.matrices(q)[0]
        self.dynamical_matrix = phases.conj()[:, None] * matrix * phases / THZ2
