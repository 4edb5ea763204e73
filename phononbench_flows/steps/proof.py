"""Proof: a crystal whose first displacements show that it is unstable needs no more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import ProofSettings, Protocol
from phononbench_flows.stability import CURED, EXACT, ExactLook, Look
from phononbench_flows.steps.force_constants import DISPLACED
from phononbench_flows.steps.force_constants import cost as cost_of_force_constants
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
    from phonopy import Phonopy

    from phononbench_flows.engine.dialogues import Dialogue
    from phononbench_flows.engine.force_constants import Displaced
    from phononbench_flows.engine.proofs import Proof
    from phononbench_flows.engine.trouble import Found

_BULK = 3
_FEWEST = 4  # displacements; of fewer, none can be saved
_SAME_Q = 1e-5  # reciprocal lattice units
_USUAL = 0.5  # of what force constants take, roughly: opposite displacements are left to them, and what is proven ends


@dataclass(frozen=True)
class Outcome:
    """What was found for a crystal: the directions in which it is connected, and a proof, or why there is none.

    ``displaced`` of the ``n_displacements`` that force constants take was computed for it.
    """

    dimension: int
    proof: Proof | None
    why_not: str | None = None
    n_displacements: int = 0
    displaced: Displaced | None = None


def _cost(size: CrystalSize, protocol: Protocol) -> float:
    return _USUAL * cost_of_force_constants(size, protocol)


def _compute(crystal: StepInput, tools: Tools) -> Dialogue:
    """Dialogue about a crystal, which ends with its :class:`Outcome`."""
    from phononbench_flows.engine.force_constants import Displaced, displace
    from phononbench_flows.engine.layers import periodicity_of
    from phononbench_flows.engine.proofs import seek

    settings = step_settings(STEP, tools.protocol)
    phonon = displace(crystal.relaxed, tools.protocol.force_constants)
    dimension = periodicity_of(phonon.primitive, tools.loaded.cutoff).dimension
    if dimension < _BULK:
        return Outcome(dimension, None, "not sought: not a bulk crystal")
    number = len(phonon.displacements)
    if number < _FEWEST:
        return Outcome(dimension, None, "not sought: few displacements tell everything")
    points = _points(phonon, tools.protocol)
    found = yield from seek(phonon, points, below=settings.below, distances=settings.displacements)
    displaced = Displaced.of(phonon, found.forces) if found.forces else None
    return Outcome(dimension, found.proof, None if found.proof else "not found", number, displaced)


def _points(phonon: Phonopy, protocol: Protocol) -> list[np.ndarray]:
    """The q-points that the supercell holds and the path passes: a proof there is one for the published rule too."""
    import numpy as np

    from phononbench_flows.engine.lattices import commensurate_points, to_supercell
    from phononbench_flows.engine.paths import released_walk
    from phononbench_flows.engine.q_symmetry import equivalent_points, operations

    symmetry = operations(phonon.primitive, protocol.force_constants.symprec)
    passed = np.concatenate(released_walk(phonon.primitive, protocol.spectrum.path_points).q)
    chosen = []
    for q in commensurate_points(to_supercell(phonon)):
        apart = passed[:, None] - equivalent_points(q, symmetry)
        if np.abs(apart - np.rint(apart)).max(axis=2).min() < _SAME_Q:
            chosen.append(q)
    return chosen


def _record(document: CalculationDocument, found: Found[Outcome], protocol: Protocol) -> Mapping[str, Arrays]:
    outcome, settings = found.result, step_settings(STEP, protocol)
    arrays = {} if outcome.displaced is None else {DISPLACED: vars(outcome.displaced)}
    computed = 0 if outcome.displaced is None else len(outcome.displaced.forces)
    fields: dict[str, Any] = {"evaluations": found.evaluations, "displacements": computed}
    evidence = document.evidence.model_copy(update={"dimension": outcome.dimension})
    if (proof := outcome.proof) is None:
        fields["proof"] = outcome.why_not
    else:
        fields["proof"] = f"{computed} of {outcome.n_displacements} displacements"
        look = Look(frequency=proof.frequency, q=proof.q.tolist(), n_q=1, exact=True, at_most=True)
        exact = ExactLook(
            q=look.q, frequency=look.frequency, how="proof", natoms=proof.natoms, evaluations=found.evaluations
        )
        evidence = evidence.with_looks(dict.fromkeys(_seen_in(proof.q, protocol), look)).model_copy(
            update={
                "exact": [exact],
                "noise": -settings.below,
                "noise_from": {"margin of a proof": -settings.below},
                "amplitudes": {f"{distance:g}": value for distance, value in proof.frequencies.items()},
            }
        )
    document.evidence = evidence
    document.results = document.results | {STEP.name: fields}
    return arrays


def _seen_in(q: np.ndarray, protocol: Protocol) -> list[str]:
    """The places that hold such a q-point; cures of the interpolation change nothing there."""
    on_mesh = all(abs(x * n - round(x * n)) < _SAME_Q for x, n in zip(q, protocol.spectrum.mesh, strict=True))
    return ["path", *(["mesh"] if on_mesh else []), "commensurate", CURED, EXACT]


def _is_proven(document: CalculationDocument) -> bool:
    return EXACT in document.evidence.looks


STEP = Step(
    name="proof",
    after="relaxation",
    resource="potential",
    cost=_cost,
    compute=_compute,
    record=_record,
    probe=check_potential,
    passed="without a proof",
    columns=(
        Column(
            "proof",
            lambda document: document.results.get("proof", {}).get("proof"),
            "What proved the crystal unstable before its force constants were computed, or why nothing did.",
        ),
    ),
    settles=_is_proven,
    settings=ProofSettings,
)
