"""What a parsed crystal must satisfy before anything is computed for it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures.raw import Rejection

# Beyond this, a fractional coordinate in double precision no longer tells where in the cell an atom is.
MAX_FRACTIONAL = 1e6
# Volume over a * b * c below which three lattice vectors lie in one plane, whatever their lengths.
_FLAT = 1e-6
_ISOTOPES = ("D", "T")


def check(structure: Structure, rules: ScreeningSettings, elements: Collection[str] | None) -> Rejection | None:
    """Why the crystal is not to be computed, or None if it is.

    ``elements`` are the symbols that the potential knows; None stands for every element.
    """
    return (
        _check_size(structure, rules)
        or _check_elements(structure, elements)
        or _check_numbers(structure)
        or _check_cell(structure, rules)
        or _check_distances(structure, rules)
    )


def _check_size(structure: Structure, rules: ScreeningSettings) -> Rejection | None:
    if len(structure) == 0:
        return Rejection(Reason.UNPARSABLE, "The cell holds no atom.")
    if len(structure) > rules.max_atoms:
        return Rejection(
            Reason.TOO_MANY_ATOMS, f"The cell holds {len(structure)} atoms, the limit is {rules.max_atoms}."
        )
    return None


def _check_elements(structure: Structure, elements: Collection[str] | None) -> Rejection | None:
    if not structure.is_ordered:
        return Rejection(Reason.DISORDERED, "A site is shared by several elements, or not fully occupied.")
    species = {site.specie for site in structure}
    odd = {s for s in species if not isinstance(s, Element) or s.name in _ISOTOPES}
    if odd:
        names = ", ".join(sorted(s.name if isinstance(s, Element) else str(s) for s in odd))
        return Rejection(Reason.UNSUPPORTED_ELEMENT, f"The crystal holds {names}, which is not a plain element.")
    unknown = set() if elements is None else {s.symbol for s in species} - set(elements)
    if unknown:
        names = ", ".join(sorted(unknown))
        return Rejection(Reason.UNSUPPORTED_ELEMENT, f"The crystal holds {names}, which the potential does not know.")
    return None


def _check_numbers(structure: Structure) -> Rejection | None:
    if not np.isfinite(structure.lattice.matrix).all():
        return Rejection(Reason.BAD_NUMBERS, "The cell holds a number that is not finite.")
    coordinates = structure.frac_coords
    if not np.isfinite(coordinates).all():
        return Rejection(Reason.BAD_NUMBERS, "A coordinate is not finite.")
    largest = np.abs(coordinates).max()
    if largest > MAX_FRACTIONAL:
        return Rejection(
            Reason.BAD_NUMBERS, f"A fractional coordinate is {largest:.3g}, the limit is {MAX_FRACTIONAL:.0e}."
        )
    return None


def _check_cell(structure: Structure, rules: ScreeningSettings) -> Rejection | None:
    lattice = structure.lattice
    lengths, volume = lattice.abc, lattice.volume
    if min(lengths) <= 0 or not volume > _FLAT * np.prod(lengths):
        return Rejection(Reason.BAD_CELL, f"The lattice vectors span no volume (it is {volume:.3g} Å^3).")
    if max(lengths) > rules.max_length:
        return Rejection(
            Reason.BAD_CELL, f"A lattice vector is {max(lengths):.4g} Å long, the limit is {rules.max_length:g} Å."
        )
    sharpest = min(min(angle, 180 - angle) for angle in lattice.angles)
    if sharpest < rules.min_angle:
        return Rejection(
            Reason.BAD_CELL,
            f"Two lattice vectors are {sharpest:.3g}° from parallel, the limit is {rules.min_angle:g}°.",
        )
    per_atom = volume / len(structure)
    if not rules.min_volume_per_atom <= per_atom <= rules.max_volume_per_atom:
        return Rejection(
            Reason.VOLUME_OUT_OF_RANGE,
            f"The volume per atom is {per_atom:.4g} Å^3, "
            f"allowed are {rules.min_volume_per_atom:g} to {rules.max_volume_per_atom:g} Å^3.",
        )
    return None


def _check_distances(structure: Structure, rules: ScreeningSettings) -> Rejection | None:
    """Distances between atoms and all images, an atom's own images among them."""
    # The search takes time in proportion to the distance of an atom from the cell, so all are put into it.
    folded = Structure(structure.lattice, structure.species, structure.frac_coords % 1)
    centers, others, images, distances = folded.get_neighbor_list(rules.min_distance, exclude_self=True)
    # The list also holds what lies within rounding error beyond the limit.
    close = distances < rules.min_distance
    if not close.any():
        return None
    at = int(np.argmin(np.where(close, distances, np.inf)))
    first, second = structure[int(centers[at])].specie.symbol, structure[int(others[at])].specie.symbol
    image = " of a neighbouring cell" if images[at].any() else ""
    return Rejection(
        Reason.ATOMS_TOO_CLOSE,
        f"{first} and {second}{image} are {distances[at]:.3f} Å apart, the limit is {rules.min_distance:g} Å.",
    )
