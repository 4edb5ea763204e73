"""Chunks are bounded by what their crystals cost, and hold every crystal that waits once."""

from __future__ import annotations

from phononbench_flows.documents import CrystalDocument, PotentialRecord, document_key
from phononbench_flows.outcomes import Stage, Status
from phononbench_flows.protocol import PRESETS, ForceConstantsSettings, Protocol
from phononbench_flows.sets.chunks import Costed, bounded, cost, costed
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.store import ResultsStore

PAPER = PRESETS["paper"]


def test_the_cost_counts_atoms_displacements_and_supercells():
    small = Protocol(force_constants=ForceConstantsSettings(supercell=(1, 1, 1)))
    assert cost(10, "1", PAPER) == 10 * (100 + 8 * 60)
    assert cost(10, None, PAPER) == cost(10, "1", PAPER)
    assert cost(10, "-1", PAPER) == 10 * (100 + 8 * 30)
    assert cost(10, "m-3m", PAPER) == 10 * (100 + 8 * 2)
    assert cost(10, "1", small) == 10 * (100 + 60)


def test_chunks_are_bounded_by_cost_and_number_and_lose_nothing():
    items = [1.0, 2.0, 4.0, 99.0, 1.0, 1.0, 1.0]
    chunks = list(bounded(items, lambda x: x, limit=5.0, most=2))
    assert chunks == [[1.0, 2.0], [4.0], [99.0], [1.0, 1.0], [1.0]]


def test_only_what_waits_is_costed(tmp_path, fcc):
    crystals = CrystalSet("toys", {}, PAPER, PotentialRecord(name="toy", checkpoint_sha256="0" * 64), None)

    def document(name: str, **fields) -> CrystalDocument:
        crystal_id = f"toys-{name}"
        return CrystalDocument(
            key=document_key(crystal_id, crystals.protocol_id),
            id=crystal_id,
            set="toys",
            source="",
            source_sha256=None,
            protocol_id=crystals.protocol_id,
            protocol_name="paper",
            potential=crystals.potential,
            stage=Stage.SCREENED,
            nsites=4,
            **fields,
        )

    with ResultsStore.open(tmp_path) as store:
        symmetric = {"number": 225, "point_group": "m-3m", "symbol": "Fm-3m", "symprec": 0.01}
        documents = [
            document("plain"),
            document("stable", status=Status.STABLE),
            document("symmetric", symmetry_initial=symmetric),
        ]
        store.put(*documents)
        found = costed(store, crystals, [d.key for d in reversed(documents)])
    assert found == [Costed(documents[2].key, 4 * (100 + 8)), Costed(documents[0].key, 4 * (100 + 8 * 24))]
