"""What the statistics need of a store's crystals, as one data frame with a row per crystal.

Only the fields that are counted are read, so that a hundred thousand crystals fit into memory many times over.
Frequencies are in THz, imaginary ones negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from phononbench_flows.confirmation.known import confirmed_columns
from phononbench_flows.documents import SetDocument, calculation_key
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import COUNTED
from phononbench_flows.results.published import JudgedAt, judged_at
from phononbench_flows.sets.relaxed import Relaxed, compare
from phononbench_flows.stability import CURED, EXACT, MINIMUM
from phononbench_flows.statistics import was_relaxed
from phononbench_flows.store import ResultsStore

Q_POINTS = ("judged", "path", "commensurate", "mesh")
"""Where lowest frequencies are recorded; the column of each is its name with ``_thz``. The first one decides."""

# Column and the field it comes from.
_FIELDS = {
    "id": "id",
    "set": "set",
    "status": "status",
    "stage": "stage",
    "reason": "reason",
    "same_as": "same_as",
    "nsites": "nsites",
    "nelements": "nelements",
    "elements": "elements",
    "formula": "formula_pretty",
    "crystal_system": "symmetry_relaxed.crystal_system",
    "crystal_system_initial": "symmetry_initial.crystal_system",
    "space_group": "symmetry_relaxed.number",
    "judged_thz": MINIMUM,
    **{f"{place}_thz": f"evidence.looks.{place}.frequency" for place in (*Q_POINTS[1:], CURED, EXACT)},
    "path_q": "evidence.looks.path.q",
    "exact_q": "evidence.looks.exact.q",
    "point_group": "symmetry_relaxed.point_group",
    "condition": "condition",
}
# What they were judged by, the same in all rows of a table.
_JUDGE = {"protocol_id": "protocol_id", "protocol_name": "protocol_name", "potential": "potential.name"}
# What tells whether the relaxed crystals have been compared, and by what they are.
_COMPARED = {
    "compared_with": "compared_with",
    "symprec": "symmetry_relaxed.symprec",
    "same_distance": "relaxation.same_distance",
}
_COUNTS = ("nsites", "nelements", "space_group")
_WORDS = ("set", "status", "stage", "reason", "crystal_system", "crystal_system_initial", "point_group", *_JUDGE)


class SelectionError(PhononBenchError):
    """A store that does not hold what was asked for, or more than one thing that was. The message is a sentence."""


@dataclass(frozen=True)
class Judge:
    """The protocol and potential that crystals were judged by."""

    protocol_id: str
    protocol_name: str
    potential: str

    def __str__(self) -> str:
        return f"{self.protocol_id} ({self.protocol_name}, {self.potential})"


@dataclass(frozen=True)
class Crystals:
    """Crystals of some sets under one protocol.

    Attributes:
        rows: one per crystal, with the columns ``id``, ``set``, ``status``, ``stage``, ``reason``, ``same_as``,
            ``nsites``, ``nelements``, ``elements`` (list of symbols), ``formula``, ``crystal_system`` (relaxed),
            ``crystal_system_initial``, ``space_group`` (relaxed), ``judged_thz``, ``path_thz``,
            ``commensurate_thz``, ``mesh_thz``, ``cured_thz``, ``exact_thz`` (lowest frequencies), ``path_q``,
            ``exact_q`` (where), ``point_group`` (relaxed), ``condition`` (a dict: that of the set, and over
            it that of the crystal), ``relaxed`` (finished, and counted among those relaxed), ``confirmed``,
            ``confirmed_published``, ``drawn`` and ``stratum`` (what better methods say of it; see
            :mod:`phononbench_flows.confirmation.known`).
        sets: what is known of each set of the rows, by name.
        judge: what they were judged by.
        judged_at: at which thresholds, and whether by exact frequencies.
    """

    rows: pd.DataFrame
    sets: dict[str, SetDocument]
    judge: Judge
    judged_at: JudgedAt

    def only(self, names: Sequence[str]) -> Crystals:
        """The crystals of these sets alone."""
        rows = self.rows[self.rows["set"].isin(names)]
        return Crystals(rows, {name: self.sets[name] for name in names}, self.judge, self.judged_at)


def read_crystals(store: ResultsStore, *, sets: Sequence[str] | None = None, protocol: str | None = None) -> Crystals:
    """The crystals of a store, of one protocol: under two, every crystal would be counted twice.

    Args:
        store: where they are.
        sets: names of the sets wanted; all that were generated without it.
        protocol: id of the protocol, or its name where only one id has it; needed if the store holds several.

    Raises:
        SelectionError: no such crystals, a set without any, or several protocols to choose from.
    """
    # What was made of other crystals by following their modes is among no generator's, unless its set is asked for.
    wanted: dict[str, Any] = COUNTED | ({"set": {"$in": list(sets)}} if sets else {"origin.parent": None})
    chosen = wanted | ({} if protocol is None else {"$or": [{"protocol_id": protocol}, {"protocol_name": protocol}]})
    # Once through the store, and then what the rows are judged by: a large one takes its time.
    rows = _read(store, chosen, _FIELDS | _JUDGE | _COMPARED)
    judge = _judge(rows, lambda: _read(store, wanted, _JUDGE), protocol)
    rows = rows.drop(columns=[*_JUDGE])
    missing = [name for name in sets or () if not (rows["set"] == name).any()]
    if missing:
        raise SelectionError(f"no crystals of set {missing[0]!r} under protocol {judge}")
    known = {found.set: found for found in store.sets()}
    described = {name: known.get(name, SetDocument(set=name)) for name in rows["set"].cat.categories}
    rows["condition"] = _conditions(rows, described)
    rows["relaxed"] = [was_relaxed(*pair) for pair in zip(rows["status"], rows["stage"], strict=True)]
    rows["same_as"] = _same_as(store, rows, judge.protocol_id)
    for name, values in confirmed_columns(store, list(rows["id"]), list(described), judge.protocol_id).items():
        rows[name] = pd.Series(values, index=rows.index, dtype=bool if name == "drawn" else object)
    judged = judged_at(store, {"protocol_id": judge.protocol_id})
    return Crystals(rows.drop(columns=[*_COMPARED]), described, judge, judged)


def read_judge(
    store: ResultsStore, *, sets: Sequence[str] | None = None, protocol: str | None = None
) -> tuple[list[str], Judge]:
    """The sets that are meant, and the one protocol with the one potential that they were judged by.

    Raises:
        SelectionError: as for :func:`read_crystals`.
    """
    wanted: dict[str, Any] = COUNTED | ({"set": {"$in": list(sets)}} if sets else {})
    chosen = wanted | ({} if protocol is None else {"$or": [{"protocol_id": protocol}, {"protocol_name": protocol}]})
    judge = _judge(_read(store, chosen, _JUDGE), lambda: _read(store, wanted, _JUDGE), protocol)
    there = sorted(store.distinct("set", COUNTED | {"protocol_id": judge.protocol_id}))
    missing = [name for name in sets or () if name not in there]
    if missing:
        raise SelectionError(f"no crystals of set {missing[0]!r} under protocol {judge}")
    return list(sets or there), judge


def _same_as(store: ResultsStore, rows: pd.DataFrame, protocol_id: str) -> pd.Series:
    """Which relaxed crystal each is the same as; those that have not been compared with all others are now."""
    keys = [calculation_key(name, protocol_id) for name in rows["id"]]
    columns = (rows[name] for name in ("id", "set", "formula", "same_as", "space_group", "relaxed", *_COMPARED))
    changed = compare(
        store,
        (
            Relaxed(
                key=key,
                id=name,
                among=(set_name, protocol_id, formula),
                same_as=same_as,
                compared_with=compared_with,
                space_group=None if pd.isna(number) else int(number),
                symprec=symprec,
                same_distance=same_distance,
            )
            for key, name, set_name, formula, same_as, number, relaxed, compared_with, symprec, same_distance in zip(
                keys, *columns, strict=True
            )
            if relaxed and formula is not None
        ),
    )
    now = [changed.get(key, said) for key, said in zip(keys, rows["same_as"], strict=True)]
    return pd.Series(now, index=rows.index, dtype=object)  # of strings alone, None would become NaN


def _read(store: ResultsStore, criteria: dict[str, Any], fields: Mapping[str, str]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {name: [] for name in fields}
    paths = {name: field.split(".") for name, field in fields.items()}
    for document in store.query(criteria, list(fields.values())):
        for name, path in paths.items():
            columns[name].append(_at(document, path))
    return _frame(columns)


def _judge(rows: pd.DataFrame, everything: Callable[[], pd.DataFrame], protocol: str | None) -> Judge:
    """The one protocol of these rows; ``everything`` gives the rows of whatever protocol."""
    chosen = _judges(rows)
    if len(chosen) == 1:
        return chosen[0]
    found = chosen or _judges(everything())
    if not found:
        raise SelectionError("no such crystals in the store")
    said = "choose one protocol:" if chosen else f"no crystals under protocol {protocol!r}, only under"
    raise SelectionError(f"{said} {'; '.join(map(str, found))}")


def _judges(rows: pd.DataFrame) -> list[Judge]:
    distinct = rows[[*_JUDGE]].drop_duplicates().sort_values("protocol_id")
    return [Judge(*map(str, row)) for row in distinct.itertuples(index=False)]


def _at(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = document
    for name in path:
        if value is None:
            return None
        value = value.get(name)
    return value


def _frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    # A repeated word costs a byte or two as a category.
    types: dict[str, Any] = dict.fromkeys(_WORDS, "category")
    types |= dict.fromkeys((name for name in columns if name.endswith("_thz")), "float64")
    types |= dict.fromkeys(_COUNTS, "Int32")
    return pd.DataFrame({name: pd.Series(values, dtype=types.get(name, object)) for name, values in columns.items()})


def _conditions(rows: pd.DataFrame, sets: Mapping[str, SetDocument]) -> list[dict[str, Any]]:
    """The condition of every crystal; what its set says holds where the crystal's own document does not say it."""
    of_sets = {name: found.condition for name, found in sets.items()}
    pairs = zip(rows["set"], rows["condition"], strict=True)
    return [{**of_sets[name], **own} if own else of_sets[name] for name, own in pairs]
