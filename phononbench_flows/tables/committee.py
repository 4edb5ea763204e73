"""The tables of a committee: the same crystals under several potentials of one store.

Rates as in :mod:`phononbench_flows.tables.frames`; only crystals that every potential has finished are counted, so that
the potentials alone differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from phononbench_flows.outcomes import COMPUTED, COUNTED, Status
from phononbench_flows.potentials.softening import KNOWN
from phononbench_flows.stability import EXACT
from phononbench_flows.statistics import was_relaxed, wilson
from phononbench_flows.statistics.committee import confusion, parts, votes
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.frames import ALL
from phononbench_flows.tables.rows import SelectionError

_FIELDS = ["id", "set", "formula_pretty", "status", "stage", "protocol_id", "protocol_name", "potential.name"]
_FIELDS += ["minimum.frequency", f"evidence.looks.{EXACT}.frequency"]


@dataclass(frozen=True)
class Committee:
    """Crystals that several potentials have finished.

    Attributes:
        members: names of the potentials.
        protocols: id of the protocol with each of them.
        rows: one per crystal and potential: ``id``, ``set``, ``formula``, ``potential``, ``status``, ``relaxed``,
            ``lowest_thz``.
        left_out: crystals that one of the potentials has and not all have finished.
    """

    members: list[str]
    protocols: dict[str, str]
    rows: pd.DataFrame
    left_out: int

    @property
    def verdicts(self) -> pd.DataFrame:
        """Statuses: a row per crystal, a column per potential."""
        return self.rows.set_index(["id", "potential"])["status"].unstack()[self.members]  # noqa: PD010 (one each)


def read_committee(
    store: ResultsStore, *, sets: Sequence[str] | None = None, protocols: Sequence[str] | None = None
) -> Committee:
    """The crystals of a store under all of its potentials.

    Args:
        sets: names of the sets wanted; all without it.
        protocols: names or ids of the protocols wanted; needed if the store holds several but for the potential.

    Raises:
        SelectionError: fewer than two potentials, or several protocols to choose from.
    """
    wanted: dict[str, Any] = COUNTED | ({"set": {"$in": list(sets)}} if sets else {})
    if protocols:
        named = {"$in": list(protocols)}
        wanted |= {"$or": [{"protocol_id": named}, {"protocol_name": named}]}
    found = [_row(document) for document in store.query(wanted, _FIELDS)]
    members = _members(found)
    finished = [row for row in found if row["status"] in COMPUTED]
    seen = Counter(row["id"] for row in finished)
    common = {name for name, number in seen.items() if number == len(members)}
    rows = pd.DataFrame([row for row in finished if row["id"] in common])
    if rows.empty:
        raise SelectionError("no crystal is finished under all of these potentials")
    return Committee(list(members), members, rows.sort_values(["id", "potential"]), len(seen) - len(common))


def _row(document: dict[str, Any]) -> dict[str, Any]:
    exact = (((document.get("evidence") or {}).get("looks") or {}).get(EXACT) or {}).get("frequency")
    lowest = exact if exact is not None else (document.get("minimum") or {}).get("frequency")
    plain = {name: document[name] for name in ("id", "set", "status", "protocol_id", "protocol_name")}
    return plain | {
        "formula": document["formula_pretty"],
        "potential": document["potential"]["name"],
        "relaxed": was_relaxed(document["status"], document["stage"]),
        "lowest_thz": lowest,
    }


def _members(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The potentials, each with the one id of its protocol."""
    found = sorted({(row["potential"], row["protocol_name"], row["protocol_id"]) for row in rows})
    members = {potential: protocol_id for potential, _, protocol_id in found}
    if len({name for _, name, _ in found}) > 1 or len(members) < len(found):
        said = "; ".join(f"{protocol_id} ({name}, {potential})" for potential, name, protocol_id in found)
        raise SelectionError(f"choose one protocol for all potentials: {said}")
    if len(members) < 2:
        raise SelectionError(f"a committee needs two potentials, and these crystals have {len(members)}")
    return members


def members_table(committee: Committee) -> pd.DataFrame:
    """A row per potential: ``potential``, ``relaxed``, ``stable``, ``undecided``, ``failed``, ``per_relaxed`` with its
    interval, and what a public benchmark knows of its softness (:mod:`phononbench_flows.potentials.softening`):
    ``conductivity_srd`` and ``share_imaginary``.
    """
    records = []
    for name in committee.members:
        rows = committee.rows[committee.rows["potential"] == name]
        counts = Counter(rows["status"])
        relaxed, known = int(rows["relaxed"].sum()), KNOWN.get(name)
        rate = wilson(counts[Status.STABLE], relaxed)
        records.append(
            {
                "potential": name,
                "relaxed": relaxed,
                **{status.value: counts[status] for status in (Status.STABLE, Status.UNDECIDED, Status.FAILED)},
                "per_relaxed": rate.rate,
                "per_relaxed_low": rate.interval.low if rate.interval else None,
                "per_relaxed_high": rate.interval.high if rate.interval else None,
                "conductivity_srd": known.conductivity if known else None,
                "share_imaginary": known.imaginary if known else None,
            }
        )
    return pd.DataFrame(records)


def votes_table(committee: Committee) -> pd.DataFrame:
    """A row per set, and one of all sets: ``crystals``, those that all potentials call stable or unstable, on which
    they part, ``open`` (see :class:`~phononbench_flows.statistics.committee.Votes`), and ``stable_under_N``: those that
    at least N of them call stable.
    """
    of = committee.rows.drop_duplicates("id").set_index("id")["set"]
    verdicts = committee.verdicts
    groups = {str(name): verdicts.loc[of.index[of == name]] for name in sorted(of.unique())}
    if len(groups) > 1:
        groups[ALL] = verdicts
    records = []
    for name, said in groups.items():
        found = votes(said.to_numpy().tolist())
        at_least = {f"stable_under_{n}": sum(found.stable_under[n:]) for n in range(1, len(committee.members) + 1)}
        counts = {"all_stable": found.all_stable, "all_unstable": found.all_unstable, "parted": found.parted}
        records.append({"set": name, "crystals": len(said)} | counts | {"open": found.open} | at_least)
    return pd.DataFrame(records)


def pairs_table(committee: Committee) -> pd.DataFrame:
    """Every two potentials: their confusion matrix (:class:`~phononbench_flows.statistics.committee.Confusion`),
    ``share_agreed`` of the crystals that both judged, with its interval, and Cohen's ``kappa``.
    """
    verdicts = committee.verdicts
    records = []
    for first, second in combinations(committee.members, 2):
        found = confusion(verdicts[first].to_list(), verdicts[second].to_list())
        agreed = found.agreement
        records.append(
            {
                "first_potential": first,
                "second_potential": second,
                "both_stable": found.both_stable,
                "first_alone": found.first_stable,
                "second_alone": found.second_stable,
                "both_unstable": found.both_unstable,
                "open": found.open,
                "share_agreed": agreed.rate,
                "share_agreed_low": agreed.interval.low if agreed.interval else None,
                "share_agreed_high": agreed.interval.high if agreed.interval else None,
                "kappa": found.kappa,
            }
        )
    return pd.DataFrame(records)


def parted_table(committee: Committee) -> pd.DataFrame:
    """The crystals on which potentials part: ``crystal``, ``formula``, and a column per potential with its verdict and
    the lowest frequency that it rests on, in THz.
    """
    records = []
    for name, rows in committee.rows.groupby("id", sort=True):
        if parts(rows["status"].to_list()):
            said = {row["potential"]: _said(row) for row in rows.to_dict("records")}
            shown = {member: said[member] for member in committee.members}
            records.append({"crystal": name, "formula": rows["formula"].iloc[0]} | shown)
    return pd.DataFrame(records, columns=["crystal", "formula", *committee.members])


def _said(row: dict[str, Any]) -> str:
    lowest = row["lowest_thz"]
    return row["status"] if pd.isna(lowest) else f"{row['status']} ({lowest:.2f})"
