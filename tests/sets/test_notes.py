from __future__ import annotations

from pathlib import Path

from phononbench_flows.documents import PotentialRecord
from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.ingest import CrystalSet, ingest
from phononbench_flows.store import ResultsStore

POTENTIAL = PotentialRecord(name="toy", checkpoint_sha256="0" * 64, dtype="float64", device="cpu")

MAGNESIUM = """data_x
_cell_length_a 3.2
_cell_length_b 3.2
_cell_length_c 5.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_IT_number 194
loop_
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Mg 0.333 0.667 0.25
"""


def test_notes_of_the_parser_stand_in_the_crystals_document(tmp_path: Path) -> None:
    path = tmp_path / "mg.cif"
    path.write_text(MAGNESIUM)
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        ingest([path], CrystalSet("gen", {}, PRESETS["paper"], POTENTIAL, lambda: frozenset({"Mg"})), store)
        [document] = store.documents()
        assert document.status == Status.PENDING
        [crystal] = store.crystals([document.id])
    assert crystal.nsites == 2
    assert "special position" in crystal.notes[0]
