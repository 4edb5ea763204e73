"""Is this machine fit for the work that waits? Asked by ``phononbench doctor``, and by a worker before it takes any.

A worker with a broken environment takes one firework after the other and fails each of them; hence it must not begin.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pymongo
from fireworks import FWorker, LaunchPad
from jobflow import SETTINGS, JobStore
from maggma.stores import MemoryStore
from pymongo.errors import PyMongoError

from phononbench_flows import potentials
from phononbench_flows.cluster import launchpad
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows import machine
from phononbench_flows.flows.step_runs import versions
from phononbench_flows.protocol import Protocol
from phononbench_flows.steps import StepError, steps_of
from phononbench_flows.store import StoreError, cluster_spec, open_store
from phononbench_flows.store.connection import masked, sentence

_ANSWER_SECONDS = 20.0


class UnfitError(PhononBenchError):
    """Checks that failed, with what to do about them, in a sentence.

    Attributes:
        what: their names.
    """

    what = ""


class State(StrEnum):
    """What a check found. Only ``failed`` keeps a worker from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """A check: its name, what it found, in a sentence, and what to do about it."""

    name: str
    state: State
    said: str
    advice: str = ""


@dataclass(frozen=True)
class Kind:
    """Fireworks that differ in their crystals only.

    Attributes:
        fw_id: one of them.
        function: the jobflow job's function as FireWorks keeps it; None for a firework that is no job.
        protocol_id: the protocol's id that its crystals were submitted under.
    """

    fw_id: int
    function: dict[str, Any] | None
    protocol_id: str | None

    @property
    def maker(self) -> dict[str, Any]:
        """Fields of the Maker; empty where there is none."""
        return (self.function or {}).get("@bound") or {}


def require_fit(checks: Iterable[Check]) -> None:
    """Raise UnfitError if some of these checks failed."""
    failed = [check for check in checks if check.state == State.FAILED]
    if failed:
        error = UnfitError("; ".join(f"{check.name}: {check.said} ({check.advice})" for check in failed))
        error.what = ", ".join(check.name for check in failed)
        raise error


def waiting_kinds(lp: LaunchPad, fworker: FWorker, after: int = 0) -> list[Kind]:
    """The kinds of fireworks that this worker may get to run, among those with an id above ``after``."""
    wanted = dict(fworker.query) | {"state": {"$in": ["READY", "WAITING"]}, "fw_id": {"$gt": after}}
    kind = {"function": "$spec._tasks.job.function", "protocol_id": "$spec.protocol_id"}
    each_task = {"$unwind": "$spec._tasks"}
    rows = lp.fireworks.aggregate(
        [{"$match": wanted}, each_task, {"$group": {"_id": kind, "fw_id": {"$max": "$fw_id"}}}]
    )
    return [Kind(row["fw_id"], row["_id"].get("function"), row["_id"].get("protocol_id")) for row in rows]


def preflight(lp: LaunchPad, fworker: FWorker, store: str | None = None) -> Iterator[Check]:
    """All checks, one by one; those that make no sense after a failed one are left out.

    The work that waits says where its results go. If none does, ``store`` is looked at, or what ``cluster_spec`` takes
    without it.
    """
    reachable = _launchpad(lp)
    yield reachable
    yield Check("versions", State.OK, ", ".join(f"{name} {version}" for name, version in versions().items()))
    if reachable.state == State.FAILED:
        return
    yield _launchpad_indexes(lp)
    yield outputs(SETTINGS.JOB_STORE)
    try:
        kinds = waiting_kinds(lp, fworker)
    except PyMongoError as error:
        said = f"the LaunchPad does not say what waits for it: {sentence(error)}"
        yield Check("worker", State.FAILED, said, "see `query` in my_fworker.yaml, and that MongoDB runs")
        return
    yield from check_kinds(lp, kinds)
    if not kinds:
        yield _results(cluster_spec(store))
    yield _gpu(fworker, kinds)


def check_kinds(lp: LaunchPad, kinds: list[Kind]) -> Iterator[Check]:
    """Whether these fireworks would run here: their code, their potential, and the store of their results."""
    yield _readable(lp, kinds)
    yield _same_version(kinds)
    yield _steps(kinds)
    for kind in {_loaded_as(k): k for k in kinds if k.maker.get("potential")}.values():
        yield _potential(kind.maker, kinds)
    for spec in {str(k.maker["store"]): k.maker["store"] for k in kinds if "store" in k.maker}.values():
        yield _results(spec)


# -------------------------------------------------------------------------------------------------------- checks


def _launchpad(lp: LaunchPad) -> Check:
    name = "LaunchPad"
    where = f"database {lp.name} at {masked(lp.host) if lp.uri_mode else f'{lp.host}:{lp.port}'}"
    if type(lp.connection).__module__.startswith("mongomock"):
        advice = "unset MONGOMOCK_SERVERSTORE_FILE, in FW_config.yaml too, and use a MongoDB"
        return Check(name, State.FAILED, "it is kept in this process' memory (mongomock)", advice)
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            ids = lp.fw_id_assigner.find_one()
    except PyMongoError as error:
        said = f"{where} does not answer: {type(error).__name__}"
        return Check(
            name, State.FAILED, said, "see that MongoDB runs, and that my_launchpad.yaml and the login are right"
        )
    if ids is None:
        return Check(name, State.FAILED, f"{where} was never set up", "run `phononbench init-db`")
    return Check(name, State.OK, f"{where} answers")


def _launchpad_indexes(lp: LaunchPad) -> Check:
    missing = launchpad.missing_indexes(lp)
    if missing:
        return Check("LaunchPad's indices", State.FAILED, f"missing: {', '.join(missing)}", "run `phononbench init-db`")
    return Check("LaunchPad's indices", State.OK, "all there")


def outputs(store: JobStore) -> Check:
    """Whether what jobs give to jobflow is kept where others find it."""
    name, docs = "jobflow's outputs", store.docs_store
    if isinstance(docs, MemoryStore):
        said = f"they would be kept in a {type(docs).__name__}, which the next worker does not see"
        return Check(name, State.FAILED, said, "set JOBFLOW_CONFIG_FILE to launchers/jobflow.yaml, or one like it")
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            store.connect()
            docs.query_one({"uuid": ""}, ["uuid"])
            missing = docs.missing_indexes() if isinstance(docs, OutputsStore) else []
    except (PyMongoError, StoreError, OSError) as error:
        said = f"their store does not answer: {type(error).__name__}"
        return Check(name, State.FAILED, said, "see jobflow.yaml, and that MongoDB runs")
    if missing:
        return Check(name, State.FAILED, f"missing indices: {', '.join(missing)}", "run `phononbench init-db`")
    return Check(name, State.OK, f"{type(docs).__name__} answers")


def _results(spec: dict[str, str]) -> Check:
    name, where = "results", " ".join(spec.values())
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            store = open_store(spec)
            missing = store.missing_indexes()
    except (StoreError, PyMongoError, OSError) as error:
        return Check(name, State.FAILED, f"{where}: {error}", "see that the server runs or the directory is there")
    if missing:
        return Check(name, State.FAILED, f"{where}: missing indices: {', '.join(missing)}", "run `phononbench init-db`")
    return Check(name, State.OK, f"{where}: there")


def _readable(lp: LaunchPad, kinds: list[Kind]) -> Check:
    """Load one firework of each kind: what FireWorks cannot load, it marks as failed, and takes the next."""
    name = "code of the jobs"
    for kind in kinds:
        try:
            lp.get_fw_by_id(kind.fw_id)
        except Exception as error:  # noqa: BLE001  (whatever the modules that it names do when imported)
            said = f"firework {kind.fw_id} cannot be read here: {type(error).__name__}: {error}"
            return Check(name, State.FAILED, said, "install in this environment what the jobs were submitted with")
    if not kinds:
        return Check(name, State.OK, "nothing waits")
    return Check(name, State.OK, f"{len(kinds)} kind{'' if len(kinds) == 1 else 's'} of fireworks can be read")


def _same_version(kinds: list[Kind]) -> Check:
    name, here = "submitted with", versions().get("phononbench-flows")
    others = sorted({k.maker["@version"] for k in kinds if k.maker.get("@version")} - {here})
    if others:
        said = f"phononbench-flows {', '.join(others)}; here is {here}"
        return Check(name, State.WARNING, said, "install that version if their results are to be compared closely")
    return Check(name, State.OK, f"phononbench-flows {here}")


def _steps(kinds: list[Kind]) -> Check:
    """Whether the steps of the jobs' protocols can be found."""
    name = "steps"
    try:
        found = {step for kind in kinds if "protocol" in kind.maker for step in _steps_of(kind)}
    except StepError as error:
        return Check(name, State.FAILED, str(error), "install in this environment what the jobs were submitted with")
    return Check(name, State.OK, ", ".join(sorted(found)) or "nothing waits")


def _steps_of(kind: Kind) -> list[str]:
    return [step.name for step in steps_of(Protocol.model_validate(kind.maker["protocol"]))]


def _loaded_as(kind: Kind) -> str:
    """Tells potentials apart that have to be loaded apart."""
    maker = kind.maker
    return json.dumps([maker["potential"], maker["device"], maker["potential_settings"]], sort_keys=True)


def _potential(maker: dict[str, Any], kinds: list[Kind]) -> Check:
    """Load it, as the jobs will, and compare its checkpoint with what the crystals were submitted for."""
    potential = maker["potential"]
    name = f"potential {potential}"
    try:
        loaded = potentials.load(potential, machine.device(maker["device"]), maker["potential_settings"])
    except (potentials.PotentialError, RuntimeError, OSError, ImportError) as error:
        return Check(
            name, State.FAILED, str(error), f"run `phononbench potentials fetch {potential}`, or see its source"
        )
    sha256 = loaded.checkpoint_sha256
    for kind in kinds:
        if kind.maker.get("potential") == potential and kind.protocol_id is not None:
            here = Protocol.model_validate(kind.maker["protocol"]).id_with(sha256)
            if here != kind.protocol_id:
                said = f"with the checkpoint {sha256[:12]} here the protocol's id is {here}, not {kind.protocol_id}"
                return Check(name, State.FAILED, said, "bring the checkpoint that the crystals were submitted with")
    return Check(name, State.OK, f"checkpoint {sha256[:12]} on {loaded.device}")


def _gpu(fworker: FWorker, kinds: list[Kind]) -> Check:
    import torch

    categories = [fworker.category] if isinstance(fworker.category, str) else fworker.category
    if torch.cuda.is_available():
        return Check("GPU", State.OK, torch.cuda.get_device_name())
    if launchpad.GPU not in categories:
        return Check("GPU", State.OK, "none, and the worker's category does not ask for one")
    asked = {kind.maker["device"] for kind in kinds if kind.maker.get("potential")} or {"auto"}
    if {machine.device(each) for each in asked} == {"cpu"}:
        return Check("GPU", State.OK, "none, and the CPU is asked for")
    advice = "see nvidia-smi and CUDA_VISIBLE_DEVICES, or give the worker `--device cpu` to compute on the CPU"
    return Check("GPU", State.FAILED, "the worker's category is gpu, and torch sees none", advice)
