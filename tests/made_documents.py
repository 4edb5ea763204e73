"""Crystal documents that nobody computed."""

from __future__ import annotations

from typing import Any

from phononbench_flows.documents import CrystalDocument, PotentialRecord, Verdict
from phononbench_flows.outcomes import Stage, Status

POTENTIAL = PotentialRecord(name="test", checkpoint_sha256="0" * 64, dtype="float64", device="cpu")
STATUSES = [Status.STABLE, Status.UNSTABLE, Status.FAILED, Status.PENDING]
ELEMENTS = [["O", "Ti"], ["O"], ["N", "Sr", "Ti"], []]


def make(number: int, **changes: Any) -> CrystalDocument:
    sites = [{"species": "O", "abc": [0.1 * number, 1 / 3, 2 / 3]}] * 20
    fields: dict[str, Any] = {
        "key": f"gen_{number}@p",
        "id": f"gen_{number}",
        "set": "left" if number % 2 else "right",
        "source": "set.zip/gen.cif",
        "source_sha256": None,
        "protocol_id": "p",
        "protocol_name": "paper",
        "potential": POTENTIAL,
        "status": STATUSES[number % 4],
        "stage": Stage.JUDGED,
        "nsites": number % 7 or None,
        "elements": ELEMENTS[number % 4],
        "structure": {"lattice": {"a": 3.9 + number / 7}, "sites": sites},
        "verdicts": [Verdict(threshold=-0.1, stable=number % 3 == 0), Verdict(threshold=-0.5, stable=True)],
        "timings": {"relax": 0.1 * number},
    }
    return CrystalDocument(**(fields | changes))
