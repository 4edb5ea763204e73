"""A store of any number of made-up crystals, some of them with hostile names, for reports, queries and bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Lattice, Structure

from phononbench_flows.documents import BlobRef, CrystalDocument, SetDocument
from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.force_constants import ForceConstants
from phononbench_flows.protocol import PRESETS
from phononbench_flows.steps import references
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.sqlite import SQLiteStore

HOSTILE = "</script><script>document.title = 'broken'; alert(1)</script><img src=x onerror=alert(2)> =1+1 \u2028 ${js}"
CHECKPOINT = "ab" * 32
PROTOCOL = PRESETS["paper"]
PROTOCOL_ID = PROTOCOL.id_with(CHECKPOINT)
SETS = {"Alpha": 0.45, "Beta": 0.30, "Gamma-2": 0.15}
"""Names of the sets, and how many of their judged crystals are stable, more or less."""
SYMBOLS = ["O", "Li", "F", "Si", "Fe", "Ba", "Ti", "Na", "Cl", "N", "S", "Mg", "Al", "La", "U"]
SYSTEMS = [
    ("Cubic", "Fm-3m", 225),
    ("Hexagonal", "P6_3/mmc", 194),
    ("Tetragonal", "P4/mmm", 123),
    ("Orthorhombic", "Pnma", 62),
    ("Triclinic", "P1", 1),
]


def fill(path: Path, number: int, seed: int = 0, n_bands: int = 6) -> ResultsStore:
    """Write so many crystals in three sets into a new embedded store; the same seed makes the same store.

    ``n_bands`` band structures (an even number) are shared among them, the first half of which have no imaginary modes.
    """
    random = np.random.default_rng(seed)
    store = ResultsStore.open(path, create=True)
    depths = [*[0.0] * (n_bands // 2), *(-np.geomspace(0.03, 3, n_bands // 2))]
    refs = [_bands(store.blobs, random, depth) for depth in depths]
    constants = store.blobs.put(_springs(random))
    documents = [_document(index, refs, constants, random) for index in range(number)]
    # Past the validation, so that they keep their dates: the same seed makes the same bytes.
    SQLiteStore(str(path / "crystals.sqlite")).update([_crystal_of(document) for document in documents])
    for document in documents:
        document.pop("structure", None)
    SQLiteStore(str(path / "results.sqlite")).update(documents)
    for name in SETS:
        about = SetDocument(set=name, model=f"Model {name}", training_set="MP-20", condition={"target": HOSTILE[:60]})
        store.put_set(about)
    return store


def put_textbook(store: ResultsStore) -> dict[str, str]:
    """Give stable crystals of a store the structures of textbooks; gives their keys, by name."""
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.212), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    ice = Structure.from_spacegroup("Pa-3", Lattice.cubic(5.624), ["C", "O"], [[0, 0, 0], [0.1185] * 3])
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.615), ["Cu"], [[0, 0, 0]])
    crystals = {"MgO": salt, "MgO, primitive": salt.get_primitive_structure(), "Cu": copper, "CO2": ice}
    documents = list(store.documents({"status": "stable"}, sort={"id": 1}))[: len(crystals)]
    for document, structure in zip(documents, crystals.values(), strict=True):
        document.relaxed_structure, document.nsites = structure.as_dict(), len(structure)
        document.formula_pretty = structure.reduced_formula
        document.elements = sorted(map(str, structure.elements))
        document.nelements, document.chemsys = len(document.elements), "-".join(document.elements)
        store.put(document)
    return dict(zip(crystals, (document.key for document in documents), strict=True))


def _crystal_of(document: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in document.items() if name in CrystalDocument.model_fields}
    return {"key": document["id"], "structure": None} | own


def _document(index: int, refs: list[BlobRef], constants: BlobRef, random: Any) -> dict[str, Any]:
    name = list(SETS)[index % len(SETS)]
    fate = random.random()
    document = {
        "key": f"{name}-{index:05d}@{PROTOCOL_ID}",
        "id": f"{name}-{index:05d}",
        "set": name,
        "origin": {
            "source": HOSTILE if index == 7 else f"{name}.zip/{index}.cif",
            "sha256": f"{index:064x}",
            "parent": None,
            "mode": None,
        },
        "protocol_id": PROTOCOL_ID,
        "protocol_name": PROTOCOL.name,
        "potential": {"name": "made-up", "checkpoint_sha256": CHECKPOINT, "dtype": "float64", "device": "cpu"},
        "steps": references(PROTOCOL),
        "condition": {},
        "elements": [],
        "evidence": {"looks": {}, "noise": None, "not_looked_at": []},
        "minimum": None,
        "assessments": [],
        "arrays": {},
        "timings": {},
        "attempts": 0,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T03:04:05Z",
    }
    if fate < 0.05:
        return document | {"status": "rejected", "stage": "read", "reason": "unparsable", "detail": HOSTILE}
    document |= _crystal(random)
    if fate < 0.08:
        return document | {"status": "duplicate", "stage": "screened", "duplicate_of": f"{name}-00000"}
    if fate < 0.10:
        return document | {"status": "known", "stage": "screened", "known_as": HOSTILE}
    if fate < 0.15:
        return document | {
            "status": "failed",
            "stage": "screened",
            "reason": "not_converged",
            "detail": "=cmd|' /C'!A0",
        }
    return document | _judged(document, random.random() < SETS[name], refs, constants, random)


def _crystal(random: Any) -> dict[str, Any]:
    symbols = sorted({str(symbol) for symbol in random.choice(SYMBOLS, size=random.integers(1, 4))})
    sites = sorted([*symbols, *(str(symbol) for symbol in random.choice(symbols, size=random.integers(1, 14)))])
    edge = (18.0 * len(sites)) ** (1 / 3)
    lattice = Lattice.from_parameters(edge, edge * 1.1, edge * 0.95, 90, 95, 90)
    structure = Structure(lattice, sites, random.random((len(sites), 3)))
    return {
        "nsites": len(sites),
        "elements": symbols,
        "nelements": len(symbols),
        "formula_pretty": Composition("".join(sites)).reduced_formula,
        "chemsys": "-".join(symbols),
        "structure": structure.as_dict(),
    }


def _judged(
    document: dict[str, Any], stable: bool, refs: list[BlobRef], constants: BlobRef, random: Any
) -> dict[str, Any]:
    system, symbol, number = SYSTEMS[random.integers(len(SYSTEMS))]
    half = len(refs) // 2
    ref = refs[random.integers(half) if stable else random.integers(half, len(refs))]
    lowest = -(10.0 ** random.uniform(-9, -4)) if stable else -(10.0 ** random.uniform(-2.9, 1))
    minimum = {"frequency": lowest, "q": [0.0, 0.25, 0.0], "n_q": 101, "exact": False}
    at_zero = {"frequency": min(0.0, lowest + 0.01), "q": [0.0, 0.0, 0.0], "n_q": 8, "exact": True}
    return {
        "status": "stable" if stable else "unstable",
        "stage": "spectrum",
        "symmetry_relaxed": {"crystal_system": system, "symbol": symbol, "number": number, "symprec": 0.01},
        "relaxed_structure": document["structure"],
        "relaxation": {
            "steps": 40,
            "rounds": 1,
            "energy_per_atom": -3.5,
            "max_force": 0.002,
            "max_stress": 1e-5,
            "volume_change": 0.01,
            "refined": True,
        },
        "phonon": {
            "supercell": [2, 2, 2],
            "supercell_natoms": 8 * document["nsites"],
            "primitive_natoms": document["nsites"],
            "n_displacements": 4,
            "max_drift": 0.0,
            "n_imaginary": 0 if stable else 3,
        },
        "evidence": {
            "looks": {"path": minimum, "mesh": minimum, "commensurate": at_zero},
            "noise": None,
            "not_looked_at": [],
        },
        "minimum": minimum,
        "assessments": [
            {
                "threshold": threshold,
                "stability": "stable" if lowest >= threshold else "unstable",
                "where": PROTOCOL.judgement.q_points,
                "next": [],
            }
            for threshold in PROTOCOL.judgement.thresholds
        ],
        "arrays": {"band_structure": ref.model_dump(), "force_constants": constants.model_dump()},
        "results": {
            "hull": {
                "energy_above_hull": 0.05 if number > 100 else 0.5,
                "decomposition": {},
                "missing": [],
                "n_references": 3,
                "n_compounds": 0,
                "reference": HOSTILE,
                "known_as": None,
            }
        },
    }


def _springs(random: Any) -> dict[str, np.ndarray]:
    """Force constants of three atoms, each bound to its place alone."""
    strengths = 2 + np.abs(random.normal(size=(2, 16, 3, 3)).ravel()[:3])
    array = np.zeros((3, 24, 3, 3))
    array[np.arange(3), 8 * np.arange(3)] = strengths[:, None, None] * np.eye(3)
    cell, positions = 4.0 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    twice = np.diag([2, 2, 2])
    return ForceConstants(cell, np.array([8, 14, 56]), positions, twice, np.eye(3), array, 0.01, 4, 0.0).arrays()


def _bands(blobs: Any, random: Any, depth: float) -> BlobRef:
    """Nine branches on Γ-X-M|R-Γ that reach down to ``depth`` THz on the second segment."""
    ends = [0.0, 0.5, 1.0, 1.8]
    distances = [np.linspace(ends[i], ends[i + 1], 101) for i in range(3)]
    tops = np.sort(random.uniform(3, 16, size=9))
    frequencies = [
        np.column_stack([top * np.abs(np.sin(np.pi * x / 1.8 + phase)) + phase for phase, top in enumerate(tops)])
        for x in distances
    ]
    frequencies[1][50, 0] = depth
    q = [np.column_stack([x, 0 * x, 0 * x]) for x in distances]
    labels = ["GAMMA", "X", "M", "R", "GAMMA"]
    bands = Bands(q=q, distances=distances, frequencies=frequencies, labels=labels, connections=[True, False, False])
    return blobs.put(bands.arrays())
