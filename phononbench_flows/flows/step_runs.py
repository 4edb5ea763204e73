"""Steps for the crystals of some keys in a results store: those that wait for them are read, computed and written.

A crystal goes on from the step that it has passed last, so what was killed, or whose time ran out, computes only what
is missing when it is run again. All that is found is in the store, written crystal by crystal, step by step.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version

from jobflow import CURRENT_JOB
from pymatgen.core import Structure

from phononbench_flows import potentials
from phononbench_flows.documents import BlobRef, CalculationDocument, CrystalDocument, Provenance
from phononbench_flows.engine.trouble import UndeliverableError
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows.launched import current_launch
from phononbench_flows.flows.sub_batches import Admission, set_aside, work_through
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.potentials import Potential
from phononbench_flows.steps import Arrays, CrystalSize, Step, StepInput, Tools, before, steps_of
from phononbench_flows.steps.passing import pass_steps, require_sound_machine
from phononbench_flows.store import BlobError, ResultsStore, Saver, StoreError
from phononbench_flows.structures import stored_structure

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


_CHANGED = "its file has changed since it was screened under this protocol: hand the set in again"


class WrongPotentialError(PhononBenchError):
    """A worker's checkpoint is not the one that the crystals were submitted for."""


@dataclass(frozen=True)
class Passed:
    """What steps leave: ``keys`` of the crystals that go on; ``complete`` unless time ran out before the last."""

    keys: list[str]
    complete: bool


def run_steps(keys: Sequence[str], steps: Sequence[Step], store: ResultsStore, tools: Tools) -> Passed:
    """Take the crystals of these keys that wait for one of some consecutive steps through them.

    Raises:
        WrongPotentialError: the crystals were submitted for another potential.
        MachineError: the machine cannot compute; the crystals under way are as they were.
    """
    stages = [before(step, steps_of(tools.protocol)) for step in steps]
    documents = set_aside(_in_order(keys, stages, store), store)
    _require_same_potential(documents, tools)
    provenance = _provenance(tools.potential)

    def compute(admission: Admission) -> None:
        kept: defaultdict[str, dict[str, Arrays]] = defaultdict(dict)  # of those under way: they are read again soon

        def write(document: CalculationDocument, arrays: Mapping[str, Arrays]) -> None:
            if tools.potential is not None:
                document.potential = tools.potential.record()
            failed = document.status == Status.FAILED
            name = steps[stages.index(document.stage)].name if failed else str(document.stage)
            document.provenance = provenance
            document.provenance_by_step = document.provenance_by_step | {name: provenance}
            goes_on = document.status == Status.PENDING and document.stage != steps[-1].name
            admission.passed(document, goes_on=goes_on)
            saver.save(document, arrays)
            if goes_on:
                kept[document.key] |= arrays
            else:
                kept.pop(document.key, None)

        with Saver(store, admission.mine) as saver:
            pass_steps(_inputs(admission, steps[0], store, tools, kept, saver), steps, tools, write)

    def cost(document: CalculationDocument) -> float:
        size, left = crystal_size(document), steps[stages.index(document.stage) :]
        return size.natoms + sum(step.cost(size, tools.protocol) for step in left if step.resource == "potential")

    complete = work_through(documents, store, compute, cost=cost, pace=_pace_key(steps, tools))
    return Passed(_going_on(keys, store), complete)


def crystal_size(document: CalculationDocument) -> CrystalSize:
    """What a step's cost is estimated from."""
    found = document.symmetry_initial
    return CrystalSize(document.nsites or 1, found.point_group if found else None)


def _in_order(keys: Sequence[str], stages: Sequence[str], store: ResultsStore) -> list[CalculationDocument]:
    """Documents of these keys that wait at one of these stages, in the order of the keys."""
    criteria = {"key": {"$in": list(keys)}, "status": Status.PENDING.value, "stage": {"$in": list(stages)}}
    found = {d.key: d for d in store.documents(criteria)}
    return [found[key] for key in keys if key in found]


def _inputs(
    admission: Admission,
    first: Step,
    store: ResultsStore,
    tools: Tools,
    kept: Mapping[str, Mapping[str, Arrays]],
    saver: Saver,
) -> Iterator[StepInput | None]:
    """What the steps compute from, of the crystals that are to be begun."""
    for documents in admission:
        if not documents:
            yield None
        if any(document.device_errors for document in documents):
            require_sound_machine(first, tools, "the device failed before")
        crystals = {crystal.id: crystal for crystal in store.crystals([document.id for document in documents])}
        read = _stored_arrays(store, documents)
        for document in documents:
            crystal = crystals.get(document.id)
            if crystal is not None and crystal.content_hash == document.content_hash:
                yield StepInput(document, partial(_as_read, crystal), partial(_read_arrays, kept, read, document))
            else:
                document.status, document.reason = Status.FAILED, Reason.INPUT_CHANGED
                document.detail = _CHANGED
                admission.passed(document, goes_on=False)
                saver.save(document, {})


def _as_read(crystal: CrystalDocument) -> Structure:
    if crystal.structure is None:
        raise ValueError(f"{crystal.id} could not be read")
    return stored_structure(crystal.structure, crystal.id)


def _stored_arrays(
    store: ResultsStore, documents: Sequence[CalculationDocument]
) -> Callable[[str], Callable[[BlobRef], Arrays]]:
    """Reads the arrays of a name of all these crystals, when the first is asked for."""
    refs = {d.key: dict(d.arrays) for d in documents}
    return cache(lambda name: store.blobs.get_many([arrays[name] for arrays in refs.values() if name in arrays]))


def _read_arrays(
    kept: Mapping[str, Mapping[str, Arrays]],
    read: Callable[[str], Callable[[BlobRef], Arrays]],
    document: CalculationDocument,
    name: str,
) -> Arrays:
    if name in kept.get(document.key, {}):
        return kept[document.key][name]
    try:
        return read(name)(document.arrays[name])
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


def _pace_key(steps: Sequence[Step], tools: Tools) -> tuple[str, ...]:
    """What the time that a crystal takes depends on, apart from the crystal."""
    record = tools.potential.record() if tools.potential else None
    computing = (record.checkpoint_sha256, str(record.settings), str(record.device)) if record else ("cpu",)
    return (*(step.name for step in steps), tools.protocol.hash, *computing)


def _provenance(potential: Potential | None) -> Provenance:
    """Where this step runs and with what; the same for all of its crystals."""
    job = CURRENT_JOB.job
    launched = current_launch()
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
