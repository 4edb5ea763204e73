"""Older results stores, in which crystal and calculation were one document, brought up to date.

A migration that was broken off is gone on with by the next one; the old store is only given up document by document, as
each is written anew. Nothing else may use the store meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import batched
from pathlib import Path
from typing import Any

from phononbench_flows.stability import Assessment, Evidence, Look, Stability
from phononbench_flows.store.collection import Collection, StoreError
from phononbench_flows.store.mongo import (
    CALCULATION_INDEXES,
    CONFIRMATION_INDEXES,
    CRYSTAL_INDEXES,
    OLD_CRYSTALS,
    MongoCollection,
)
from phononbench_flows.store.specs import Spec, full_spec
from phononbench_flows.store.sqlite import LAYOUT, MIGRATED_LAYOUT, SQLiteStore

_LOT = 256  # documents rewritten at once
_STAGES = {"relaxed": "relaxation", "judged": "spectrum"}
_STEPS = ["relaxation", "force_constants", "spectrum"]
_EXACT = {"path": False, "mesh": False, "commensurate": True}
_SHARED = ("id", "set", "condition", "content_hash", "nsites", "elements", "nelements", "formula_pretty", "chemsys")
_TIMES = ("created_at", "updated_at")
_MOVED = ("source", "source_sha256", "structure", "force_constants", "band_structure", "verdicts")


def migrate(spec: Spec | str | Path, on_documents: Callable[[int], None] = lambda _: None) -> int:
    """Bring a store up to date; gives the number of documents that were rewritten, 0 for one that is as it should be.

    Parameters:
        spec: see ``full_spec``.
        on_documents: called with the number of documents rewritten, now and then.

    Raises:
        StoreError: for a store that is not there or cannot be read, or a document that no version wrote.
    """
    full = full_spec(spec)
    if full["kind"] == "mongo":
        crystals = MongoCollection(full["database"], "crystals", CRYSTAL_INDEXES)
        calculations = MongoCollection(full["database"], "calculations", CALCULATION_INDEXES)
        confirmations = MongoCollection(full["database"], "confirmations", CONFIRMATION_INDEXES)
        for collection in (crystals, calculations, confirmations):
            collection.create_indexes()
        return _rewrite(crystals, OLD_CRYSTALS, crystals, calculations, crystals.remove, on_documents)
    return _migrate_directory(Path(full["path"]), on_documents)


def _migrate_directory(root: Path, on_documents: Callable[[int], None]) -> int:
    if not (root / "results.sqlite").is_file():
        raise StoreError(f"There are no results in {root}.")
    results = _of_older_layout(root / "results.sqlite")
    if results is None:
        return 0
    crystals = SQLiteStore(str(root / "crystals.sqlite"))
    # Each document is rewritten in its place, so there is nothing to remove.
    number = _rewrite(results, {"origin": {"$exists": False}}, crystals, results, lambda _: None, on_documents)
    sets = _of_older_layout(root / "sets.sqlite") if (root / "sets.sqlite").is_file() else None
    for part in filter(None, (sets, results)):  # the one that tells comes last
        part.set_layout(LAYOUT)
        part.close()
    crystals.close()
    return number


def _of_older_layout(path: Path) -> SQLiteStore | None:
    """The documents of a file, to be brought up to date; None for one that is as it should be.

    Raises:
        StoreError: it is neither.
    """
    found, as_it_should_be = SQLiteStore(str(path), MIGRATED_LAYOUT), SQLiteStore(str(path))
    try:
        found.connect()
    except StoreError:
        as_it_should_be.connect()
        as_it_should_be.close()
        return None
    return found


def _rewrite(
    source: Collection,
    old: Mapping[str, Any],
    crystals: Collection,
    calculations: Collection,
    remove: Callable[[list[str]], None],
    on_documents: Callable[[int], None],
) -> int:
    keys = [row["key"] for row in source.query(old, ["key"])]
    for number, lot in enumerate(batched(keys, _LOT)):
        on_documents(number * _LOT)
        pairs = [_told_apart(document) for document in source.query({"key": {"$in": list(lot)}})]
        crystals.update([crystal for crystal, _ in pairs])
        calculations.update([calculation for _, calculation in pairs])
        remove(list(lot))
    return len(keys)


def _told_apart(old: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Crystal and calculation of a document that was both."""
    try:
        shared: dict[str, Any] = {name: old[name] for name in (*_SHARED, *_TIMES) if name in old}
        shared["origin"] = {"source": old["source"], "sha256": old["source_sha256"], "parent": None, "mode": None}
        crystal = {"key": old["id"], **shared, "structure": old.get("structure")}
        rest = {name: value for name, value in old.items() if name not in {*_SHARED, *_TIMES, *_MOVED}}
        return crystal, shared | rest | _computed(old)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"Document '{old.get('key')}' is not as an older version wrote it: {error!r}.") from error


def _computed(old: Mapping[str, Any]) -> dict[str, Any]:
    phonon = dict(old.get("phonon") or {})
    minima = {place: phonon.pop(place, None) for place in _EXACT}
    looks = {place: Look(**found, exact=_EXACT[place]) for place, found in minima.items() if found}
    judged = phonon.pop("judged", None)
    where = next((place for place, look in looks.items() if judged and _same(look, judged)), None)
    assessments = [
        Assessment(
            stability=Stability.STABLE if verdict["stable"] else Stability.UNSTABLE,
            threshold=verdict["threshold"],
            where=where,
        ).model_dump()
        for verdict in old.get("verdicts") or []
    ]
    return {
        "stage": _STAGES.get(old["stage"], old["stage"]),
        "steps": _STEPS,
        "phonon": phonon or None,
        "evidence": Evidence(looks=looks).model_dump(),
        "minimum": looks[where].model_dump() if where else None,
        "assessments": assessments,
        "results": {},
        "arrays": {name: old[name] for name in ("force_constants", "band_structure") if old.get(name)},
        "timings": {_STAGES.get(stage, stage): seconds for stage, seconds in (old.get("timings") or {}).items()},
    }


def _same(look: Look, judged: Mapping[str, Any]) -> bool:
    return (look.frequency, look.q, look.n_q) == (judged["frequency"], judged["q"], judged["n_q"])
