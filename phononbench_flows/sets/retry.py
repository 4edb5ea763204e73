"""Failed crystals put back in line, to be computed again from the step in which they failed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason, Status

if TYPE_CHECKING:
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore

ALL_FAILED = "all-failed"
"""Stands for every reason."""

_LOT = 256  # documents written at once


class RetryError(PhononBenchError):
    """A reason that there is not."""


def checked_reasons(reasons: Sequence[str]) -> list[str]:
    """These reasons, each of which exists.

    Raises:
        RetryError: there is no such reason.
    """
    known = [ALL_FAILED, *Reason]
    for reason in reasons:
        if reason not in known:
            raise RetryError(f"there is no reason {reason!r} to retry; there are {', '.join(known)}")
    return list(reasons)


def retry(store: ResultsStore, crystals: CrystalSet, keys: Sequence[str], reasons: Sequence[str]) -> int:
    """Put those of these crystals that failed for one of these reasons back in line; gives their number.

    Raises:
        RetryError: there is no such reason.
    """
    wanted: dict[str, Any] = {
        "set": crystals.name,
        "protocol_id": crystals.protocol_id,
        "status": Status.FAILED.value,
    }
    chosen = checked_reasons(reasons)
    if ALL_FAILED not in chosen:
        wanted["reason"] = {"$in": chosen}
    among, number = set(keys), 0
    for lot in batched((found for found in store.documents(wanted) if found.key in among), _LOT):
        for document in lot:
            document.status, document.reason, document.detail, document.attempts = Status.PENDING, None, None, 0
        store.put(*lot)
        number += len(lot)
    return number
