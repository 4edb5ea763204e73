"""Elasticity: constants from strained primitive cells, and whether long waves are stable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import ElasticitySettings, Protocol
from phononbench_flows.stability import ElasticLook, Evidence, is_imaginary
from phononbench_flows.steps.order import step_settings
from phononbench_flows.steps.step import (
    Arrays,
    Column,
    CrystalSize,
    Step,
    StepInput,
    Tools,
    check_potential,
)

if TYPE_CHECKING:
    import numpy as np

    from phononbench_flows.engine.dialogues import Dialogue
    from phononbench_flows.engine.elasticity import Elasticity
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.trouble import Found

_CELLS = 12  # six strains and their opposites
_TPA_GPA = 1000.0  # 1/TPa in 1/GPa
_NEWTON_PER_METER = 0.1  # in GPa Å


@dataclass(frozen=True)
class Outcome:
    """What was found for a crystal.

    Attributes:
        dimension: directions in which it is connected.
        look: what its elastic constants say of long waves; None if they were not computed.
        fields: for the document: elastic constants, or why they were not computed.
    """

    dimension: int
    look: ElasticLook | None
    fields: dict[str, Any]


def _cost(size: CrystalSize, _: Protocol) -> float:
    return _CELLS * size.natoms


def _compute(crystal: StepInput, tools: Tools) -> Dialogue:
    """Dialogue about a crystal, which ends with its :class:`Outcome`."""
    import numpy as np

    from phononbench_flows.engine.elasticity import elasticity
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.layers import periodicity

    settings = step_settings(STEP, tools.protocol)
    structure = crystal.relaxed
    connected = periodicity(structure, tools.loaded.cutoff)
    constants = ForceConstants.from_arrays(crystal.read_arrays("force_constants"))
    if not settings.always and _is_known_unstable(crystal.document.evidence, constants, settings):
        return Outcome(connected.dimension, None, {"skipped": "not needed: unstable at a commensurate q-point"})
    found: Elasticity | None = yield from elasticity(
        constants, connected, strain=settings.strain, smaller_strain=settings.smaller_strain
    )
    if found is None:
        return Outcome(connected.dimension, None, {"skipped": "not defined: neither bulk nor layers"})
    if connected.plane is None:
        fields = _moduli(found.tensor)
    else:
        area = np.linalg.norm(np.cross(*(connected.plane @ structure.lattice.matrix)))
        in_plane = found.tensor * structure.volume / area * _NEWTON_PER_METER
        fields = {"in_plane_tensor": in_plane.tolist(), "in_plane_axes": found.frame[:2].tolist()}
    look = ElasticLook(
        lowest=found.lowest,
        slope=found.slope,
        direction=found.direction.tolist(),
        born_stable=found.born_stable,
        noise=found.noise,
    )
    return Outcome(connected.dimension, look, fields | {"strain": found.strain})


def _is_known_unstable(evidence: Evidence, constants: ForceConstants, settings: ElasticitySettings) -> bool:
    """Whether the first supercell leaves no doubt; of Γ it does, which may have to be displaced anew."""
    import numpy as np

    from phononbench_flows.engine.lattices import same_point

    look = evidence.looks.get("commensurate")
    if look is None or same_point(np.array(look.q), np.zeros(3)):
        return False
    return bool(is_imaginary(look.frequency, min(settings.unstable_below, -2 * constants.largest_noise)))


def _moduli(tensor: np.ndarray) -> dict[str, Any]:
    """Fields of emmet-core's ``ElasticityDoc``, whose import takes seconds, from a tensor in GPa; see there for units.

    What a singular tensor does not have is left out.
    """
    import numpy as np
    from pymatgen.analysis.elasticity import ElasticTensor

    fields: dict[str, Any] = {"order": 2, "elastic_tensor": {"raw": tensor.tolist()}}
    elastic = ElasticTensor.from_voigt(tensor)
    try:
        compliance, found = elastic.compliance_tensor.voigt, elastic.property_dict
    except np.linalg.LinAlgError:
        return fields
    averages = ("voigt", "reuss", "vrh")
    return fields | {
        "compliance_tensor": {"raw": (compliance * _TPA_GPA).tolist()},
        "bulk_modulus": {average: float(found[f"k_{average}"]) for average in averages},
        "shear_modulus": {average: float(found[f"g_{average}"]) for average in averages},
        "young_modulus": float(found["y_mod"]),
        "universal_anisotropy": float(found["universal_anisotropy"]),
        "homogeneous_poisson": float(found["homogeneous_poisson"]),
    }


def _record(document: CalculationDocument, found: Found[Outcome], _: Protocol) -> Mapping[str, Arrays]:
    result = found.result
    document.evidence = document.evidence.model_copy(update={"elastic": result.look, "dimension": result.dimension})
    document.results = document.results | {"elasticity": result.fields}
    return {}


def _elastic(name: str) -> Callable[[CalculationDocument], Any]:
    return lambda document: getattr(document.evidence.elastic, name, None)


def _modulus(name: str) -> Callable[[CalculationDocument], Any]:
    return lambda document: document.results.get("elasticity", {}).get(name, {}).get("vrh")


STEP = Step(
    name="elasticity",
    after="spectrum",
    resource="potential",
    cost=_cost,
    compute=_compute,
    record=_record,
    probe=check_potential,
    passed="with elastic constants",
    columns=(
        Column(
            "christoffel_lowest_gpa",
            _elastic("lowest"),
            "Lowest eigenvalue of the Christoffel matrix over all directions, in GPa.",
        ),
        Column(
            "acoustic_slope_thz_angstrom",
            _elastic("slope"),
            "Frequency over wave number (1/wavelength) there, in THz Å, imaginary as negative.",
        ),
        Column("bulk_modulus_gpa", _modulus("bulk_modulus"), "Bulk modulus (Voigt, Reuss, Hill), in GPa."),
        Column("shear_modulus_gpa", _modulus("shear_modulus"), "Shear modulus (Voigt, Reuss, Hill), in GPa."),
        Column("born_stable", _elastic("born_stable"), "Whether all eigenvalues of the elastic tensor are positive."),
    ),
    settings=ElasticitySettings,
)
