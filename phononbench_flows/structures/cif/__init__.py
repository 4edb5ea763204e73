"""CIF: taken only if the file itself determines the crystal, whichever way it is written.

gemmi reads the grammar and the tables, spglib the settings; everything else is checked against what the file says
itself: its operations, names and numbers, its cell, and its counts of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.cif.blocks import Block, block_with_atoms
from phononbench_flows.structures.cif.cell import read_cell
from phononbench_flows.structures.cif.counts import Counts, read_counts
from phononbench_flows.structures.cif.digits import MINUS
from phononbench_flows.structures.cif.expansion import Orbit, content, expand, merge
from phononbench_flows.structures.cif.sites import Site, read_sites
from phononbench_flows.structures.cif.symmetry import Reading, Symmetry, check_system, symmetry
from phononbench_flows.structures.parsed import Parsed
from phononbench_flows.structures.raw import RejectedError, Rejection

__all__ = ["parse_cif"]

_MAGNETIC = ("_space_group_magn", "_magnetic_space_group", "_space_group_symop_magn", "_atom_site_moment")
_MODULATED = (
    "_space_group_symop_ssg",
    "_cell_wave_vector",
    "_cell_subsystem",
    "_atom_site_fourier",
    "_atom_site_displace_fourier",
    "_atom_site_occ_fourier",
)
_MODULATION = "_cell_modulation_dimension"
_SAME_PLACE = 1e-4  # fractional
_NAMED_SITES = 5


@dataclass(frozen=True)
class _Attempt:
    """What a reading of the symmetry makes of the sites, and what speaks against it."""

    reading: Reading
    orbits: list[Orbit]
    objection: Rejection | None


def parse_cif(text: str) -> Parsed:
    """The crystal of the one block that holds one, in its cell as the file gives it.

    Raises:
        RejectedError: it holds none, contradicts itself, or does not say which crystal is meant.
    """
    block = block_with_atoms(text)
    _refuse_other_crystals(block)
    lattice = read_cell(block)
    counts = read_counts(block)
    notes = _notes_of_spelling(text)
    sites = read_sites(block, (counts.formula or {}).keys(), notes)
    said = symmetry(block, lattice.matrix)
    attempts = [_attempt(reading, sites, counts, lattice) for reading in said.readings]
    chosen = _chosen(attempts, notes)
    check_system(block, chosen.reading.operations, lattice.matrix)
    _check_certain(chosen, said, counts, lattice)
    return Parsed(_structure(lattice, chosen.orbits), (*notes, *said.notes, *_notes_of_places(sites, chosen.orbits)))


def _refuse_other_crystals(block: Block) -> None:
    tags = block.tags()
    # Besides, this keeps untrusted text from pymatgen's magnetic groups, where CVE-2024-23346 was.
    if any(tag.startswith(_MAGNETIC) for tag in tags):
        raise RejectedError(Reason.UNSUPPORTED_FILE, "It is a magnetic CIF, its moments would be lost.")
    dimension = [value for _, value in block.said(_MODULATION) if value != "0"]
    if dimension or any(tag.startswith(_MODULATED) for tag in tags):
        raise RejectedError(
            Reason.UNSUPPORTED_FILE, "It is a modulated crystal, which no cell in three dimensions holds."
        )


def _attempt(reading: Reading, sites: list[Site], counts: Counts, lattice: Lattice) -> _Attempt:
    try:
        orbits = merge(expand(sites, reading.operations, lattice.matrix), lattice.matrix)
    except RejectedError as error:
        return _Attempt(reading, [], error.rejection)
    objection = counts.objection(content(orbits), lattice.volume) or _miscounted(orbits)
    return _Attempt(reading, orbits, None if objection is None else Rejection(Reason.CONTRADICTORY, objection))


def _miscounted(orbits: list[Orbit]) -> str | None:
    """Multiplicities are images of a site; a program of old wrote the order of its symmetry under that name."""
    given = [(orbit, orbit.site.multiplicity) for orbit in orbits if orbit.site.multiplicity is not None]
    wrong = [(orbit, said) for orbit, said in given if said != len(orbit.positions)]
    if wrong and any(said != orbit.order for orbit, said in given):
        orbit, said = wrong[0]
        return f"Site {orbit.site.label} has multiplicity {said}, but {len(orbit.positions)} images."
    for orbit in orbits:
        if orbit.site.order not in {None, orbit.order}:
            return f"Site {orbit.site.label} has a symmetry of order {orbit.site.order}, but it is {orbit.order}."
    return None


def _chosen(attempts: list[_Attempt], notes: list[str]) -> _Attempt:
    """The only attempt that nothing speaks against, or one of several that make the same crystal."""
    good = [attempt for attempt in attempts if attempt.objection is None]
    if not good:
        first = attempts[0].objection
        raise RejectedError(first.reason, first.detail) if first else AssertionError("no reading")
    if any(not _is_same(good[0].orbits, other.orbits) for other in good[1:]):
        names = " or ".join(attempt.reading.name for attempt in good)
        detail = f"The symmetry may be {names}; neither an origin, axes nor a count of atoms in the file tells which."
        raise RejectedError(Reason.AMBIGUOUS, detail)
    if len(attempts) > 1:
        others = ", ".join(attempt.reading.name for attempt in attempts if attempt is not good[0])
        notes.append(
            f"The symmetry was taken as {good[0].reading.name}, not as {others}, which the atoms' counts decide."
        )
    return good[0]


def _check_certain(chosen: _Attempt, said: Symmetry, counts: Counts, lattice: Lattice) -> None:
    """What the file leaves open has to be decided by its counts."""
    found = content(chosen.orbits)
    if counts.confirm(found, lattice.volume):
        return
    if not said.stated and not all(orbit.site.multiplicity == 1 for orbit in chosen.orbits):
        detail = "The file states no symmetry, not even x,y,z, and no count of atoms that tells whether all are listed."
        raise RejectedError(Reason.AMBIGUOUS, detail)
    unsure = [orbit.site.label for orbit in chosen.orbits if not orbit.site.certain]
    if unsure and counts.formula is None:
        detail = f"Site {unsure[0]} has no type, and no formula tells which element it is."
        raise RejectedError(Reason.UNSUPPORTED_ELEMENT, detail)
    is_open = [orbit.site.label for orbit in chosen.orbits if orbit.is_open and orbit.site.multiplicity is None]
    if is_open:
        detail = f"Site {is_open[0]} may lie on a special position or beside it; its digits do not tell."
        raise RejectedError(Reason.AMBIGUOUS, detail)


def _is_same(first: list[Orbit], second: list[Orbit]) -> bool:
    """Whether the atoms are the same, at the same places."""
    if content(first) != content(second):
        return False
    for symbol in content(first):
        ours, theirs = (
            np.concatenate([orbit.positions for orbit in orbits if orbit.site.symbol == symbol])
            for orbits in (first, second)
        )
        differences = ours[:, None] - theirs[None]
        if not (np.abs(differences - np.rint(differences)) < _SAME_PLACE).all(axis=2).any(axis=1).all():
            return False
    return True


def _structure(lattice: Lattice, orbits: list[Orbit]) -> Structure:
    symbols = [orbit.site.symbol for orbit in orbits for _ in orbit.positions]
    return Structure(lattice, [Element(symbol) for symbol in symbols], np.concatenate([o.positions for o in orbits]))


def _notes_of_spelling(text: str) -> list[str]:
    return ["The file has U+2212, which was read as a minus where a number has it."] if MINUS in text else []


def _notes_of_places(sites: list[Site], orbits: list[Orbit]) -> list[str]:
    notes = []
    if len(orbits) < len(sites):
        notes.append("All atoms of the cell are listed beside the symmetry operations; each was taken once.")
    moved = [orbit for orbit in orbits if orbit.moved > 0]
    if moved:
        names = ", ".join(orbit.site.label for orbit in moved[:_NAMED_SITES])
        more = f" and {len(moved) - _NAMED_SITES} more" if len(moved) > _NAMED_SITES else ""
        farthest = max(orbit.moved for orbit in moved)
        notes.append(f"Put on special positions within the digits given, by up to {farthest:.2g} Å: {names}{more}.")
    return notes
