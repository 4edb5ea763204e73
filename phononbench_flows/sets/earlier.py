"""Crystals that an earlier run left in the store: which there are, and those whose files are gone or come back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.outcomes import READ, SCREENED, Status, is_unsettled

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

_LOT = 256  # documents rewritten at once
_INSIDE = re.compile(r"[!#]")  # before the name of an archive's member, and the number of a row or frame


@dataclass(frozen=True, slots=True)
class Known:
    """What the store says of a crystal.

    Attributes:
        sha256: of the source that was read.
        unsettled: whether it is open if it repeats another one.
    """

    source: str | None
    sha256: str | None
    formula: str | None
    status: str
    unsettled: bool

    def is_gone(self, paths: Sequence[Path], *, whole: bool) -> bool:
        """Whether a crystal that the inputs do not hold has no file any more.

        Of other inputs than these nothing is known but whether their files are there.

        Parameters:
            whole: whether the inputs were read to their ends.
        """
        if self.source is None or self.status == Status.GONE:
            return False
        source = os.path.abspath(self.source)  # noqa: PTH100  (links are not followed: the name counts)
        return (whole and any(_lies_in(source, os.path.abspath(path)) for path in paths)) or _is_missing(source)  # noqa: PTH100


def _lies_in(source: str, path: str) -> bool:
    return source == path or source.startswith(tuple(f"{path.rstrip('/')}{mark}" for mark in "/!#"))


def _is_missing(source: str) -> bool:
    """Whether neither the file nor anything that may hold it is there, in a folder that is.

    A name that stands here with escapes cannot be looked for.
    """
    if "\\" in source:
        return False
    ends = [match.start() for match in _INSIDE.finditer(source)]
    return Path(source).parent.is_dir() and not any(os.path.lexists(source[:end]) for end in (*ends, len(source)))


def known_calculations(mine: Mapping[str, str], store: ResultsStore) -> dict[str, Known]:
    """The crystals of a set that have a calculation under its protocol, by id.

    Parameters:
        mine: ``set`` and ``protocol_id`` of the calculations.
    """
    fields = ["id", "origin.source", "origin.sha256", "formula_pretty", "status", "stage"]
    return {
        row["id"]: Known(
            row["origin"]["source"],
            row["origin"]["sha256"],
            row["formula_pretty"],
            row["status"],
            is_unsettled(row["status"], row["stage"]),
        )
        for row in store.query(mine, fields)
    }


def leave(store: ResultsStore, criteria: Mapping[str, Any], why: str) -> None:
    """Take these calculations out of what is counted. What was computed stays, should the file come back."""
    _rewrite(store, {**criteria, "status": {"$ne": Status.GONE.value}}, Status.GONE, why)


def come_back(store: ResultsStore, criteria: Mapping[str, Any]) -> None:
    """Put calculations that were gone back to where they were."""
    _rewrite(store, {**criteria, "status": Status.GONE.value}, None, None)


def move(store: ResultsStore, set_name: str, sources: Mapping[str, str]) -> None:
    """Write where these crystals, by id, lie now."""
    for lot in batched(sources, _LOT):
        found = list(store.crystals(lot))
        documents = list(store.documents({"set": set_name, "id": {"$in": list(lot)}}))
        for each in (*found, *documents):
            each.origin.source = sources[each.id]
        store.put_crystals(*found)
        store.put(*documents)


def _rewrite(store: ResultsStore, criteria: Mapping[str, Any], status: Status | None, why: str | None) -> None:
    keys = [row["key"] for row in store.query(criteria, ["key"])]
    for lot in batched(keys, _LOT):
        documents = list(store.documents({"key": {"$in": list(lot)}}))
        for document in documents:
            document.status = status or _status_before(document)
            document.gone = why
            document.attempts, document.excused = 0, 0
        store.put(*documents)


def _status_before(document: CalculationDocument) -> Status:
    """What a calculation says of itself beside its status."""
    if document.duplicate_of is not None:
        return Status.DUPLICATE
    if document.known_as is not None:
        return Status.KNOWN
    if document.reason is not None:
        return Status.REJECTED if document.relaxation is None and document.symmetry_initial is None else Status.FAILED
    if document.assessments and document.stage not in {READ, SCREENED}:
        return Status(document.assessments[0].stability)
    return Status.PENDING
