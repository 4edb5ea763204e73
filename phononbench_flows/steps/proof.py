"""Proof: a crystal whose instability shows in a few calls of the potential needs no more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import ProofSettings, Protocol
from phononbench_flows.stability import CURED, EXACT, ExactLook, Look
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

    from phononbench_flows.engine.batch import Found
    from phononbench_flows.engine.dialogues import Dialogue
    from phononbench_flows.engine.proofs import Proof
    from phononbench_flows.engine.q_symmetry import Operation

_BULK = 3
_FEWEST = 2  # displacements of all atoms; with fewer, a proof costs what the force constants do
_SAME_Q = 1e-5  # reciprocal lattice units
_USUAL = 60  # evaluations by atoms, roughly, as seen on generated crystals


@dataclass(frozen=True)
class Outcome:
    """What was found for a crystal: the directions in which it is connected, and a proof, or why there is none."""

    dimension: int
    proof: Proof | None
    why_not: str | None = None


def _cost(size: CrystalSize, _: Protocol) -> float:
    return _USUAL * size.natoms


def _compute(crystal: StepInput, tools: Tools) -> Dialogue:
    """Dialogue about a crystal, which ends with its :class:`Outcome`."""
    from phononbench_flows.engine.force_constants import n_displacements, undisplaced
    from phononbench_flows.engine.lattices import to_supercell
    from phononbench_flows.engine.layers import periodicity_of
    from phononbench_flows.engine.proofs import prove
    from phononbench_flows.engine.q_symmetry import operations

    settings = step_settings(STEP, tools.protocol)
    phonon = undisplaced(crystal.relaxed, tools.protocol.force_constants, symmetry=False)
    primitive, supercell = phonon.primitive, to_supercell(phonon)
    dimension = periodicity_of(primitive, tools.loaded.cutoff).dimension
    if dimension < _BULK:
        return Outcome(dimension, None, "not sought: not a bulk crystal")
    most = int(settings.share * n_displacements(primitive, tools.protocol.force_constants))
    if most < _FEWEST:
        return Outcome(dimension, None, "not sought: few displacements tell everything")
    symmetry = operations(primitive, tools.protocol.force_constants.symprec)
    points = _points(phonon, symmetry, tools.protocol)
    found = yield from prove(
        primitive, supercell, points, symmetry, below=settings.below, distances=settings.displacements, most=most
    )
    return Outcome(dimension, found, None if found else "not found")


def _points(phonon: Phonopy, symmetry: list[Operation], protocol: Protocol) -> list[np.ndarray]:
    """The q-points that the supercell holds and the path passes: a proof there is one for the published rule too."""
    import numpy as np

    from phononbench_flows.engine.lattices import commensurate_points, to_supercell
    from phononbench_flows.engine.paths import released_walk
    from phononbench_flows.engine.q_symmetry import equivalent_points

    passed = np.concatenate(released_walk(phonon.primitive, protocol.spectrum.path_points).q)
    chosen = []
    for q in commensurate_points(to_supercell(phonon)):
        apart = passed[:, None] - equivalent_points(q, symmetry)
        if np.abs(apart - np.rint(apart)).max(axis=2).min() < _SAME_Q:
            chosen.append(q)
    return chosen


def _record(document: CalculationDocument, found: Found[Outcome], protocol: Protocol) -> Mapping[str, Arrays]:
    outcome, settings = found.result, step_settings(STEP, protocol)
    fields: dict[str, Any] = {"evaluations": found.evaluations}
    evidence = document.evidence.model_copy(update={"dimension": outcome.dimension})
    if (proof := outcome.proof) is None:
        fields["proof"] = outcome.why_not
    else:
        plural = "" if proof.products == 1 else "s"
        fields["proof"] = f"{proof.products} displacement{plural} of all atoms at once"
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
    return {}


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
