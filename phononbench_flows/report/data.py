"""What the page of a report holds: its tables as plain lists, its crystals column by column, and bytes to draw from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import batched, chain, zip_longest
from typing import Any

import pandas as pd

from phononbench_flows.documents import BlobRef
from phononbench_flows.engine.bands import Bands
from phononbench_flows.outcomes import COUNTED
from phononbench_flows.report.compact import compact_bands, element_looks, structure_bytes
from phononbench_flows.report.contents import Content
from phononbench_flows.report.densities import Densities
from phononbench_flows.stability import CURED, EXACT, Assessment, Evidence, explain, published_at
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.files import heading
from phononbench_flows.tables.frames import ranking_turns, total
from phononbench_flows.tables.rows import Crystals
from phononbench_flows.tables.unfinished import pending_by_set, unfinished_note

# Name of a column of the page's table of crystals, and the field that it is taken from.
_FIELDS = {
    "id": "id",
    "set": "set",
    "formula": "formula_pretty",
    "status": "status",
    "lowest": "minimum.frequency",
    "natoms": "nsites",
    "space_group": "symmetry_relaxed.symbol",
    "number": "symmetry_relaxed.number",
    "system": "symmetry_relaxed.crystal_system",
    "elements": "elements",
    "reason": "reason",
    "detail": "detail",
    "duplicate_of": "duplicate_of",
    "known_as": "known_as",
    "source": "origin.source",
    "path": "evidence.looks.path.frequency",
    "commensurate": "evidence.looks.commensurate.frequency",
    "mesh": "evidence.looks.mesh.frequency",
    "q": "minimum.q",
    "energy": "relaxation.energy_per_atom",
}
_BY_EXACT = ("why", "looks", "cured", "noise", "wave", "bulk", "shear")
"""Further columns where exact frequencies decide, of which ``lowest`` and ``q`` are then the lowest's."""
_LOT = 256  # crystals in memory at once
_CURVE = ("stable", *(f"per_{what}{end}" for what in ("relaxed", "generated") for end in ("", "_low", "_high")))


@dataclass(frozen=True)
class PageData:
    """What goes into the page.

    Attributes:
        tables: everything but structures and band structures, as JSON.
        structures: the crystals' structures, one after the other.
        bands: the band structures, one after the other.
        n_bands: number of band structures.
        n_judged: number of crystals that have one.
    """

    tables: bytes
    structures: bytes
    bands: bytes
    n_bands: int
    n_judged: int


def page_data(
    store: ResultsStore,
    crystals: Crystals,
    contents: Mapping[str, Content],
    n_bands: int,
    cards: Sequence[Mapping[str, Any]] = (),
) -> PageData:
    """Everything that the page shows of these crystals.

    Args:
        store: where their documents and band structures are.
        crystals: what is shown.
        contents: the tables over them.
        n_bands: number of band structures to put in, at most.
        cards: of the sets, as plain JSON.
    """
    exact = crystals.judged_at.exact
    columns: dict[str, list[Any]] = {name: [] for name in (*_FIELDS, "published", *(_BY_EXACT if exact else ()))}
    structures: list[bytes] = []
    refs: list[BlobRef | None] = []
    constants: list[dict[str, Any] | None] = []
    looks: list[dict[str, Any] | None] = []
    paths = {name: field.split(".") for name, field in _FIELDS.items()}
    wanted = [*_FIELDS.values(), "relaxed_structure", "arrays"]
    if exact:  # all of the evidence, and not parts of it besides
        wanted = [field for field in wanted if not field.startswith("evidence.")]
        wanted += ["evidence", "assessments", "results.elasticity"]
    newest = ""
    for document, structure in _with_structures(
        store.query(_criteria(crystals), [*wanted, "updated_at"], sort={"id": 1}), store
    ):
        for name, path in paths.items():
            columns[name].append(_rounded(_at(document, path)))
        columns["published"].append(_published(columns["path"][-1]))
        if exact:
            found = _by_exact(document)
            columns["lowest"][-1], columns["q"][-1] = (_rounded(found.pop(name)) for name in ("lowest", "q"))
            for name, value in found.items():
                columns[name].append(_rounded(value))
        structures.append(structure_bytes(structure))
        ref = document["arrays"].get("band_structure")
        refs.append(BlobRef.model_validate(ref) if ref else None)
        constants.append(document["arrays"].get("force_constants"))
        looks.append(document["arrays"].get("exact_looks"))
        newest = max(newest, document.get("updated_at") or "")
    thresholds = list(crystals.judged_at.thresholds)
    threshold = thresholds[0] if thresholds else 0.0
    chosen = _chosen(columns, refs, threshold, n_bands)
    headers, parts, densities = {}, [], Densities(store)
    for place in chosen:
        ref = refs[place]
        if ref is not None:
            compact = compact_bands(Bands.from_arrays(store.blobs.get(ref)))
            headers[place] = compact.header(threshold) | {"dos": densities.of(constants[place], looks[place])}
            parts.append(compact.data)
    shown = {
        "judge": asdict(crystals.judge),
        "newest": newest,
        "unfinished": pending_by_set(contents["leaderboard"].table),
        "unfinished_note": unfinished_note(contents["leaderboard"].table),
        "sets": [found.model_dump(mode="json", exclude={"updated_at"}) for found in crystals.sets.values()],
        "overall": {name: _plain(value) for name, value in total(contents["leaderboard"].table).items()},
        "thresholds": _thresholds(contents.get("thresholds"), thresholds, contents["leaderboard"].table, exact),
        "exact": exact,
        "cards": cards,
        "rules": {name: content.table.columns[1] for name, content in contents.items() if name.startswith("rules_by_")},
        "tables": {name: _table(content) for name, content in contents.items() if name != "thresholds"},
        "breakdowns": {name: content.by for name, content in contents.items() if content.by},
        "elements": {symbol: asdict(look) for symbol, look in element_looks().items()},
        "crystals": columns | {"size": list(map(len, structures))},
        "bands": headers,
    }
    return PageData(
        tables=json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(),
        structures=b"".join(structures),
        bands=b"".join(parts),
        n_bands=len(chosen),
        n_judged=sum(ref is not None for ref in refs),
    )


def _with_structures(
    documents: Iterable[dict[str, Any]], store: ResultsStore
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Calculations, each with its crystal: relaxed, or as it was read."""
    for lot in batched(documents, _LOT):
        wanted = [document["id"] for document in lot if not document.get("relaxed_structure")]
        as_read = {crystal.id: crystal.structure for crystal in store.crystals(wanted)}
        for document in lot:
            yield document, document.get("relaxed_structure") or as_read.get(document["id"])


def _criteria(crystals: Crystals) -> dict[str, Any]:
    return COUNTED | {"set": {"$in": list(crystals.sets)}, "protocol_id": crystals.judge.protocol_id}


def _published(lowest: float | None) -> list[str]:
    """What the published rule says where this is the lowest frequency on the path, at each of its thresholds."""
    return [] if lowest is None else [stability.value for stability in published_at(lowest).values()]


def _by_exact(document: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict in a sentence, exact looks as [point, q, interpolated, exact, atoms], and elastic moduli in GPa."""
    evidence = Evidence.model_validate(document["evidence"])
    assessments = [Assessment.model_validate(each) for each in document["assessments"][:1]]
    looks = sorted(evidence.exact, key=lambda look: look.frequency)
    elasticity = (document.get("results") or {}).get("elasticity") or {}
    cured, exact = (evidence.looks.get(place) for place in (CURED, EXACT))
    return {
        "why": explain(evidence, assessments[0]) if assessments else None,
        "looks": [[look.label or "", look.q, look.interpolated, look.frequency, look.natoms] for look in looks],
        "cured": cured.frequency if cured else None,
        "lowest": exact.frequency if exact else None,
        "q": exact.q if exact else None,
        "noise": evidence.noise,
        "wave": evidence.elastic.lowest if evidence.elastic else None,
        "bulk": (elasticity.get("bulk_modulus") or {}).get("vrh"),
        "shear": (elasticity.get("shear_modulus") or {}).get("vrh"),
    }


def _at(document: Mapping[str, Any], path: list[str]) -> Any:
    value: Any = document
    for name in path:
        value = value.get(name) if value is not None else None
    return value


def _rounded(value: Any) -> Any:
    """Numbers with six digits, text that is valid Unicode."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _chosen(columns: Mapping[str, list[Any]], refs: list[BlobRef | None], threshold: float, limit: int) -> list[int]:
    """Places of the crystals whose band structures are shown, in ascending order.

    Every set's stable and unstable ones take turns, those whose lowest frequency lies closest to the threshold first:
    their verdicts are the ones to look at.
    """
    groups: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for place, ref in enumerate(refs):
        lowest = columns["lowest"][place]
        if ref is not None:
            distance = abs((lowest or 0.0) - threshold)
            groups.setdefault((columns["set"][place], columns["status"][place]), []).append((distance, place))
    turns = zip_longest(*(sorted(group) for _, group in sorted(groups.items())))
    picked = [found[1] for found in chain.from_iterable(turns) if found is not None]
    return sorted(picked[:limit])


def _table(content: Content) -> dict[str, Any]:
    """A table column by column, missing values as null."""
    table = content.table
    data = {name: [_plain(value) for value in table[name]] for name in table.columns}
    return {"title": content.title, "labels": {name: heading(name) for name in table.columns}, "data": data}


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return _rounded(value.item() if hasattr(value, "item") else value)


def _thresholds(content: Content | None, thresholds: list[float], funnels: pd.DataFrame, exact: bool) -> dict[str, Any]:
    """For every kind of q-points, the rates of every set along one list of thresholds, and where the ranking turns.

    Where exact frequencies decide, ``verdict`` takes the place of the judged ones: its rates know no threshold.
    """
    if content is None:
        return {"grid": [], "protocol": thresholds, "kinds": {}}
    table = content.table
    grid = list(dict.fromkeys(table["threshold_thz"]))
    kinds: dict[str, Any] = {"verdict": _verdicts(funnels, len(grid))} if exact else {}
    for kind, rows in table.groupby("q_points", sort=False):
        if exact and kind == "judged":
            continue
        curves = {
            name: {column: [_plain(value) for value in curve[column]] for column in _CURVE}
            for name, curve in rows.groupby("set", sort=False)
        }
        rates = rows[["set", "threshold_thz", "per_relaxed", "per_generated"]]
        turns = [list(ranking_turns(rates[rates["threshold_thz"] == threshold])["warning"]) for threshold in grid]
        kinds[str(kind)] = {"curves": curves, "turns": turns}
    return {"grid": grid, "protocol": thresholds, "kinds": kinds}


def _verdicts(funnels: pd.DataFrame, number: int) -> dict[str, Any]:
    """The rates by the crystals' own verdicts, the same at so many thresholds."""
    curves = {
        row["set"]: {column: [_plain(row[column])] * number for column in _CURVE} for row in funnels.to_dict("records")
    }
    return {"curves": curves, "turns": [list(ranking_turns(funnels)["warning"])] * number}
