"""Two sets of crystals that nobody computed, small enough to be counted by hand."""

from __future__ import annotations

from itertools import count
from typing import Any

from made_documents import CONVERGED_ID, crystal_of, make, make_exact, seen_exactly

from phononbench_flows.documents import CalculationDocument, PhononRecord, SetDocument
from phononbench_flows.stability import Assessment, Evidence, Look
from phononbench_flows.store import ResultsStore

NUMBERS = count()
PHONON = PhononRecord(
    supercell=[2, 2, 2], supercell_natoms=8, primitive_natoms=1, n_displacements=1, max_drift=0.0, n_imaginary=0
)
UNKNOWN: dict[str, Any] = {"evidence": Evidence(), "minimum": None, "assessments": [], "relaxed_structure": None}
"""Of a crystal that has no frequencies."""


def evidence(path: float, mesh: float) -> Evidence:
    looks = {
        place: Look(frequency=frequency, q=[0, 0, 0], n_q=3, exact=False)
        for place, frequency in (("path", path), ("mesh", mesh))
    }
    return Evidence(looks=looks)


def crystal(status: str, set_name: str = "A", **changes: Any) -> CalculationDocument:
    """One of set A under protocol p; as far as its status says, unless told otherwise."""
    number = next(NUMBERS)
    stage = {"stable": "spectrum", "unstable": "spectrum", "undecided": "spectrum", "rejected": "read"}
    plain = {"id": f"{set_name}-{number}", "key": f"{set_name}-{number}@p", "set": set_name, "elements": ["O"]}
    plain |= {"status": status, "stage": stage.get(status, "screened"), "nelements": 1}
    return make(number, **(UNKNOWN | plain | changes))


def judged(lowest: float, set_name: str = "A", mesh: float = 0.0, **changes: Any) -> CalculationDocument:
    """A crystal that was judged by its lowest frequency on the path, as the protocol ``paper`` does it."""
    status = "stable" if lowest >= -1e-3 else "unstable"
    seen = evidence(lowest, mesh)
    assessments = [
        Assessment(threshold=threshold, stability="stable" if lowest >= threshold else "unstable", where="path")
        for threshold in (-1e-3, -0.1)
    ]
    computed = {"evidence": seen, "minimum": seen.looks["path"], "assessments": assessments, "phonon": PHONON}
    return crystal(status, set_name, **(computed | changes))


def system(name: str) -> dict[str, Any]:
    return {"symmetry_relaxed": {"crystal_system": name, "symprec": 0.01}}


def made() -> tuple[list[CalculationDocument], list[SetDocument]]:
    """Set A: 2 stable of 5 relaxed and 20 generated; set B: 4 stable of 12, all of them handed in."""
    of_a = [
        judged(0.0, elements=["Li", "O"], nelements=2, **system("Cubic")),
        judged(-1e-5, elements=["O"], **system("Triclinic")),
        judged(-0.05, elements=["Li"], mesh=-0.5, **system("Cubic")),
        judged(-2.0, elements=["Na", "O"], nelements=2, mesh=-0.5, **system("Triclinic")),
        crystal("failed", stage="relaxation", reason="exception", **system("Cubic")),
        crystal("failed", reason="not_converged"),
        crystal("failed", reason="not_converged"),
        crystal("rejected", reason="unparsable", elements=[], nelements=None),
        crystal("duplicate"),
        crystal("known"),
        crystal("pending"),
    ]
    of_b = [judged(0.0, "B", condition={"band_gap": 1.5}) for _ in range(3)]
    of_b += [judged(-1.0, "B", condition={"band_gap": 1.5}) for _ in range(5)]
    of_b += [judged(-0.001, "B", condition={"band_gap": 0.5}), *(judged(-0.1, "B") for _ in range(3))]
    sets = [
        SetDocument(set="A", model="M-Net", training_set="MP-20", n_generated=20, generation_seconds=120, parameters=7),
        SetDocument(set="B", condition={"band_gap": 0.5}),
    ]
    return of_a + of_b, sets


def exact(path: float, lowest: float | None, set_name: str = "A", **changes: Any) -> CalculationDocument:
    """A crystal by the protocol ``converged``, from its lowest frequencies on the path and at exact q-points."""
    number = next(NUMBERS)
    name = f"{set_name}-{number}"
    plain = {"id": name, "key": f"{name}@{CONVERGED_ID}", "set": set_name, "elements": ["O"], "nelements": 1}
    return make_exact(number, path, lowest, **(plain | {"nsites": 2, "relaxed_structure": None} | changes))


def made_exact() -> list[CalculationDocument]:
    """Of set A 1 of 5 relaxed crystals is stable by the published rule, 2 if cured, 3 by exact frequencies, 1 of which
    the rule calls unstable at -0.001 THz alone; of set B 1 is so by the rule alone.
    """
    cubic = {"symmetry_relaxed": {"crystal_system": "Cubic", "point_group": "m-3m"}}
    triclinic = {"symmetry_relaxed": {"crystal_system": "Triclinic", "point_group": "1"}, "nsites": 20}
    failed = exact(0.0, None, **cubic)
    failed.status, failed.reason, failed.assessments = "failed", "exception", []
    return [
        exact(0.0, 1.5, **cubic),
        exact(-0.05, 0.8, **triclinic),
        exact(-4.2, 0.76, evidence=seen_exactly(-4.2, 0.76, cured=-1.5), **triclinic),
        exact(-2.0, -2.1, evidence=seen_exactly(-2.0, -2.1, cured=-2.0), **cubic),
        failed,
        exact(0.0, -2.45, "B", **cubic),
        exact(0.0, 1e-5, "B", **triclinic),
    ]


def fill_exact(store: ResultsStore) -> None:
    crystals = made_exact()
    store.put_crystals(*map(crystal_of, crystals))
    store.put(*crystals)
    store.put_set(SetDocument(set="A", model="M-Net", n_generated=20))


def fill(store: ResultsStore) -> None:
    crystals, sets = made()
    store.put_crystals(*map(crystal_of, crystals))
    store.put(*crystals)
    for about in sets:
        store.put_set(about)
