"""Force constants from forces: what phonopy's own solver does, for all atoms of a supercell at once.

The forces of each displacement are turned by the operations that leave the displaced atom in place, and what they are
linear in is found by a pseudo-inverse; the other atoms' force constants are those of an equivalent one, turned. phonopy
does the first in a loop over atoms, operations and displacements, which takes ten times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from phonopy import Phonopy
from phonopy.harmonic.force_constants import distribute_force_constants, distribute_force_constants_by_translations


def solve(phonon: Phonopy, forces: np.ndarray) -> None:
    """Set the full force constants (n_supercell, n_supercell, 3, 3), eV/Å^2, of a crystal whose displacements are made.

    Parameters:
        forces: of all displaced supercells, (n_displacements, n_supercell, 3), eV/Å.
    """
    dataset: Any = phonon.dataset
    displaced = dataset["first_atoms"]
    symmetry, primitive = phonon.symmetry, phonon.primitive
    numbers = np.array([each["number"] for each in displaced])
    displacements = np.array([each["displacement"] for each in displaced])
    rotations, permutations = symmetry.symmetry_operations["rotations"], symmetry.atomic_permutations
    lattice = np.array(phonon.supercell.cell.T, dtype="double", order="C")
    turns = lattice @ rotations @ np.linalg.inv(lattice)
    found = np.zeros((len(phonon.supercell), len(phonon.supercell), 3, 3))
    known = np.unique(numbers)
    for atom in known:
        kept = _leaving(phonon, atom)
        mine = numbers == atom
        found[atom] = _of_one_atom(displacements[mine], forces[mine], turns[kept], permutations[kept])
    distribute_force_constants(
        found,
        known,
        lattice,
        rotations,
        permutations,
        atom_list=primitive.p2s_map,
        fc_indices_of_atom_list=primitive.p2s_map,
    )
    distribute_force_constants_by_translations(found, primitive)
    phonon.force_constants = found


def _leaving(phonon: Phonopy, atom: int) -> np.ndarray:
    """Which operations of the supercell leave an atom where it is."""
    operations, cell = phonon.symmetry.symmetry_operations, phonon.supercell
    position = cell.scaled_positions[atom]
    apart = position - (operations["rotations"] @ position + operations["translations"])
    return np.flatnonzero(np.linalg.norm((apart - np.rint(apart)) @ cell.cell, axis=1) < phonon.symmetry.tolerance)


def _of_one_atom(
    displacements: np.ndarray, forces: np.ndarray, turns: np.ndarray, permutations: np.ndarray
) -> np.ndarray:
    """Force constants (n_supercell, 3, 3) between a displaced atom and all others.

    Parameters:
        displacements: of the atom, (n, 3), Å; forces: with each, (n, n_supercell, 3), eV/Å.
        turns: Cartesian rotations that leave it in place, (m, 3, 3); permutations: where each takes the atoms,
            (m, n_supercell).
    """
    moved = np.einsum("mij,nj->nmi", turns, displacements).reshape(-1, 3)
    comes_from = np.argsort(permutations, axis=1)
    turned = forces[:, comes_from] @ turns.transpose(0, 2, 1)
    found = -np.linalg.pinv(moved) @ turned.reshape(len(moved), -1)
    return found.reshape(3, -1, 3).transpose(1, 0, 2)
