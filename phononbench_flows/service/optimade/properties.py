"""What is told of a relaxed crystal by OPTIMADE: the standard's properties, and ours, which begin with our prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from optimade.adapters.structures.pymatgen import from_pymatgen
from optimade.exceptions import BadRequest
from optimade.models import StructureResource, StructureResourceAttributes
from optimade.models.utils import anonymize_formula, reduce_formula
from optimade.server.schemas import retrieve_queryable_properties
from pymatgen.core import Composition

from phononbench_flows.service.optimade.columns import (
    Column,
    Elements,
    Keys,
    Lengths,
    NotAsked,
    Numbers,
    Same,
    Texts,
    Times,
    Unknown,
)
from phononbench_flows.service.table import Table
from phononbench_flows.stability import Stability, is_clean
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import stored_structure

PREFIX = "phononbench"
OWN = f"_{PREFIX}_"
TOP_LEVEL = frozenset({"id", "type", "relationships", "links"})
"""Fields of an entry that stand beside its attributes, and are always there."""
SERVED = tuple(each.value for each in Stability)
"""Statuses of the crystals that are served: those that were relaxed and have a verdict."""
_FROM_STRUCTURE = frozenset({"lattice_vectors", "cartesian_site_positions", "species", "species_at_sites"})
"""Properties that are not in the table: documents are read only where one of these is wanted."""
_STANDARD = frozenset(StructureResourceAttributes.model_fields)


@dataclass(frozen=True)
class Property:
    """A property.

    Attributes:
        order: column of the table that it is sorted by; None where it is not.
        about: its description, unit and type, where the standard does not say them.
    """

    column: Column
    order: str | None = None
    about: Mapping[str, str] | None = None


def _words(name: str) -> Texts:
    return Texts(lambda table: (table.words[name].texts, table.codes[name]))


def _formula(read: Callable[[str], str]) -> Texts:
    return Texts(lambda table: (table.words["formula"].texts, table.codes["formula"]), read)


def _whole(name: str) -> Numbers:
    return Numbers(lambda table: np.where(table.numbers[name] < 0, np.nan, table.numbers[name]))


def _frequency(name: str) -> Numbers:
    return Numbers(lambda table: table.numbers[name], whole=False)


def _published(table: Table) -> tuple[Sequence[str | None], np.ndarray]:
    path = table.numbers["path"]
    return [None, Stability.STABLE.value, Stability.UNSTABLE.value], np.where(
        np.isnan(path), 0, np.where(is_clean(path), 1, 2)
    )


def _plain(formula: str) -> str:
    """A formula without the brackets around ions, which pymatgen's reduced formulas have."""
    return Composition(formula).formula if "(" in formula else formula


@cache
def reduced(formula: str) -> str:
    """The standard's reduced formula, elements in alphabetical order, of pymatgen's."""
    return reduce_formula(_plain(formula))


@cache
def anonymous(formula: str) -> str:
    """The standard's anonymous formula of pymatgen's reduced one."""
    return anonymize_formula(_plain(formula))


class _Ratios(Lengths):
    """Shares of the elements, in the order of their symbols."""

    def value(self, table: Table, place: int) -> list[float] | None:
        """See ``Column``."""
        formula = PROPERTIES["chemical_formula_reduced"].column.value(table, place)
        if formula is None:
            return None
        amounts = [int(number or 1) for number in re.findall(r"[A-Z][a-z]?(\d*)", formula)]
        return [amount / sum(amounts) for amount in amounts]


def _own(column: Column, order: str | None, description: str, kind: str = "string", unit: str = "") -> Property:
    return Property(column, order, {"description": description, "type": kind} | ({"unit": unit} if unit else {}))


PROPERTIES: dict[str, Property] = {
    "id": Property(Keys(), "key"),
    "type": Property(Texts(lambda table: (["structures"], np.zeros(len(table), dtype=np.int8)))),
    "last_modified": Property(Times(lambda table: np.floor(table.numbers["updated"])), "updated"),
    "elements": Property(Elements(_whole("nelements"))),
    "nelements": Property(_whole("nelements"), "nelements"),
    "elements_ratios": Property(_Ratios(_whole("nelements"))),
    "chemical_formula_descriptive": Property(_words("formula"), "formula"),
    "chemical_formula_reduced": Property(_formula(reduced)),
    "chemical_formula_anonymous": Property(_formula(anonymous)),
    "dimension_types": Property(Same((1, 1, 1))),
    "nperiodic_dimensions": Property(Numbers(lambda table: np.full(len(table), 3.0))),
    "lattice_vectors": Property(NotAsked()),
    "space_group_it_number": Property(_whole("space_group"), "space_group"),
    "cartesian_site_positions": Property(Lengths(_whole("natoms"))),
    "nsites": Property(_whole("natoms"), "natoms"),
    "species": Property(NotAsked()),
    "species_at_sites": Property(Elements(_whole("natoms"))),
    "structure_features": Property(Same(())),
    f"{OWN}status": _own(
        _words("status"),
        "status",
        "Verdict on the dynamical stability of the relaxed crystal, by its protocol: 'stable', 'unstable' or "
        "'undecided'. Crystals of all three are served, and no others.",
    ),
    f"{OWN}published": _own(
        Texts(_published),
        None,
        "Verdict of the published rule, whatever the protocol: 'unstable' where the lowest frequency on the "
        "interpolated path lies below -0.001 THz, else 'stable'.",
    ),
    f"{OWN}minimum_frequency": _own(
        _frequency("lowest"),
        "lowest",
        "Lowest phonon frequency that the verdict rests on, an imaginary one negative.",
        "float",
        "THz",
    ),
    f"{OWN}path_frequency": _own(
        _frequency("path"),
        "path",
        "Lowest phonon frequency on the interpolated path, an imaginary one negative.",
        "float",
        "THz",
    ),
    f"{OWN}crystal": _own(
        Texts(lambda table: (table.ids, np.arange(len(table)))),
        "id",
        "Id of the crystal. Computed under several protocols or with several potentials, it is several entries.",
    ),
    f"{OWN}set": _own(_words("set"), "set", "Name of the set that the crystal came with."),
    f"{OWN}potential": _own(
        _words("potential"), "potential", "Interatomic potential that relaxed the crystal and gave its phonons."
    ),
    f"{OWN}protocol": _own(_words("protocol"), "protocol", "Name of the protocol that the crystal was computed by."),
    f"{OWN}protocol_id": _own(
        _words("protocol_id"), "protocol_id", "Hash of the protocol and of the potential's checkpoint."
    ),
}
"""All properties that entries have a value of."""


def column(name: str, warnings: list[str]) -> Column:
    """The column of a property; of others that the standard, or somebody else, may have, one that is unknown.

    Parameters:
        warnings: takes a sentence on a property that nobody here knows.

    Raises:
        BadRequest: there is no such property.
    """
    found = PROPERTIES.get(name)
    if found is not None:
        return found.column
    if name in _STANDARD:
        return Unknown()
    if re.fullmatch(r"_[a-z0-9]+_.*", name) and not name.startswith(OWN):
        warnings.append(f"'{name}' is a property of another provider: it is unknown here.")
        return Unknown()
    raise BadRequest(f"There is no property '{name}'; /info/structures lists those that there are.")


def definitions() -> dict[str, dict[str, Any]]:
    """What ``/info/structures`` says of each property."""
    standard = retrieve_queryable_properties(StructureResource, {"id", "type", "attributes"})
    found: dict[str, dict[str, Any]] = {}
    for name, known in PROPERTIES.items():
        about = dict(known.about or standard[name])
        # The library takes the one text that `type` may be for a list.
        kind = {"type": "string"} if name == "type" else {"type": about["type"]}
        found[name] = {key: about[key] for key in ("description", "unit") if key in about} | kind
        found[name]["sortable"] = known.order is not None
    return found


def served(table: Table) -> np.ndarray:
    """Which rows are entries: relaxed crystals with a verdict."""
    return np.isin(table.codes["status"], [table.words["status"].known(status) for status in SERVED])


def entries(
    store: ResultsStore, table: Table, places: Collection[int], fields: Iterable[str], warnings: list[str]
) -> list[dict[str, Any]]:
    """Entries of these rows, with the attributes of these names.

    Raises:
        BadRequest: there is no such attribute.
        StoreError: the store cannot be read.
        StoredStructureError: a document does not hold what it should.
    """
    wanted = [name for name in fields if name not in TOP_LEVEL]
    columns = {name: column(name, warnings) for name in wanted if name not in _FROM_STRUCTURE}
    keys = [table.keys[place] for place in places]
    structures = _structures(store, keys, _FROM_STRUCTURE.intersection(wanted))
    return [
        {
            "id": key,
            "type": "structures",
            "attributes": {name: each.value(table, place) for name, each in columns.items()} | structures[key],
        }
        for key, place in zip(keys, places, strict=True)
    ]


def _structures(store: ResultsStore, keys: Sequence[str], names: frozenset[str]) -> dict[str, dict[str, Any]]:
    """What the relaxed crystals of these keys say themselves; nothing of one that is gone since, or was not kept."""
    found: dict[str, dict[str, Any]] = {key: dict.fromkeys(names) for key in keys}
    if names:
        for row in store.query({"key": {"$in": list(keys)}}, ["key", "relaxed_structure"]):
            plain = row.get("relaxed_structure")
            if plain is not None:
                told = from_pymatgen(stored_structure(plain, row["key"]))
                found[row["key"]] = told.model_dump(mode="json", include=set(names), exclude_unset=True)
    return found
