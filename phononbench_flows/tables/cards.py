"""The cards of the sets of a store: their numbers, how they were counted, as JSON and as a leaderboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from phononbench_flows.documents import SetDocument
from phononbench_flows.outcomes import COUNTED, Status
from phononbench_flows.potentials.softening import KNOWN, SOURCE, said_of
from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.stability import PATH_MINIMUM, PUBLISHED, is_clean
from phononbench_flows.statistics import was_relaxed
from phononbench_flows.statistics.card import NEAR_HULL, ON_HULL, Card, Facts, Line, card
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.confirmed import corrected, is_confirmed
from phononbench_flows.tables.rows import Crystals, Judge

_FIELDS = ["id", "status", "stage", "elements", "relaxation.energy_per_atom", "results.hull", "timings"]
_FIELDS += [PATH_MINIMUM, "potential.device", "provenance.gpu"]
_LEFT_OUT = {Status.REJECTED, Status.DUPLICATE, Status.KNOWN}
LEADING = ("dsun", "by_verdict")
"""Lines that the leaderboard is ordered by, the first that is there."""


@dataclass(frozen=True)
class SetCard:
    """The card of a set, and what it was made with.

    Attributes:
        about: what is known of the set.
        judge: protocol and potential.
        card: the numbers.
        reference: name of the reference set; None without one.
        devices: what it was computed on.
    """

    about: SetDocument
    judge: Judge
    card: Card
    reference: str | None
    devices: tuple[str, ...]

    @property
    def softening(self) -> str:
        """How soft the potential is known to be, in a sentence."""
        return said_of(self.judge.potential)

    @property
    def tolerances(self) -> dict[str, Any]:
        """The tolerances that the card was counted with, in words and units."""
        return _tolerances(self.card.near_hull)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        known = KNOWN.get(self.judge.potential)
        return {
            "set": self.about.set,
            "model": self.about.model,
            "training_set": self.about.training_set,
            "condition": self.about.condition,
            "judge": asdict(self.judge),
            "crystals": self.card.crystals,
            "pending": self.card.pending,
            "no_hull": self.card.no_hull,
            "bare_hull": self.card.bare_hull,
            "lines": [_line(each) for each in self.card.lines.values()],
            "costs": [asdict(each) for each in self.card.costs],
            "devices": list(self.devices),
            "generation_seconds": self.about.generation_seconds,
            "generation_hardware": self.about.generation_hardware,
            "reference": self.reference,
            "tolerances": self.tolerances,
            "softening": {"said": self.softening} | ({"source": SOURCE} | asdict(known) if known else {}),
        }


def _line(line: Line) -> dict[str, Any]:
    rate, ends = line.rate, line.rate.interval
    plain = {"name": line.name, "title": line.title, "of": line.of, "note": line.note}
    if line.note is not None or ends is None:
        return plain | {"count": None, "total": None, "rate": None, "low": None, "high": None}
    return plain | {"count": rate.count, "total": rate.total, "rate": rate.rate, "low": ends.low, "high": ends.high}


def _tolerances(near_hull: float) -> dict[str, Any]:
    rules = ScreeningSettings()
    return {
        "on_hull_ev_per_atom": ON_HULL,
        "near_hull_ev_per_atom": near_hull,
        "hull": "energies of the set's own potential alone, relaxed; no corrections",
        "unique": f"sites and lattice vectors within {rules.same_distance:g} Å as generated, and "
        f"{rules.same_distance_relaxed:g} Å relaxed",
        "novel": f"pymatgen's StructureMatcher (ltol {rules.ltol:g}, stol {rules.stol:g}, angle_tol "
        f"{rules.angle_tol:g}) within a space group, as generated and relaxed",
        "published_rule_thz": PUBLISHED[0],
        "intervals": "95 %, Wilson",
    }


def read_cards(store: ResultsStore, crystals: Crystals, near_hull: float = NEAR_HULL) -> list[SetCard]:
    """The cards of these sets, the one with most hits first.

    Args:
        store: where their documents are.
        crystals: the sets, as ``read_crystals`` gives them.
        near_hull: how far above the hull still counts as near, in eV per atom.
    """
    exact = "exact frequencies" if crystals.judged_at.exact else f"the protocol {crystals.judge.protocol_name}"
    same = crystals.rows.loc[crystals.rows["same_as"].notna(), "id"]
    repeated = set(same)
    cards = [_set_card(store, crystals, name, repeated, near_hull, exact) for name in crystals.sets]
    return sorted(cards, key=lambda each: (*(-_rank(each, name) for name in LEADING), each.about.set))


def _rank(found: SetCard, name: str) -> float:
    line = found.card.lines[name]
    return -1.0 if line.note is not None or line.rate.rate is None else line.rate.rate


def _set_card(
    store: ResultsStore, crystals: Crystals, name: str, repeated: set[str], near_hull: float, verdict: str
) -> SetCard:
    about, protocol_id = crystals.sets[name], crystals.judge.protocol_id
    documents = list(store.query(COUNTED | {"set": name, "protocol_id": protocol_id}, _FIELDS))
    screened = any(each["status"] == Status.KNOWN for each in documents)
    finished = [each for each in documents if each["status"] != Status.PENDING]
    rows = crystals.rows[crystals.rows["set"] == name]
    found = card(
        [_facts(each, repeated, screened) for each in finished],
        pending=len(documents) - len(finished),
        not_handed_in=max(0, (about.n_generated or 0) - len(documents)),
        near_hull=near_hull,
        verdict=verdict,
        corrected=corrected(rows) if is_confirmed(rows) else None,
    )
    references = {hull["reference"] for each in finished if (hull := _hull(each))}
    return SetCard(about, crystals.judge, found, "; ".join(sorted(references)) or None, _devices(finished))


def _hull(document: Mapping[str, Any]) -> dict[str, Any]:
    return (document.get("results") or {}).get("hull") or {}


def _facts(document: Mapping[str, Any], repeated: set[str], screened: bool) -> Facts:
    """What a document says. ``screened``: whether its set was compared with a reference set when it was read."""
    status, hull = Status(document["status"]), _hull(document)
    relaxed = was_relaxed(status, document["stage"])
    return Facts(
        usable=status is not Status.REJECTED,
        tried=status not in _LEFT_OUT,
        relaxed=relaxed,
        unique=status not in {Status.REJECTED, Status.DUPLICATE} and document["id"] not in repeated,
        novel=_novel(status, hull, relaxed, screened),
        has_hull=None if not document["elements"] else bool(hull) and not hull["missing"],
        above_hull=hull.get("energy_above_hull") if relaxed else None,
        clean=_clean(document),
        stable=status is Status.STABLE,
        seconds=sum((document.get("timings") or {}).values()),
        bare_hull=bool(hull) and not hull["n_compounds"],
    )


def _novel(status: Status, hull: Mapping[str, Any], relaxed: bool, screened: bool) -> bool | None:
    if status is Status.KNOWN:
        return False
    if "known_as" in hull:
        return hull["known_as"] is None
    return True if screened and relaxed else None


def _clean(document: Mapping[str, Any]) -> bool | None:
    look = (((document.get("evidence") or {}).get("looks") or {}).get("path") or {}).get("frequency")
    return None if look is None else bool(is_clean(look))


def _devices(documents: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted(set(_device_names(documents))))


def _device_names(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in documents:
        name = (each.get("provenance") or {}).get("gpu") or (each.get("potential") or {}).get("device")
        if name is not None and each.get("timings"):
            yield str(name)


def cards_table(cards: Sequence[SetCard]) -> pd.DataFrame:
    """A row per set, as they come.

    Columns: ``set``, ``model``, ``crystals``, ``pending``, ``no_hull``, ``bare_hull``, every line of the card as a rate
    (``share_`` and its name, or its name) with its interval, ``seconds_stable`` and ``seconds_dsun`` (of the device,
    for each such crystal), ``device``, ``potential``, ``protocol``, ``reference``.
    """
    records = []
    for each in cards:
        about = each.about
        record: dict[str, Any] = {"set": about.set, "model": about.model}
        record |= {"crystals": each.card.crystals, "pending": each.card.pending, "no_hull": each.card.no_hull}
        record |= {"bare_hull": each.card.bare_hull}
        for line in each.card.lines.values():
            plain = _line(line)
            name = line.name if line.name.startswith("by_") else f"share_{line.name}"
            record |= {name: plain["rate"], f"{name}_low": plain["low"], f"{name}_high": plain["high"]}
        seconds = [cost.each for cost in each.card.costs] + [None]
        record |= {"seconds_stable": seconds[0], "seconds_dsun": seconds[1], "device": ", ".join(each.devices)}
        record |= {"potential": each.judge.potential, "protocol": each.judge.protocol_name}
        records.append(record | {"reference": each.reference})
    return pd.DataFrame(records)
