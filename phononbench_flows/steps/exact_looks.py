"""Exact looks: the lowest mode where interpolation may hide an instability or make one up, in cells that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import ExactLooksSettings, Protocol
from phononbench_flows.stability import CURED, EXACT, ExactLook, Look
from phononbench_flows.steps.order import step_settings
from phononbench_flows.steps.step import Arrays, Column, CrystalSize, Deliver, Step, StepInput, Tools, check_potential

if TYPE_CHECKING:
    import numpy as np

    from phononbench_flows.engine.dialogues import Dialogue, Found
    from phononbench_flows.engine.interpolation import Interpolation
    from phononbench_flows.engine.ladder import Climbed

_CHAINS = 1
_USUAL = 12  # evaluations by atoms squared, roughly, as seen on generated crystals


def _cost(size: CrystalSize, _: Protocol) -> float:
    return _USUAL * size.natoms**2


def _compute(crystals: Sequence[StepInput], tools: Tools, deliver: Deliver) -> None:
    from phononbench_flows.engine.dialogues import hold

    dialogues = [partial(_dialogue, crystal, tools) for crystal in crystals]
    hold(dialogues, tools.model, budget=tools.budget, on_result=deliver)


def _dialogue(crystal: StepInput, tools: Tools) -> Dialogue:
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.ladder import climb
    from phononbench_flows.engine.layers import periodicity_of

    if tools.potential is None:
        raise ValueError("this step needs a potential")
    constants = ForceConstants.from_arrays(crystal.read_arrays("force_constants"))
    return climb(
        constants,
        tools.protocol.force_constants,
        step_settings(STEP, tools.protocol),
        noise=_noise(constants.noise),
        connected=periodicity_of(constants.phonopy().primitive, tools.potential.cutoff),
    )


def _noise(found: Mapping[str, float]) -> float:
    """The largest of what the forces leave undetermined, in THz."""
    return max(found.values(), default=0.0)


def _record(document: CalculationDocument, result: Found[Climbed], protocol: Protocol) -> Mapping[str, Arrays]:
    import numpy as np

    from phononbench_flows.engine.corrected import looks_arrays
    from phononbench_flows.engine.paths import walk
    from phononbench_flows.engine.spectrum import bands_along, mesh_points

    climbed = result.result
    held, final = climbed.held, climbed.final
    looks = [
        ExactLook(
            q=held.q.tolist(), frequency=held.frequency, how="supercell", natoms=climbed.supercell_natoms, label=None
        )
    ]
    looks += [
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
    lowest = min(looks, key=lambda look: look.frequency)
    decisive = Look(frequency=lowest.frequency, q=lowest.q, n_q=held.n_q + len(climbed.seen), exact=True)
    dimension = document.evidence.dimension
    counts = dimension is None or dimension > _CHAINS
    path = walk(final.cell, protocol.spectrum.path_points)
    on_path = np.concatenate(path.q)
    on_mesh = mesh_points(final.cell, protocol.spectrum.mesh, protocol.force_constants.symprec)
    cured = _lowest(replace(final, known=()), np.concatenate([on_path, on_mesh]))
    document.evidence = document.evidence.with_looks({CURED: cured} | ({EXACT: decisive} if counts else {})).model_copy(
        update={
            "exact": looks,
            "noise": _noise(climbed.noise),
            "noise_from": dict(climbed.noise),
            "amplitudes": {f"{distance:g}": found for distance, found in climbed.amplitudes.items()},
            "not_looked_at": climbed.missing,
        }
    )
    document.results = document.results | {STEP.name: {"evaluations": result.evaluations}}
    bands = bands_along(path, final.frequencies(on_path), final.cell.cell)
    tolerance = step_settings(STEP, protocol).tolerance
    known = looks_arrays([seen.exact.known for seen in climbed.seen], tolerance)
    return {"band_structure": bands.arrays(), "exact_looks": known}


def _lowest(interpolation: Interpolation, points: np.ndarray) -> Look:
    """The lowest frequency of an interpolation over q-points (n, 3)."""
    lowest = interpolation.frequencies(points)[:, 0]
    k = int(lowest.argmin())
    return Look(frequency=float(lowest[k]), q=points[k].tolist(), n_q=len(points), exact=False)


def _lowest_exact(document: CalculationDocument) -> Any:
    return look.frequency if (look := document.evidence.looks.get(EXACT)) else None


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
            lambda document: look.frequency if (look := document.evidence.looks.get(CURED)) else None,
            "Lowest frequency on path and mesh by the interpolation with the free cures, in THz.",
        ),
        Column("min_frequency_exact_thz", _lowest_exact, "Lowest frequency where nothing is interpolated, in THz."),
        Column(
            "n_exact_looks",
            lambda document: len(document.evidence.exact) - 1 if document.evidence.exact else None,
            "q-points that were looked at exactly beside those of the first supercell.",
        ),
        Column("noise_thz", lambda document: document.evidence.noise, "Frequencies nearer to zero are zero, in THz."),
    ),
    settings=ExactLooksSettings,
)
