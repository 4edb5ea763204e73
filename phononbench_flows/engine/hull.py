"""Energies above the convex hull, from energies of one potential alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of a crystal, in eV per atom, and its formula."""

    formula: str
    per_atom: float


@dataclass(frozen=True, slots=True)
class AboveHull:
    """Where a crystal lies over the hull of its chemical system.

    Attributes:
        energy: above the hull of the references, in eV per atom, negative below it; None where there is no hull.
        decomposition: share of the atoms in each phase of the hull that it would fall apart into, by formula.
        missing: elements of which no reference is known, so that there is no hull.
        n_references: references in the chemical system.
        n_compounds: those of them that are no element. Without any the hull is that of the elements alone, and the
            true one may lie far below.
    """

    energy: float | None
    decomposition: dict[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    n_references: int = 0
    n_compounds: int = 0


def above_hull(crystals: Sequence[Energy], references: Sequence[Energy]) -> list[AboveHull]:
    """Each crystal over the hull of the references in its chemical system (pymatgen's ``PhaseDiagram``).

    The crystals are no part of the hull: one that lies below it has a negative energy. Where an element of a crystal
    has no reference of its own, there is no hull; to take its energy for zero would be an invention.
    """
    entries = [(_elements(each), PDEntry(Composition(each.formula), _total(each))) for each in references]
    hulls: dict[frozenset[str], _Hull] = {}
    found = []
    for crystal in crystals:
        system = _elements(crystal)
        if system not in hulls:
            hulls[system] = _Hull.of(system, [entry for elements, entry in entries if elements <= system])
        found.append(hulls[system].above(crystal))
    return found


@dataclass(frozen=True)
class _Hull:
    missing: tuple[str, ...]
    n_references: int
    n_compounds: int
    diagram: PhaseDiagram | None

    @classmethod
    def of(cls, system: frozenset[str], entries: list[PDEntry]) -> _Hull:
        ends = {entry.composition.elements[0].symbol for entry in entries if entry.is_element}
        missing = tuple(sorted(system - ends))
        n_compounds = sum(not entry.is_element for entry in entries)
        return cls(missing, len(entries), n_compounds, None if missing else PhaseDiagram(entries))

    def above(self, crystal: Energy) -> AboveHull:
        if self.diagram is None:
            return AboveHull(None, {}, self.missing, self.n_references, self.n_compounds)
        entry = PDEntry(Composition(crystal.formula), _total(crystal))
        phases, energy = self.diagram.get_decomp_and_e_above_hull(entry, allow_negative=True)
        shares = {phase.composition.reduced_formula: float(share) for phase, share in (phases or {}).items()}
        place = None if energy is None else float(energy)
        return AboveHull(place, shares, (), self.n_references, self.n_compounds)


def _elements(energy: Energy) -> frozenset[str]:
    return frozenset(element.symbol for element in Composition(energy.formula).elements)


def _total(energy: Energy) -> float:
    return energy.per_atom * Composition(energy.formula).num_atoms
