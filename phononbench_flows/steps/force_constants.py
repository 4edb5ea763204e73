"""Force constants: atoms are displaced, and the forces collected and solved for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from phononbench_flows.documents import CalculationDocument, PhononRecord
from phononbench_flows.protocol import Protocol
from phononbench_flows.steps.step import (
    Arrays,
    Column,
    CrystalSize,
    Step,
    StepInput,
    Tools,
    check_potential,
    value_of,
)

if TYPE_CHECKING:
    from phononbench_flows.engine.dialogues import Dialogue
    from phononbench_flows.engine.force_constants import Displaced, ForceConstants
    from phononbench_flows.engine.trouble import Found

DISPLACED = "displaced"
"""Name of the arrays in which a step before keeps displaced supercells that it has computed."""

_LEFT_BY_PROOFS = 0.5  # of the displacements, roughly, by the step `proof`


def cost(size: CrystalSize, protocol: Protocol) -> float:
    """Evaluations of all displacements: six an atom without symmetry, which divides them by its operations."""
    displacements = math.ceil(6 * size.natoms / (_order(size.point_group) if size.point_group else 1))
    return size.natoms * math.prod(protocol.force_constants.supercell) * displacements


def _cost(size: CrystalSize, protocol: Protocol) -> float:
    return cost(size, protocol) * (_LEFT_BY_PROOFS if "proof" in protocol.further_steps else 1)


@cache
def _order(point_group: str) -> int:
    from pymatgen.symmetry.groups import PointGroup

    return len(PointGroup(point_group).symmetry_ops)


def _compute(crystal: StepInput, tools: Tools) -> Dialogue:
    from phononbench_flows.engine.force_constants import finite_displacements

    return finite_displacements(crystal.relaxed, tools.protocol.force_constants, _known(crystal))


def _known(crystal: StepInput) -> Displaced | None:
    from phononbench_flows.engine.force_constants import Displaced

    try:
        return Displaced(**crystal.read_arrays(DISPLACED))
    except KeyError:  # no step before has displaced anything
        return None


def _record(document: CalculationDocument, found: Found[ForceConstants], protocol: Protocol) -> Mapping[str, Arrays]:
    result = found.result
    document.phonon = PhononRecord(
        supercell=list(protocol.force_constants.supercell),
        supercell_natoms=result.array.shape[1],
        primitive_natoms=result.array.shape[0],
        n_displacements=result.n_displacements,
        max_drift=result.max_drift,
    )
    return {"force_constants": result.arrays()}


STEP = Step(
    name="force_constants",
    after="relaxation",
    resource="potential",
    cost=_cost,
    compute=_compute,
    record=_record,
    probe=check_potential,
    passed="with force constants",
    columns=(Column("n_displacements", value_of("phonon", "n_displacements"), "Displaced supercells computed."),),
)
