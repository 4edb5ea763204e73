"""What the unstable crystals of sets lead to: how many to a stable one, by how much energy, how far, and how new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd

from phononbench_flows.documents import CalculationDocument, FamilyRecord
from phononbench_flows.outcomes import Status
from phononbench_flows.statistics import Rate, wilson

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

OUTCOMES = ("stable", "undecided", "unstable", "failed", "none", "pending")


@dataclass(frozen=True)
class Counts:
    """Of the followed unstable crystals of a set, how many lead where.

    Attributes:
        followed: crystals; outcomes: how many of them lead to what, every outcome named.
        children: crystals that were made of them, over all generations.
        different: stable crystals that they lead to, each counted once.
        new: those of ``different`` that neither the set nor the reference set has.
        energies: gained by those that lead to a stable crystal, eV per atom; distances: of their atoms, Å.
        seconds: that all of it took.
    """

    followed: int
    outcomes: Mapping[str, int]
    children: int
    different: int
    new: int
    energies: Sequence[float]
    distances: Sequence[float]
    seconds: float

    @property
    def stable(self) -> Rate:
        """Those that lead to a stable crystal, of those followed."""
        return wilson(self.outcomes["stable"], self.followed)


def counts(documents: Iterable[CalculationDocument], originals: Mapping[str, str] | None = None) -> Counts:
    """Parameters:
    documents: of unstable crystals; those that were not followed do not count.
    originals: for stable descendants that are the same as another one, that one, by ids.
    """
    families = [document.family for document in documents if document.family is not None]
    best = [each for each in families if each.stable is not None]
    different = {(originals or {}).get(str(each.stable), str(each.stable)): each for each in best}
    return Counts(
        followed=len(families),
        outcomes={outcome: sum(each.outcome == outcome for each in families) for outcome in OUTCOMES},
        children=sum(each.n_descendants for each in families),
        different=len(different),
        new=sum(_is_new(each) for each in different.values()),
        energies=[each.energy_gained for each in best if each.energy_gained is not None],
        distances=[each.rmsd for each in best if each.rmsd is not None],
        seconds=sum(each.seconds for each in families),
    )


def _is_new(family: FamilyRecord) -> bool:
    return family.in_set is None and family.known_as is None


def followed_modes(store: ResultsStore, sets: Sequence[str], protocol_id: str) -> pd.DataFrame:
    """A row for each of these sets of which crystals were followed."""
    rows = []
    for name in sets:
        mine = {"set": name, "protocol_id": protocol_id}
        documents = store.documents(mine | {"status": Status.UNSTABLE.value, "family": {"$ne": None}})
        found = counts(documents, same_children(store, mine))
        if found.followed:
            rows.append({"set": name} | _row(found))
    return pd.DataFrame(rows)


def same_children(store: ResultsStore, mine: Mapping[str, str]) -> dict[str, str]:
    """For children of a set that are the same as one before them when relaxed, that one, by ids."""
    from phononbench_flows.sets.set_names import children_of

    criteria = {**mine, "set": children_of(mine["set"]), "same_as": {"$ne": None}}
    return {row["id"]: row["same_as"] for row in store.query(criteria, ["id", "same_as"])}


def _row(found: Counts) -> dict[str, float | int | None]:
    rate = found.stable
    return {
        "followed": found.followed,
        **{f"leads_to_{outcome}": number for outcome, number in found.outcomes.items()},
        "children": found.children,
        "stable_child": rate.rate,
        "stable_child_low": rate.interval.low if rate.interval else None,
        "stable_child_high": rate.interval.high if rate.interval else None,
        "different": found.different,
        "new": found.new,
        "energy_gained_median_ev": median(found.energies) if found.energies else None,
        "rmsd_median_angstrom": median(found.distances) if found.distances else None,
        "seconds": found.seconds,
    }


def describe(documents: Iterable[CalculationDocument]) -> dict[str, str]:
    """The same for people, of one set."""
    found = counts(documents)
    others = ", ".join(f"{n} {outcome}" for outcome, n in found.outcomes.items() if n and outcome != "stable")
    return {
        "unstable crystals followed": str(found.followed),
        "lead to a stable crystal": f"{found.outcomes['stable']}{f' (others: {others})' if others else ''}",
        "energy gained": _range([1000 * each for each in found.energies], "meV per atom", 1),
        "atoms moved (RMSD)": _range(found.distances, "Å", 2),
        "crystals made of them": str(found.children),
        "new among the stable": f"{found.new} of {found.different}",
        "time": f"{found.seconds:.0f} s",
    }


def _range(values: Sequence[float], unit: str, digits: int) -> str:
    if not values:
        return "none"
    return f"median {median(values):.{digits}f} {unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"
