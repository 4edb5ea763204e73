"""A step for the crystals of some keys in a results store: those that wait for it are read, computed and written.

A crystal that has already passed the step is left alone, so a step that was killed, or whose time ran out, computes
only what is missing when it is run again. All that a step leaves is in the store, written crystal by crystal.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version

from jobflow import CURRENT_JOB
from pymatgen.core import Structure

from phononbench_flows import potentials
from phononbench_flows.documents import CalculationDocument, CrystalDocument, Provenance
from phononbench_flows.engine.trouble import UndeliverableError
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows.launched import current_launch
from phononbench_flows.flows.sub_batches import Waiting, set_aside, work_through
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.potentials import Potential
from phononbench_flows.steps import Arrays, CrystalSize, Step, StepInput, Tools, before, steps_of
from phononbench_flows.steps.passing import pass_step, require_sound_machine
from phononbench_flows.store import BlobError, ResultsStore, StoreError

logger = logging.getLogger(__name__)

_VERSIONED = (
    "phononbench-flows",
    "torch",
    "torch-sim-atomistic",
    "phonopy",
    "seekpath",
    "spglib",
    "moyopy",
    "pymatgen",
    *potentials.distributions(),
)
_ALIVE = (Status.PENDING, Status.STABLE, Status.UNSTABLE, Status.UNDECIDED)


class WrongPotentialError(PhononBenchError):
    """A worker's checkpoint is not the one that the crystals were submitted for."""


@dataclass(frozen=True)
class Passed:
    """What a step leaves: ``keys`` of the crystals that go on; ``complete`` unless time ran out before the last."""

    keys: list[str]
    complete: bool


def run_step(keys: Sequence[str], step: Step, store: ResultsStore, tools: Tools) -> Passed:
    """Take the crystals of these keys that wait for a step through it.

    Raises:
        WrongPotentialError: the crystals were submitted for another potential.
        MachineError: the machine cannot compute; the crystals under way are as they were.
    """
    waiting = Waiting(store, before(step, steps_of(tools.protocol)))
    documents = set_aside(_in_order(keys, waiting), store)
    _require_same_potential(documents, tools)
    provenance = _provenance(tools.potential)

    def compute(sub_batch: list[CalculationDocument]) -> None:
        def write(document: CalculationDocument, arrays: Mapping[str, Arrays]) -> None:
            document.arrays = document.arrays | {name: store.blobs.put(kept) for name, kept in arrays.items()}
            if tools.potential is not None:
                document.potential = tools.potential.record()
            _finish(document, waiting, provenance)

        if any(document.device_errors for document in sub_batch):
            require_sound_machine(step, tools, "the device failed before")
        pass_step(step, _inputs(sub_batch, waiting), tools, write)

    complete = work_through(
        documents,
        waiting,
        compute,
        cost=lambda document: step.cost(crystal_size(document), tools.protocol),
        pace=_pace_key(step, tools),
    )
    return Passed(_going_on(keys, store), complete)


def crystal_size(document: CalculationDocument) -> CrystalSize:
    """What a step's cost is estimated from."""
    found = document.symmetry_initial
    return CrystalSize(document.nsites or 1, found.point_group if found else None)


def _in_order(keys: Sequence[str], waiting: Waiting) -> list[CalculationDocument]:
    """Documents of these keys that wait, in the order of the keys."""
    found = {d.key: d for d in waiting.store.documents(waiting.criteria(keys))}
    return [found[key] for key in keys if key in found]


def _inputs(documents: list[CalculationDocument], waiting: Waiting) -> list[StepInput]:
    """What the step computes from, of those whose crystal is still the one that was screened."""
    store = waiting.store
    crystals = {crystal.id: crystal for crystal in store.crystals([document.id for document in documents])}
    changed = {d.key: d for d in documents if d.id not in crystals or crystals[d.id].content_hash != d.content_hash}
    for document in changed.values():
        document.status, document.reason, document.attempts = Status.FAILED, Reason.INPUT_CHANGED, 0
        document.detail = "its file has changed since it was screened under this protocol: hand the set in again"
    store.put(*changed.values())
    return [
        StepInput(document, partial(_as_read, crystals[document.id]), partial(_read_arrays, store, document))
        for document in documents
        if document.key not in changed
    ]


def _as_read(crystal: CrystalDocument) -> Structure:
    if crystal.structure is None:
        raise ValueError(f"{crystal.id} could not be read")
    return Structure.from_dict(crystal.structure)


def _read_arrays(store: ResultsStore, document: CalculationDocument, name: str) -> Arrays:
    try:
        return store.blobs.get(document.arrays[name])
    except BlobError:  # this crystal's arrays are missing or damaged
        raise
    except StoreError as error:  # the store cannot be asked, whatever for
        raise UndeliverableError(str(error)) from error


def _going_on(keys: Sequence[str], store: ResultsStore) -> list[str]:
    criteria = {"key": {"$in": list(keys)}, "status": {"$in": [status.value for status in _ALIVE]}}
    alive = {row["key"] for row in store.query(criteria, ["key"])}
    return [key for key in keys if key in alive]


def _require_same_potential(documents: list[CalculationDocument], tools: Tools) -> None:
    """A worker with another checkpoint must stop, not write results under a protocol id that is not theirs."""
    if tools.potential is None:
        return
    potential = tools.potential
    expected = tools.protocol.id_with(potential.checkpoint_sha256)
    wrong = sorted({d.protocol_id for d in documents} - {expected})
    if wrong:
        raise WrongPotentialError(
            f"the crystals were submitted under {', '.join(wrong)}, but this protocol with {potential.name} "
            f"(checkpoint {potential.checkpoint_sha256[:12]}) is {expected}"
        )


def _pace_key(step: Step, tools: Tools) -> tuple[str, ...]:
    """What the time that a crystal takes depends on, apart from the crystal."""
    record = tools.potential.record() if tools.potential else None
    computing = (record.checkpoint_sha256, str(record.settings), str(record.device)) if record else ("cpu",)
    return (step.name, tools.protocol.hash, *computing)


def _finish(document: CalculationDocument, waiting: Waiting, provenance: Provenance) -> None:
    document.provenance = provenance
    document.attempts, document.excused, document.device_errors = 0, 0, 0
    if waiting.still([document]):
        waiting.store.put(document)
    else:
        logger.warning("%s was computed by another worker meanwhile; its result stands", document.key)


def _provenance(potential: Potential | None) -> Provenance:
    """Where this step runs and with what; the same for all of its crystals."""
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
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


@cache
def versions() -> dict[str, str]:
    """Versions here of the packages that decide the numbers."""
    found = {}
    for package in _VERSIONED:
        with suppress(PackageNotFoundError):  # an extra that is not there
            found[package] = version(package)
    return found
