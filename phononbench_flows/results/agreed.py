"""Which crystals several potentials call stable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from phononbench_flows.outcomes import Status
from phononbench_flows.store import ResultsStore


def stable_under(store: ResultsStore, number: int, criteria: Mapping[str, Any]) -> dict[str, Any]:
    """MongoDB filter of the crystals that are stable under at least so many potentials.

    Args:
        criteria: MongoDB filter of the calculations that count, of whatever potential and protocol.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    asked = {"$and": [dict(criteria), {"status": Status.STABLE.value}]}
    for row in store.query(asked, ["id", "potential.checkpoint_sha256"]):
        found[row["id"]].add(row["potential"]["checkpoint_sha256"])
    return {"id": {"$in": sorted(name for name, potentials in found.items() if len(potentials) >= number)}}
