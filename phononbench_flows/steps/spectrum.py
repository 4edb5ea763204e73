"""Spectrum: frequencies from force constants, on the path, at the commensurate q-points and on a mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import Protocol
from phononbench_flows.stability import Look, count_imaginary, threshold_place
from phononbench_flows.steps.step import (
    Arrays,
    Column,
    CrystalSize,
    Step,
    StepInput,
    Tools,
    lowest_in,
    value_of,
)

if TYPE_CHECKING:
    from phononbench_flows.engine.spectrum import Frequencies, Spectrum
    from phononbench_flows.engine.trouble import Failure, Found


def _cost(size: CrystalSize, _: Protocol) -> float:
    return size.natoms**2


def _compute(crystal: StepInput, tools: Tools) -> Spectrum | Failure:
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.spectrum import finite_spectrum

    constants = ForceConstants.from_arrays(crystal.read_arrays("force_constants"))
    return finite_spectrum(constants, tools.protocol.spectrum)


def _record(document: CalculationDocument, found: Found[Spectrum], protocol: Protocol) -> Mapping[str, Arrays]:
    result = found.result
    judged = result.at(threshold_place(protocol.judgement))
    document.evidence = document.evidence.with_looks(looks_of(result))
    if document.phonon is not None:
        document.phonon = document.phonon.model_copy(
            update={
                "gamma_optical": result.gamma_optical,
                "n_imaginary": count_imaginary(judged.values, protocol.judgement.threshold),
                "max_frequency": float(result.path.values.max()),
            }
        )
    return {"band_structure": result.bands.arrays()}


def looks_of(found: Spectrum) -> dict[str, Look]:
    """The lowest frequency in each of the three places."""
    return {
        "path": _look(found.path, exact=False),
        "mesh": _look(found.mesh, exact=False),
        "commensurate": _look(found.commensurate, exact=True),
    }


def _look(at: Frequencies, *, exact: bool) -> Look:
    return Look(frequency=at.minimum, q=at.minimum_q.tolist(), n_q=len(at.q), exact=exact)


def _probe(tools: Tools) -> None:
    from phononbench_flows.engine.spectrum import spectrum, spring_crystal

    spectrum(spring_crystal().phonopy(symmetry=False), tools.protocol.spectrum)


STEP = Step(
    name="spectrum",
    after="force_constants",
    resource="cpu",
    cost=_cost,
    compute=_compute,
    record=_record,
    probe=_probe,
    passed="with a spectrum",
    columns=(
        Column("min_frequency_path_thz", lowest_in("path"), "Lowest frequency on the path, in THz."),
        Column(
            "min_frequency_path_q",
            lambda document: json.dumps(look.q) if (look := document.evidence.looks.get("path")) else None,
            "Its q-point, in reciprocal lattice units of the primitive cell.",
        ),
        Column("min_frequency_mesh_thz", lowest_in("mesh"), "Lowest frequency on the mesh, in THz."),
        Column(
            "min_frequency_commensurate_thz",
            lowest_in("commensurate"),
            "Lowest frequency at the supercell's commensurate q-points, where nothing is interpolated, in THz.",
        ),
        Column(
            "min_frequency_gamma_optical_thz",
            value_of("phonon", "gamma_optical"),
            "Lowest frequency at Γ without the three acoustic modes, in THz; none for one atom.",
        ),
        Column("n_imaginary", value_of("phonon", "n_imaginary"), "Modes below the threshold where the protocol looks."),
    ),
)
