"""Chunks are bounded by what their crystals cost, and hold every crystal that waits once."""

from __future__ import annotations

from screened import blank, crystal_set

from phononbench_flows.bounded import bounded
from phononbench_flows.documents import CalculationDocument, Symmetry
from phononbench_flows.outcomes import SCREENED, Status
from phononbench_flows.protocol import PRESETS, ForceConstantsSettings, Protocol
from phononbench_flows.sets.chunks import WaitingCrystal, cost, waiting_crystals
from phononbench_flows.steps import CrystalSize
from phononbench_flows.store import ResultsStore

PAPER = PRESETS["paper"]


def test_the_cost_counts_atoms_displacements_and_supercells():
    small = Protocol(force_constants=ForceConstantsSettings(supercell=(1, 1, 1)))
    assert cost(CrystalSize(10, "1"), PAPER) == 10 * (100 + 8 * 60)
    assert cost(CrystalSize(10, None), PAPER) == cost(CrystalSize(10, "1"), PAPER)
    assert cost(CrystalSize(10, "-1"), PAPER) == 10 * (100 + 8 * 30)
    assert cost(CrystalSize(10, "m-3m"), PAPER) == 10 * (100 + 8 * 2)
    assert cost(CrystalSize(10, "1"), small) == 10 * (100 + 60)


def test_chunks_are_bounded_by_cost_and_number_and_lose_nothing():
    items = [1.0, 2.0, 4.0, 99.0, 1.0, 1.0, 1.0]
    chunks = list(bounded(items, lambda x: x, limit=5.0, most=2))
    assert chunks == [[1.0, 2.0], [4.0], [99.0], [1.0, 1.0], [1.0]]


def test_only_what_waits_is_costed(tmp_path):
    crystals = crystal_set()

    def document(name: str, **fields) -> CalculationDocument:
        return blank(crystals, name).model_copy(update={"stage": SCREENED, "nsites": 4} | fields)

    with ResultsStore.open(tmp_path, create=True) as store:
        symmetric = Symmetry(number=225, point_group="m-3m", symbol="Fm-3m", symprec=0.01)
        documents = [
            document("plain"),
            document("stable", status=Status.STABLE),
            document("symmetric", symmetry_initial=symmetric),
        ]
        store.put(*documents)
        found = waiting_crystals(store, crystals, [d.key for d in reversed(documents)])
    assert found == [
        WaitingCrystal(documents[2].key, 4, 4 * (100 + 8)),
        WaitingCrystal(documents[0].key, 4, 4 * (100 + 8 * 24)),
    ]
