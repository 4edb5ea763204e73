"""The three stages of a judgement: take documents, call the engine, write each crystal as it finishes.

A crystal that has already passed a stage is left alone, so a stage that was killed, or whose time ran out, computes
only what is missing when it is run again. All that a stage leaves is in the store.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch
from jobflow import CURRENT_JOB
from pymatgen.core import Structure

from phononbench_flows.documents import CrystalDocument, Minimum, PhononRecord, Provenance, RelaxationRecord, Verdict
from phononbench_flows.engine.batch import Budget, Failure
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.relax import Relaxed, relax
from phononbench_flows.engine.spectrum import Frequencies, Spectrum, spectra
from phononbench_flows.engine.verdict import judge, judged_frequencies
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows.launched import current_launch
from phononbench_flows.flows.sub_batches import set_aside, still_waiting, work_through
from phononbench_flows.outcomes import Reason, Stage, Status
from phononbench_flows.potentials import Potential
from phononbench_flows.protocol import Protocol
from phononbench_flows.store import ResultsStore
from phononbench_flows.symmetry import symmetry

logger = logging.getLogger(__name__)

_VERSIONED = (
    "phononbench-flows",
    "torch",
    "torch-sim-atomistic",
    "mattersim",
    "sevenn",
    "phonopy",
    "seekpath",
    "spglib",
    "moyopy",
    "pymatgen",
)


class WrongPotentialError(PhononBenchError):
    """A worker's checkpoint is not the one that the crystals were submitted for."""


@dataclass(frozen=True)
class Passed:
    """What a stage leaves: ``keys`` of the crystals that go on; ``complete`` unless time ran out before the last."""

    keys: list[str]
    complete: bool


def relax_stage(
    keys: Sequence[str], store: ResultsStore, potential: Potential, protocol: Protocol, budget: Budget | None = None
) -> Passed:
    """Relax the crystals of these keys that are screened."""
    documents = _waiting(keys, store, Stage.SCREENED)
    _require_same_potential(documents, potential, protocol)
    provenance = _provenance(potential)

    def compute(sub_batch: list[CrystalDocument]) -> None:
        def write(index: int, result: Relaxed | Failure) -> None:
            document = sub_batch[index]
            if isinstance(result, Failure):
                _fail(document, result)
            else:
                document.relaxed_structure = result.structure.as_dict()
                document.symmetry_relaxed = symmetry(result.structure, protocol.relaxation.symprec)
                document.relaxation = _relaxation_record(result)
                document.timings = document.timings | {Stage.RELAXED: result.seconds}
                document.stage = Stage.RELAXED
            document.potential = potential.record()
            _finish(document, Stage.SCREENED, provenance, store)

        structures = [Structure.from_dict(d.structure) for d in sub_batch if d.structure is not None]
        relax(structures, potential.model, protocol.relaxation, budget=budget, on_result=write)

    complete = work_through(documents, store, Stage.SCREENED, compute, _atoms)
    return Passed(_going_on(keys, store), complete)


def force_constants_stage(
    keys: Sequence[str], store: ResultsStore, potential: Potential, protocol: Protocol, budget: Budget | None = None
) -> Passed:
    """Force constants of the crystals of these keys that are relaxed."""
    documents = _waiting(keys, store, Stage.RELAXED)
    _require_same_potential(documents, potential, protocol)
    provenance = _provenance(potential)

    def compute(sub_batch: list[CrystalDocument]) -> None:
        def write(index: int, result: ForceConstants | Failure) -> None:
            document = sub_batch[index]
            if isinstance(result, Failure):
                _fail(document, result)
            else:
                document.force_constants = store.blobs.put(result.arrays())
                document.phonon = _phonon_record(result, protocol)
                document.timings = document.timings | {Stage.FORCE_CONSTANTS: result.seconds}
                document.stage = Stage.FORCE_CONSTANTS
            document.potential = potential.record()
            _finish(document, Stage.RELAXED, provenance, store)

        structures = [Structure.from_dict(d.relaxed_structure) for d in sub_batch if d.relaxed_structure is not None]
        force_constants(structures, potential.model, protocol.force_constants, budget=budget, on_result=write)

    complete = work_through(documents, store, Stage.RELAXED, compute, _atoms_squared)
    return Passed(_going_on(keys, store), complete)


def spectrum_stage(keys: Sequence[str], store: ResultsStore, protocol: Protocol) -> Passed:
    """Spectrum and verdict of the crystals of these keys that have force constants; those judged have passed."""
    documents = _waiting(keys, store, Stage.FORCE_CONSTANTS)
    provenance = _provenance()

    def compute(sub_batch: list[CrystalDocument]) -> None:
        def write(index: int, result: Spectrum | Failure) -> None:
            document = sub_batch[index]
            if isinstance(result, Failure):
                _fail(document, result)
            elif document.phonon is not None:
                document.band_structure = store.blobs.put(result.bands.arrays())
                document.phonon = document.phonon.model_copy(update=_minima(result, protocol))
                document.verdicts = [
                    Verdict(threshold=v.threshold, stable=v.stable) for v in judge(result, protocol.judgement)
                ]
                document.status = Status.STABLE if document.verdicts[0].stable else Status.UNSTABLE
                document.timings = document.timings | {Stage.JUDGED: result.seconds}
                document.stage = Stage.JUDGED
            _finish(document, Stage.FORCE_CONSTANTS, provenance, store)

        blobs = [d.force_constants for d in sub_batch]
        constants = [ForceConstants.from_arrays(store.blobs.get(b)) for b in blobs if b is not None]
        spectra(constants, protocol.spectrum, on_result=write)

    complete = work_through(documents, store, Stage.FORCE_CONSTANTS, compute, _atoms_squared)
    return Passed([d.key for d in documents if d.stage == Stage.JUDGED], complete)


def _atoms(document: CrystalDocument) -> float:
    return document.nsites or 1


def _atoms_squared(document: CrystalDocument) -> float:
    """Displacements grow with the atoms, and so does the supercell of each."""
    return _atoms(document) ** 2


def _relaxation_record(result: Relaxed) -> RelaxationRecord:
    return RelaxationRecord(
        steps=result.steps,
        rounds=result.rounds,
        energy_per_atom=result.energy_per_atom,
        max_force=result.max_force,
        max_stress=result.max_stress,
        volume_change=result.volume_change,
        refined=result.refined,
    )


def _phonon_record(result: ForceConstants, protocol: Protocol) -> PhononRecord:
    return PhononRecord(
        supercell=list(protocol.force_constants.supercell),
        supercell_natoms=result.array.shape[1],
        primitive_natoms=result.array.shape[0],
        n_displacements=result.n_displacements,
        max_drift=result.max_drift,
    )


def _minima(spectrum: Spectrum, protocol: Protocol) -> dict[str, object]:
    def minimum(at: Frequencies) -> Minimum:
        return Minimum(frequency=at.minimum, q=at.minimum_q.tolist(), n_q=len(at.q))

    judged = judged_frequencies(spectrum, protocol.judgement)
    return {
        "judged": minimum(judged),
        "path": minimum(spectrum.path),
        "commensurate": minimum(spectrum.commensurate),
        "mesh": minimum(spectrum.mesh),
        "gamma_optical": spectrum.gamma_optical,
        "n_imaginary": int((judged.values < protocol.judgement.threshold).sum()),
        "max_frequency": float(spectrum.path.values.max()),
    }


def _waiting(keys: Sequence[str], store: ResultsStore, stage: Stage) -> list[CrystalDocument]:
    """Documents of these keys that wait just after ``stage``, in the order of the keys."""
    criteria = {"key": {"$in": list(keys)}, "status": Status.PENDING.value, "stage": stage.value}
    found = {d.key: d for d in store.documents(criteria)}
    return set_aside([found[key] for key in keys if key in found], store)


def _going_on(keys: Sequence[str], store: ResultsStore) -> list[str]:
    criteria = {"key": {"$in": list(keys)}, "status": Status.PENDING.value}
    pending = {row["key"] for row in store.query(criteria, ["key"])}
    return [key for key in keys if key in pending]


def _require_same_potential(documents: list[CrystalDocument], potential: Potential, protocol: Protocol) -> None:
    """A worker with another checkpoint must stop, not write results under a protocol id that is not theirs."""
    expected = protocol.id_with(potential.checkpoint_sha256)
    wrong = sorted({d.protocol_id for d in documents} - {expected})
    if wrong:
        raise WrongPotentialError(
            f"the crystals were submitted under {', '.join(wrong)}, but this protocol with {potential.name} "
            f"(checkpoint {potential.checkpoint_sha256[:12]}) is {expected}"
        )


def _fail(document: CrystalDocument, failure: Failure) -> None:
    document.status, document.reason, document.detail = Status.FAILED, Reason(failure.reason), failure.detail


def _finish(document: CrystalDocument, since: Stage, provenance: Provenance, store: ResultsStore) -> None:
    document.provenance, document.attempts = provenance, 0
    if still_waiting([document], store, since):
        store.put(document)
    else:
        logger.warning("%s was computed by another worker meanwhile; its result stands", document.key)


def _provenance(potential: Potential | None = None) -> Provenance:
    """Where this stage runs and with what; the same for all of its crystals."""
    job = CURRENT_JOB.job
    launched = current_launch(job.uuid) if job else None
    return Provenance(
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(),
        job_uuid=job.uuid if job else None,
        gpu=_gpu(potential.device) if potential else None,
        fw_id=launched.fw_id if launched else None,
        launch_id=launched.launch_id if launched else None,
    )


def _gpu(device: str) -> str | None:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


@cache
def versions() -> dict[str, str]:
    """Versions here of the packages that decide the numbers."""
    found = {}
    for package in _VERSIONED:
        with suppress(PackageNotFoundError):  # an extra that is not there
            found[package] = version(package)
    return found
