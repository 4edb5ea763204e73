"""Relaxation: a crystal is brought to rest and refined to the symmetry that it kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from phononbench_flows.documents import CalculationDocument, RelaxationRecord
from phononbench_flows.outcomes import SCREENED
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
    from pymatgen.core import Structure

    from phononbench_flows.engine.batch import Budget
    from phononbench_flows.engine.relax import Relaxation, Relaxed
    from phononbench_flows.engine.trouble import Found

_OPTIMIZER_STEPS = 100  # roughly, as seen on generated crystals of up to 8 atoms


def _cost(size: CrystalSize, _: Protocol) -> float:
    return size.natoms * _OPTIMIZER_STEPS


def _start(crystal: StepInput, _: Tools) -> Structure:
    return crystal.read_structure()


def _together(tools: Tools, budget: Budget) -> Relaxation:
    from phononbench_flows.engine.relax import Relaxation

    return Relaxation(tools.model, tools.protocol.relaxation, budget)


def _record(document: CalculationDocument, found: Found[Relaxed], protocol: Protocol) -> Mapping[str, Arrays]:
    from phononbench_flows.symmetry import symmetry

    result = found.result
    document.relaxed_structure = result.structure.as_dict()
    document.symmetry_relaxed = symmetry(result.structure, protocol.relaxation.symprec)
    document.relaxation = RelaxationRecord(
        steps=result.steps,
        rounds=result.rounds,
        energy_per_atom=result.energy_per_atom,
        max_force=result.max_force,
        max_stress=result.max_stress,
        volume_change=result.volume_change,
        refined=result.refined,
        same_distance=protocol.screening.same_distance_relaxed,
    )
    return {}


STEP = Step(
    name="relaxation",
    after=SCREENED,
    resource="potential",
    cost=_cost,
    compute=_start,
    together=_together,
    record=_record,
    probe=check_potential,
    passed="relaxed",
    columns=(
        Column(
            "spacegroup_relaxed",
            value_of("symmetry_relaxed", "symbol"),
            "International symbol of the relaxed crystal's space group.",
        ),
        Column(
            "max_force_ev_per_angstrom",
            value_of("relaxation", "max_force"),
            "Largest force after the relaxation, in eV/Å.",
        ),
        Column(
            "energy_per_atom_ev",
            value_of("relaxation", "energy_per_atom"),
            "Energy after the relaxation, in eV per atom.",
        ),
    ),
)
