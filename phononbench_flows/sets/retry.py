"""Crystals put back in line: failed ones, from the step in which they failed, and those proven unstable early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.steps import steps_of

if TYPE_CHECKING:
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore

ALL_FAILED = "all-failed"
"""Stands for every reason."""

PROVEN = "proven"
"""Stands for those that a proof settled before all was computed: they get the whole spectrum."""

_LOT = 256  # documents written at once


class RetryError(PhononBenchError):
    """A reason that there is not."""


def checked_reasons(reasons: Sequence[str]) -> list[str]:
    """These reasons, each of which exists.

    Raises:
        RetryError: there is no such reason.
    """
    known = [ALL_FAILED, PROVEN, *Reason]
    for reason in reasons:
        if reason not in known:
            raise RetryError(f"there is no reason {reason!r} to retry; there are {', '.join(known)}")
    return list(reasons)


def retry(store: ResultsStore, crystals: CrystalSet, keys: Sequence[str], reasons: Sequence[str]) -> int:
    """Put those of these crystals that failed for one of these reasons, or were proven, in line; gives their number.

    Raises:
        RetryError: there is no such reason.
    """
    mine = {"set": crystals.name, "protocol_id": crystals.protocol_id}
    chosen = checked_reasons(reasons)
    failed: dict[str, Any] = mine | {"status": Status.FAILED.value}
    if ALL_FAILED not in chosen:
        failed["reason"] = {"$in": chosen}
    number = _reopen(store, failed, keys)
    if PROVEN in chosen:
        last = steps_of(crystals.protocol)[-1].name
        number += _reopen(store, mine | {"status": Status.UNSTABLE.value, "stage": {"$ne": last}}, keys)
    return number


def _reopen(store: ResultsStore, wanted: Mapping[str, Any], keys: Sequence[str]) -> int:
    """Those of a filter and of these keys go on from the step that they have passed last; gives their number."""
    among, number = set(keys), 0
    for lot in batched((found for found in store.documents(wanted) if found.key in among), _LOT):
        for document in lot:
            document.status, document.reason, document.detail = Status.PENDING, None, None
            document.attempts, document.excused, document.device_errors = 0, 0, 0
            document.assessments, document.minimum = [], None
        store.put(*lot)
        number += len(lot)
    return number
