"""A store with documents of exactly the counts that the paper publishes, 108,843 of them relaxed.

What is not published is made up: numbers of crystals by crystal system (chosen so that the published percentages come
out), elements other than O, Li and F, lowest frequencies, and what became of the crystals between two columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from phononbench_flows.documents import SetDocument
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.sqlite import SQLiteStore

PROTOCOL = "p0123456789abcdef"


@dataclass(frozen=True)
class Published:
    """Counts of one set: a row of Table 3, or of Table 4, of which only the relaxed crystals are known."""

    model: str
    training_set: str
    relaxed: int
    stable: int
    accepted: int
    unique: int
    generated: int
    band_gap: float | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        return f"{self.model}-{self.training_set}" + (f"-gap-{self.band_gap}" if self.band_gap else "")


TABLE_3 = (
    Published("CrystalFlow", "MP20", 8533, 1428, 8852, 9952, 16000, seconds=2304),
    Published("CrystalFormer", "Alex20", 8642, 2969, 8807, 8986, 40000),
    Published("CrystalFormer", "MP20", 4408, 510, 4990, 5143, 20000, seconds=159480),
    Published("CrystaLLM", "MP20", 1951, 58, 2074, 2074, 16000),
    Published("DiffCSP", "MP20", 9163, 2488, 9959, 10000, 16000, seconds=8280),
    Published("InvDesFlow-AL", "Alex20", 22755, 8743, 24997, 25000, 30000),
    Published("MatterGen", "Alex20", 10902, 4469, 11829, 11829, 16000),
    Published("MatterGen", "MP20", 9279, 2278, 10000, 10000, 16000, seconds=72720),
)
TABLE_4 = tuple(
    Published("MatterGen", "MP20", relaxed, stable, relaxed, relaxed, generated, band_gap=gap)
    for gap, relaxed, stable, generated in (
        (0.5, 6524, 1532, 10000),
        (1.5, 9478, 1448, 16000),
        (2.5, 6133, 816, 10000),
        (3.5, 5735, 763, 10000),
        (4.5, 5340, 617, 10000),
    )
)
# Relaxed and stable crystals of CrystalFormer-Alex20.
SYSTEMS = {
    "Cubic": (1463, 720),
    "Hexagonal": (1060, 379),
    "Trigonal": (1150, 407),
    "Tetragonal": (1255, 439),
    "Orthorhombic": (1554, 507),
    "Monoclinic": (1582, 419),
    "Triclinic": (578, 98),
}
# Which of the stable crystals, counted through all sets, hold an element.
HOLDERS = {"O": range(10272), "Li": range(8000, 8000 + 5792), "F": range(12000, 12000 + 5236)}


def fill(path: Path, sets: Sequence[Published]) -> ResultsStore:
    """Write the documents and what is known of the sets into a new embedded store."""
    store = ResultsStore.open(path, create=True)
    number = count()
    SQLiteStore(str(path / "results.sqlite")).update([raw for each in sets for raw in documents(each, number)])
    for each in sets:
        store.put_set(
            SetDocument(
                set=each.name,
                model=each.model,
                training_set=each.training_set,
                architecture="Transformer" if each.model.startswith("Crysta") and "Flow" not in each.model else "GNN",
                condition={"band_gap": each.band_gap} if each.band_gap else {},
                n_generated=each.generated,
                generation_seconds=each.seconds,
            )
        )
    return store


def documents(each: Published, stable_number: Iterator[int]) -> Iterator[dict[str, Any]]:
    """The documents of a set, as they are stored, with only what is counted in them."""
    systems = _systems(each)
    for index in range(each.unique):
        if index >= each.accepted:
            fate = {"status": "rejected", "stage": "read", "reason": "unparsable"}
        elif index >= each.relaxed:
            fate = {"status": "failed", "stage": "screened", "reason": "not_converged"}
        else:
            fate = _judged(index < each.stable, index, stable_number)
            fate["symmetry_relaxed"] = {"crystal_system": systems[index], "symprec": 0.01}
        yield _bare(each, index) | fate


def _bare(each: Published, index: int) -> dict[str, Any]:
    name = f"{each.name}-{index}"
    return {
        "key": f"{name}@{PROTOCOL}",
        "id": name,
        "set": each.name,
        "origin": {"source": name},
        "protocol_id": PROTOCOL,
        "protocol_name": "paper",
        "potential": {"name": "none", "checkpoint_sha256": "0" * 64, "dtype": "float64", "device": "cpu"},
        "steps": ["relaxation", "force_constants", "spectrum"],
    }


def _judged(stable: bool, index: int, stable_number: Iterator[int]) -> dict[str, Any]:
    elements = ["Cu", "Zn"] if index % 3 else ["Cu"]
    if stable:
        number = next(stable_number)
        elements = sorted([*elements, *(element for element, holders in HOLDERS.items() if number in holders)])
    # Spread over the thresholds: -1e-1 to -1e-6 THz at first, then further down.
    lowest = -(10.0 ** (-1 - index % 6)) if not stable else 0.0
    minimum = {
        "frequency": min(lowest, -0.002 if not stable else 0.0),
        "q": [0.0, 0.0, 0.0],
        "n_q": 101,
        "exact": False,
    }
    return {
        "status": "stable" if stable else "unstable",
        "stage": "spectrum",
        "elements": elements,
        "nelements": len(elements),
        "phonon": {
            "supercell": [2, 2, 2],
            "supercell_natoms": 8,
            "primitive_natoms": 1,
            "n_displacements": 1,
            "max_drift": 0.0,
        },
        "evidence": {"looks": {"path": minimum}},
        "minimum": minimum,
    }


def _systems(each: Published) -> list[str]:
    """The crystal system of every relaxed crystal, the stable ones first."""
    if each.name != "CrystalFormer-Alex20":
        return list(SYSTEMS)[:1] * each.relaxed
    stable = [name for name, (_, number) in SYSTEMS.items() for _ in range(number)]
    unstable = [name for name, (relaxed, number) in SYSTEMS.items() for _ in range(relaxed - number)]
    return stable + unstable
