"""What unstable crystals lead to: the crystals that were made of them, and of these, put together to families.

A family is all that can be reached from a generated crystal: a child, or the crystal that a child relaxed to, which may
be one of the set. Only what lies lower in energy than the generated crystal counts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument, FamilyRecord, calculation_key
from phononbench_flows.outcomes import Status
from phononbench_flows.sets.children import BORN
from phononbench_flows.sets.set_names import children_of, generated_of, is_children_set
from phononbench_flows.structures import stored_structure

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

LOWER = 1e-6
"""eV per atom; energies that differ by less are the same."""

_FIELDS = ["id", "set", "status", "duplicate_of", "known_as", "origin.parent", "origin.root", "origin.generation"]
_FIELDS += ["symmetry_relaxed.symbol", "relaxation.energy_per_atom", "timings"]


@dataclass(frozen=True)
class Member:
    """A crystal of a family.

    Attributes:
        energy: after relaxation, eV per atom; None if it was not relaxed.
        seconds: that it took to judge it.
    """

    id: str
    set: str
    status: str
    duplicate_of: str | None
    known_as: str | None
    parent: str | None
    root: str | None
    generation: int
    space_group: str
    energy: float | None
    seconds: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Member:
        """From the fields of its document."""
        origin = row["origin"]
        return cls(
            id=row["id"],
            set=row["set"],
            status=row["status"],
            duplicate_of=row.get("duplicate_of"),
            known_as=row.get("known_as"),
            parent=origin.get("parent"),
            root=origin.get("root"),
            generation=origin.get("generation") or 0,
            space_group=(row.get("symmetry_relaxed") or {}).get("symbol") or "?",
            energy=(row.get("relaxation") or {}).get("energy_per_atom"),
            seconds=sum((row.get("timings") or {}).values()),
        )


@dataclass
class Lines:
    """The crystals of a set and all that were made of them, by id, with the children of each.

    Those that were reached from a crystal are found by :meth:`reached`.
    """

    members: dict[str, Member]
    children: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: ResultsStore, mine: Mapping[str, str]) -> Lines:
        """Parameters: ``mine``: set and protocol id of the generated crystals, or of their children."""
        both = [children_of(mine["set"]), generated_of(mine["set"])]
        either = {**mine, "set": {"$in": both}, "status": {"$ne": Status.GONE.value}}
        members = {row["id"]: Member.of(row) for row in store.query(either, _FIELDS)}
        children: defaultdict[str, list[str]] = defaultdict(list)
        for each in members.values():
            if each.parent is not None:
                children[each.parent].append(each.id)
        return cls(members, dict(children))

    def reached(self, start: str) -> dict[str, list[str]]:
        """Crystals that one leads to, by id, each with the shortest way to it from there: ids, the start's first."""
        ways, waiting = {start: [start]}, deque([start])
        while waiting:
            at = waiting.popleft()
            for child in sorted(self.children.get(at, ())):
                after = self.members[child].duplicate_of or child
                if after in self.members and after not in ways:
                    ways[after] = [*ways[at], after]
                    waiting.append(after)
        del ways[start]
        return ways

    def lower(self, start: str) -> list[Member]:
        """Crystals that one leads to and that lie lower in energy, or wait to be relaxed; the lowest first."""
        rest = self.members[start].energy or 0.0
        found = [self.members[name] for name in self.reached(start)]
        falling = [each for each in found if each.energy is None or each.energy < rest - LOWER]
        return sorted(falling, key=lambda each: (each.energy is None, each.energy or 0.0, each.id))

    def is_worth_following(self, document: CalculationDocument) -> bool:
        """Whether an unstable crystal lies lower than where it comes from, and no stable relative lies lower still."""
        root = document.origin.root
        if root is None or root not in self.members:
            return True
        own, rest = self.members[document.id].energy, self.members[root].energy
        if own is None or rest is None or own >= rest - LOWER:
            return False
        stable = [each.energy for each in self.lower(root) if each.status == Status.STABLE and each.energy is not None]
        return all(energy >= own for energy in stable)


def family(lines: Lines, root: str) -> FamilyRecord:
    """What a generated crystal leads to, but for the distance of the atoms."""
    found, ways = lines.lower(root), lines.reached(root)
    made = [each for each in lines.members.values() if each.root == root]
    best = next((each for each in found if each.status == Status.STABLE and each.energy is not None), None)
    waiting = any(each.status == Status.PENDING for each in made)
    record = FamilyRecord(
        outcome="pending" if waiting else _outcome(found, made),
        descendants=sorted({each.status for each in found}),
        n_descendants=len(made),
        generations=max((each.generation for each in made), default=0),
        seconds=sum(each.seconds for each in made),
    )
    if best is None or best.energy is None:
        return record
    way = ways[best.id]
    record.stable, record.known_as = best.id, best.known_as
    record.energy_gained = (lines.members[root].energy or 0.0) - best.energy
    record.path = [lines.members[each].space_group for each in way]
    record.generations = len(way) - 1
    record.in_set = None if is_children_set(best.set) else best.id
    return record


def _outcome(
    found: Iterable[Member], made: Iterable[Member]
) -> Literal["stable", "undecided", "unstable", "failed", "none", "pending"]:
    there = {each.status for each in found}
    if Status.STABLE in there:
        return "stable"
    if Status.UNDECIDED in there:
        return "undecided"
    if Status.UNSTABLE in there:
        return "unstable"
    return "failed" if any(each.status == Status.FAILED for each in made) else "none"


def tell_families(store: ResultsStore, mine: Mapping[str, str], roots: Iterable[str] | None = None) -> None:
    """Write into the documents of followed generated crystals what they lead to.

    Parameters:
        mine: set and protocol id of the generated crystals.
        roots: ids of those of whom it is asked; None for all.
    """
    lines = Lines.read(store, mine)
    wanted = set(lines.members) if roots is None else set(roots)
    for document in list(store.documents({**mine, "followed": {"$ne": None}})):
        if document.id not in wanted or document.id not in lines.members:
            continue
        record = family(lines, document.id)
        record.seconds += _seconds_of_following(store, document)
        before = document.family
        if record.stable is not None:
            same = before is not None and before.stable == record.stable
            record.rmsd = before.rmsd if same and before else _rmsd(store, document, record.stable)
        if record != before:
            document.family = record
            store.put(document)


def _seconds_of_following(store: ResultsStore, document: CalculationDocument) -> float:
    rows = store.query(
        {"origin.root": document.id, "protocol_id": document.protocol_id, "followed": {"$ne": None}} | BORN,
        ["followed.seconds"],
    )
    own = document.followed.seconds if document.followed else 0.0
    return own + sum(float(row["followed"]["seconds"]) for row in rows)


def _rmsd(store: ResultsStore, document: CalculationDocument, other: str) -> float | None:
    """How far atoms are from where they were, the cells made alike, in Å; None if nothing maps one onto the other."""
    found = store.get(calculation_key(other, document.protocol_id))
    if found is None or found.relaxed_structure is None or document.relaxed_structure is None:
        return None
    return rms_distance(
        stored_structure(document.relaxed_structure, document.id), stored_structure(found.relaxed_structure, found.id)
    )


def rms_distance(one: Structure, other: Structure) -> float | None:
    """Root mean square distance of the atoms of two crystals with cells made alike, in Å.

    None if pymatgen's StructureMatcher finds no map within wide tolerances.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    small, large = sorted((one.get_primitive_structure(0.01), other.get_primitive_structure(0.01)), key=len)
    matcher = StructureMatcher(ltol=0.4, stol=0.6, angle_tol=15, primitive_cell=False, attempt_supercell=True)
    found = matcher.get_rms_dist(large, small)
    return None if found is None else float(found[0] * (other.volume / len(other)) ** (1 / 3))
