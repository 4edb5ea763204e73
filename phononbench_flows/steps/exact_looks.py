"""Exact looks: the lowest mode where interpolation may hide an instability or make one up, in cells that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import ExactLooksSettings, Protocol
from phononbench_flows.stability import CURED, EXACT, Evidence, ExactLook, Look
from phononbench_flows.steps.order import step_settings
from phononbench_flows.steps.step import (
    Arrays,
    Column,
    CrystalSize,
    Step,
    StepInput,
    Tools,
    check_potential,
    lowest_in,
)

if TYPE_CHECKING:
    import numpy as np

    from phononbench_flows.engine.bands import Bands
    from phononbench_flows.engine.dialogues import Dialogue
    from phononbench_flows.engine.interpolation import Interpolation
    from phononbench_flows.engine.ladder import Climbed
    from phononbench_flows.engine.trouble import Found

_CHAINS = 1
_USUAL = 12  # evaluations by atoms squared, roughly, as seen on generated crystals


def _cost(size: CrystalSize, _: Protocol) -> float:
    return _USUAL * size.natoms**2


def _compute(crystal: StepInput, tools: Tools) -> Dialogue:
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.ladder import climb
    from phononbench_flows.engine.layers import periodicity_of

    constants = ForceConstants.from_arrays(crystal.read_arrays("force_constants"))
    return climb(
        constants,
        tools.protocol.force_constants,
        step_settings(STEP, tools.protocol),
        noise=constants.largest_noise,
        connected=periodicity_of(constants.phonopy(symmetry=False).primitive, tools.loaded.cutoff),
    )


def _record(document: CalculationDocument, found: Found[Climbed], protocol: Protocol) -> Mapping[str, Arrays]:
    from phononbench_flows.engine.corrected import looks_arrays

    evidence, bands = seen_by(found.result, document.evidence, protocol)
    document.evidence = evidence
    document.results = document.results | {STEP.name: {"evaluations": found.evaluations}}
    looks = looks_arrays(found.result.known, step_settings(STEP, protocol).tolerance)
    return {"band_structure": bands.arrays(), "exact_looks": looks}


def seen_by(climbed: Climbed, evidence: Evidence, protocol: Protocol) -> tuple[Evidence, Bands]:
    """The evidence with all that was found on the ladder, and the bands that pass through it."""
    import numpy as np

    from phononbench_flows.engine.paths import walk
    from phononbench_flows.engine.spectrum import bands_along, mesh_points

    held, final = climbed.held, climbed.final
    looks = [
        ExactLook(
            q=seen.q.tolist(),
            frequency=seen.frequency,
            interpolated=seen.interpolated,
            label=seen.label,
            how=seen.exact.how,
            natoms=seen.exact.natoms,
            evaluations=seen.exact.evaluations,
        )
        for seen in climbed.seen
    ]
    if np.isfinite(held.frequency):  # not if the supercell holds nothing but the acoustic modes at Γ
        first = ExactLook(q=held.q.tolist(), frequency=held.frequency, how="supercell", natoms=climbed.supercell_natoms)
        looks.insert(0, first)
    path = walk(final.cell, protocol.spectrum.path_points)
    on_path = np.concatenate(path.q)
    on_mesh = mesh_points(final.cell, protocol.spectrum.mesh, protocol.force_constants.symprec)
    found = {CURED: _lowest(replace(final, known=()), np.concatenate([on_path, on_mesh]))}
    if looks and (evidence.dimension is None or evidence.dimension > _CHAINS):
        lowest, n_q = min(looks, key=lambda look: look.frequency), held.n_q + len(climbed.seen)
        found[EXACT] = Look(frequency=lowest.frequency, q=lowest.q, n_q=n_q, exact=True)
    more = {
        "exact": looks,
        "noise": climbed.largest_noise,
        "noise_from": dict(climbed.noise),
        "amplitudes": {f"{distance:g}": frequency for distance, frequency in climbed.amplitudes.items()},
        "not_looked_at": climbed.missing,
    }
    bands = bands_along(path, final.frequencies(on_path), final.cell.cell)
    return evidence.with_looks(found).model_copy(update=more), bands


def _lowest(interpolation: Interpolation, points: np.ndarray) -> Look:
    """The lowest frequency of an interpolation over q-points (n, 3)."""
    lowest = interpolation.frequencies(points)[:, 0]
    k = int(lowest.argmin())
    return Look(frequency=float(lowest[k]), q=points[k].tolist(), n_q=len(points), exact=False)


STEP = Step(
    name="exact_looks",
    after="elasticity",
    resource="potential",
    cost=_cost,
    compute=_compute,
    record=_record,
    probe=check_potential,
    passed="looked at exactly",
    columns=(
        Column(
            "min_frequency_cured_thz",
            lowest_in(CURED),
            "Lowest frequency on path and mesh by the interpolation with the free cures, in THz.",
        ),
        Column("min_frequency_exact_thz", lowest_in(EXACT), "Lowest frequency where nothing is interpolated, in THz."),
        Column(
            "n_exact_looks",
            lambda document: len(document.evidence.exact) - 1 if document.evidence.exact else None,
            "q-points that were looked at exactly beside those of the first supercell.",
        ),
        Column("noise_thz", lambda document: document.evidence.noise, "Frequencies nearer to zero are zero, in THz."),
    ),
    settings=ExactLooksSettings,
)
