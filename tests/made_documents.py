"""Crystals and calculations that nobody computed."""

from __future__ import annotations

from typing import Any

from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin, PotentialRecord
from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.stability import Assessment, ElasticLook, Evidence, ExactLook, Look, Stability
from phononbench_flows.steps import ALWAYS, references
from phononbench_flows.steps.passing import conclude

POTENTIAL = PotentialRecord(name="test", checkpoint_sha256="0" * 64, dtype="float64", device="cpu")
STATUSES = [Status.STABLE, Status.UNSTABLE, Status.FAILED, Status.PENDING]
ELEMENTS = [["O", "Ti"], ["O"], ["N", "Sr", "Ti"], []]
OWN = set(CrystalDocument.model_fields) - {"structure"}
"""What a calculation says of its crystal."""


def structure(number: int) -> dict[str, Any]:
    """What no crystal is, but as large and as deep as one."""
    sites = [{"species": "O", "abc": [0.1 * number, 1 / 3, 2 / 3]}] * 20
    return {"lattice": {"a": 3.9 + number / 7}, "sites": sites}


def make(number: int, **changes: Any) -> CalculationDocument:
    stable = number % 3 == 0
    look = Look(frequency=0.0 if stable else -0.3, q=[0.5, 0.0, 0.0], n_q=9, exact=False)
    first = Stability.STABLE if stable else Stability.UNSTABLE
    fields: dict[str, Any] = {
        "key": f"gen_{number}@p",
        "id": f"gen_{number}",
        "set": "left" if number % 2 else "right",
        "origin": Origin(source="set.zip/gen.cif"),
        "protocol_id": "p",
        "protocol_name": "paper",
        "potential": POTENTIAL,
        "steps": list(ALWAYS),
        "status": STATUSES[number % 4],
        "stage": "spectrum",
        "nsites": number % 7 or None,
        "elements": ELEMENTS[number % 4],
        "relaxed_structure": structure(number),
        "evidence": Evidence(looks={"path": look}),
        "minimum": look,
        "assessments": [
            Assessment(threshold=-0.1, stability=first, where="path"),
            Assessment(threshold=-0.5, stability=Stability.STABLE, where="path"),
        ],
        "timings": {"relaxation": 0.1 * number},
    }
    return CalculationDocument(**(fields | changes))


CONVERGED = PRESETS["converged"]
CONVERGED_ID = CONVERGED.id_with(POTENTIAL.checkpoint_sha256)


def seen_exactly(path: float, exact: float | None, *, cured: float | None = 0.0, **changes: Any) -> Evidence:
    """Evidence with these lowest frequencies in THz; None where nobody looked."""
    lowest = {"path": path, "mesh": path, "commensurate": 0.0, "cured": cured, "exact": exact}
    q = [0.125, 0.0, 0.0]
    looks = {
        place: Look(frequency=frequency, q=q, n_q=9, exact=place in {"commensurate", "exact"})
        for place, frequency in lowest.items()
        if frequency is not None
    }
    found = [
        ExactLook(q=[0.5, 0.0, 0.0], frequency=2.5, how="supercell", natoms=16),
        ExactLook(q=q, frequency=exact or 0.0, interpolated=path, label="<X>", how="displacements", natoms=8),
    ]
    elastic = ElasticLook(lowest=42.0, slope=30.0, direction=[0.0, 0.6, 0.8], born_stable=True, noise=0.1)
    fields: dict[str, Any] = {"looks": looks, "exact": found if exact is not None else [], "elastic": elastic}
    return Evidence(**(fields | {"noise": 0.004, "noise_from": {"drift": 0.004}, "dimension": 3} | changes))


def make_exact(number: int, path: float, exact: float | None, **changes: Any) -> CalculationDocument:
    """A crystal that the protocol ``converged`` has judged; see :func:`seen_exactly`."""
    fields: dict[str, Any] = {
        "key": f"gen_{number}@{CONVERGED_ID}",
        "protocol_id": CONVERGED_ID,
        "protocol_name": CONVERGED.name,
        "steps": references(CONVERGED),
        "stage": "exact_looks",
        "evidence": seen_exactly(path, exact),
        "results": {"elasticity": {"bulk_modulus": {"vrh": 123.0}, "shear_modulus": {"vrh": 45.0}}},
    }
    document = make(number, **(fields | changes))
    conclude(document, CONVERGED)
    return document


def crystal_of(document: CalculationDocument, **changes: Any) -> CrystalDocument:
    """The crystal of a calculation."""
    return CrystalDocument(**(document.model_dump(include=OWN) | changes))


def make_crystal(number: int, **changes: Any) -> CrystalDocument:
    return crystal_of(make(number), **({"structure": structure(number)} | changes))
