from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from emmet.core.elasticity import ElasticityDoc
from pymatgen.core import Lattice, Structure
from screened import TOY

from phononbench_flows import judge, load_protocol, potentials
from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.results.export import columns
from phononbench_flows.steps import StepError, find_step, references, steps_of
from phononbench_flows.steps.step import CrystalSize, StepInput, Tools


def protocol(**settings):
    quick = load_protocol("paper").spectrum.model_copy(update={"path_points": 11, "mesh": (4, 4, 4)})
    return load_protocol("paper").model_copy(update={"spectrum": quick, "further_steps": {"elasticity": settings}})


def judged(structure: Structure, **settings):
    return judge(structure, potential=TOY, protocol=protocol(**settings)).document


def test_it_is_found_by_name_with_its_settings():
    assert references(protocol()) == ["relaxation", "force_constants", "spectrum", "elasticity"]
    assert find_step("elasticity").cost(CrystalSize(5), protocol()) == 60
    for wrong in ({"strain": 0.5}, {"colour": "red"}, {"unstable_below": 1.0}):
        with pytest.raises(StepError, match="elasticity"):
            steps_of(protocol(**wrong))


def test_a_bulk_crystal_has_what_emmet_and_tables_ask_for(fcc):
    document = judged(fcc)
    found = document.evidence.elastic
    assert document.evidence.dimension == 3
    assert found.born_stable
    tensor = np.array(document.results["elasticity"]["elastic_tensor"]["raw"])
    shear = (tensor[0, 0] - tensor[0, 1]) / 2
    assert found.lowest == pytest.approx(min(shear, tensor[3, 3]))
    assert found.slope > 0
    doc = ElasticityDoc.model_validate(document.results["elasticity"])
    assert doc.bulk_modulus.vrh == pytest.approx((tensor[0, 0] + 2 * tensor[0, 1]) / 3)
    assert np.allclose(np.array(doc.compliance_tensor.raw) @ tensor, 1000 * np.eye(6), atol=1e-6)
    assert doc.shear_modulus.reuss < doc.shear_modulus.vrh < doc.shear_modulus.voigt
    values = {column.name: column.value(document) for column in columns(steps_of(protocol()))}
    assert values["christoffel_lowest_gpa"] == found.lowest
    assert values["acoustic_slope_thz_angstrom"] == found.slope
    assert values["bulk_modulus_gpa"] == doc.bulk_modulus.vrh
    assert values["shear_modulus_gpa"] == doc.shear_modulus.vrh
    assert values["born_stable"] is True
    assert document.timings["elasticity"] > 0


def test_what_is_known_to_be_unstable_is_computed_on_request_only(simple_cubic):
    document = judged(simple_cubic)
    assert document.evidence.looks["commensurate"].frequency < -0.05
    assert document.evidence.elastic is None
    assert document.evidence.dimension == 3
    assert "not needed" in document.results["elasticity"]["skipped"]
    assert all(column.value(document) is None for column in find_step("elasticity").columns)
    assert judged(simple_cubic, unstable_below=-1e3).evidence.elastic is not None
    always = judged(simple_cubic, always=True).evidence.elastic
    assert always.lowest < 0
    assert always.slope < 0
    assert not always.born_stable


def test_a_layer_has_constants_of_its_plane():
    layer = Structure(Lattice.hexagonal(2.55, 12), ["Cu"], [[0, 0, 0]])
    document = judged(layer, always=True)
    assert document.evidence.dimension == 2
    assert document.evidence.elastic.lowest > 0
    thick = judged(Structure(Lattice.hexagonal(2.55, 24), ["Cu"], [[0, 0, 0]]), always=True)
    in_plane, again = (np.array(d.results["elasticity"]["in_plane_tensor"]) for d in (document, thick))
    assert in_plane.shape == (3, 3)
    assert np.allclose(in_plane, again, rtol=1e-3), "N/m: whatever the gap"
    assert find_step("elasticity").columns[2].value(document) is None


def test_a_molecule_is_passed_through():
    document = judged(Structure(Lattice.cubic(7), ["Cu"], [[0, 0, 0]]), always=True)
    assert document.evidence.dimension == 0
    assert document.evidence.elastic is None
    assert "not defined" in document.results["elasticity"]["skipped"]


def test_a_crystal_that_fails_harms_no_other(fcc):
    document = judged(fcc)
    tools = Tools(protocol(), potentials.load(TOY, "cpu"))
    crystal = StepInput(document, lambda: fcc, {}.__getitem__)
    [constants] = hold([partial(find_step("force_constants").compute, crystal, tools)], tools.model)
    good = replace(crystal, read_arrays=lambda _: constants.result.arrays())
    compute = find_step("elasticity").compute
    found = hold([partial(compute, each, tools) for each in (crystal, good)], tools.model)
    assert isinstance(found[0], Failure)
    assert found[1].result.look.lowest == pytest.approx(document.evidence.elastic.lowest)
