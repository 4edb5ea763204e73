"""Chunks of crystals become workflows on a FireWorks LaunchPad, or files for ``lpad add``.

The only module that knows FireWorks' words for submission: categories, priorities, specs.

What has been handed out stands in the ledger, a collection beside FireWorks' own: one entry for each chunk, under a
hash of its set, its protocol and its crystals. An entry says all that its workflow is made of, and everything in the
workflow's documents follows from it: their ids and the jobs' uuids. So adding a chunk a second time, after a submission
that was killed between any two commands or beside one that is under way, finds what is there and adds what is not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from fireworks import LaunchPad, Workflow
from fireworks.utilities.fw_serializers import reconstitute_dates
from jobflow import Flow
from jobflow.managers.fireworks import flow_to_workflow
from pymongo.errors import BulkWriteError

from phononbench_flows.bounded import bounded
from phononbench_flows.cluster.launchpad import GPU, LEDGER, LaunchError, address, missing_indexes
from phononbench_flows.cluster.withdrawal import leave_no_rest, withdraw
from phononbench_flows.files import replacing
from phononbench_flows.flows.following import FollowMaker
from phononbench_flows.flows.makers import ChunkMaker
from phononbench_flows.sets.chunks import MAX_CRYSTALS, TARGET, WaitingCrystal
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.sets.set_names import is_children_set
from phononbench_flows.store.connection import attempt

_FINISHED = ("COMPLETED", "ARCHIVED")
_DUPLICATE_KEY = 11000
_BATCH = 50  # chunks in memory, and in a bulk insert, at once

# ----------------------------------------------------------------------------------------------------- one chunk


@dataclass(frozen=True)
class Chunk:
    """An entry of the ledger: crystals that were handed out together, to be judged or to be followed.

    Attributes:
        hash: of the set, the protocol and the keys.
        set: name of the set whose crystals are computed; those of a set of children by following others.
        protocol_id: id of the protocol with its potential.
        keys: of the crystals; for a set of children, of those that are followed.
        flow: fields of the :class:`ChunkMaker`, or of the :class:`FollowMaker` for a set of children, as plain JSON.
        generation: how often the same crystals had been handed out and ended before.
        file: absolute path of the workflow file; None for a chunk that went to the LaunchPad directly.
        added: its workflow was seen whole on the LaunchPad: if it is no longer there, somebody has deleted it.
        withdrawn: it was taken back, and its crystals are free.
    """

    hash: str
    set: str
    protocol_id: str
    keys: list[str]
    flow: dict[str, Any]
    generation: int = 0
    file: str | None = None
    added: bool = False
    withdrawn: bool = False
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def id(self) -> str:
        """Names the chunk in the metadata of its workflow and in the specs of its fireworks."""
        return f"{self.hash}-{self.generation}"

    def document(self) -> dict[str, Any]:
        """As it stands in the ledger."""
        fields = dict(vars(self))
        return {"_id": fields.pop("hash"), **fields}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Chunk:
        """Read back what :meth:`document` gave."""
        fields = dict(document)
        return cls(hash=fields.pop("_id"), **fields)


def chunk_hash(set_name: str, protocol_id: str, keys: Sequence[str]) -> str:
    """Under which a chunk stands in the ledger."""
    content = json.dumps([set_name, protocol_id, list(keys)])
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def chunk_workflow(chunk: Chunk) -> Workflow:
    """The workflow of a chunk; made again it is the same, but for FireWorks' ids and the time."""
    if is_children_set(chunk.set):
        flow = Flow([FollowMaker(**chunk.flow).make(chunk.keys)])
    else:
        flow = ChunkMaker(**chunk.flow).make(chunk.keys)
    tags = {"set": chunk.set, "protocol_id": chunk.protocol_id, "chunk": chunk.id}
    for job, _ in flow.iterflow():
        job.set_uuid(str(uuid5(NAMESPACE_OID, f"{chunk.id} {job.name}")))
        job.hosts = [str(uuid5(NAMESPACE_OID, chunk.id))]
        job.config.manager_config = {"_category": GPU}
        job.update_metadata(tags)
    # Never with a store: it would be written, password and all, into every firework.
    return flow_to_workflow(flow, name=f"{chunk.set} {chunk.id}", metadata=tags | {"crystals": len(chunk.keys)})


def _numbered(workflow: Workflow, ids: Iterable[int]) -> Workflow:
    """The workflow with these ids of its fireworks, ready to be inserted."""
    for firework, number in zip(workflow.fws, ids, strict=False):
        firework.fw_id = number
    # It reads the links from the fireworks' parents.
    numbered = Workflow(workflow.fws, name=workflow.name, metadata=workflow.metadata)
    for number in numbered.root_fw_ids:
        numbered.id_fw[number].state = numbered.fw_states[number] = "READY"
    return numbered


# ------------------------------------------------------------------------------------------- onto the LaunchPad


def _insert_new(collection: Any, documents: list[dict[str, Any]]) -> None:
    """Insert the documents that are not there, by the collection's unique fields."""
    if not documents:
        return
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if any(each["code"] != _DUPLICATE_KEY for each in error.details["writeErrors"]):
            raise


def add_chunks(lp: LaunchPad, chunks: Sequence[Chunk], on_chunks: Callable[[int], None] = lambda _: None) -> None:
    """Make sure that the workflows of these chunks are on the LaunchPad, each once and whole.

    What ``LaunchPad.bulk_add_wfs`` does, in a way that may be broken off anywhere and be done again.

    Parameters:
        on_chunks: called with the number of chunks done, now and then.
    """
    for number, batch in enumerate(batched(chunks, _BATCH)):
        on_chunks(number * _BATCH)
        workflows = {chunk.id: chunk_workflow(chunk) for chunk in batch}
        there = _ids(lp, workflows)
        absent = {chunk: workflow for chunk, workflow in workflows.items() if chunk not in there}
        _insert_new(lp.workflows, list(_workflow_documents(lp, absent)))
        # Ask for the ids again: somebody else may have been faster with the same chunk.
        ids = _ids(lp, workflows)
        _insert_fireworks(lp, [_numbered(workflow, ids[chunk]) for chunk, workflow in workflows.items()])


def _ids(lp: LaunchPad, chunks: Iterable[str]) -> dict[str, list[int]]:
    """Ids of the fireworks of those of these chunks that have a workflow of ours, in the order of their steps."""
    found = lp.workflows.find({"_id": {"$in": list(chunks)}}, {"nodes": 1})
    return {document["_id"]: sorted(document["nodes"]) for document in found}


def _workflow_documents(lp: LaunchPad, workflows: Mapping[str, Workflow]) -> Iterator[dict[str, Any]]:
    """Documents of workflows, with new ids for their fireworks. The unique id of each is its chunk's."""
    if not workflows:
        return
    number = lp.get_new_fw_id(sum(len(workflow) for workflow in workflows.values()))
    for chunk, workflow in workflows.items():
        yield {"_id": chunk, **_numbered(workflow, range(number, number + len(workflow))).to_db_dict()}
        number += len(workflow)


def _insert_fireworks(lp: LaunchPad, workflows: Sequence[Workflow]) -> None:
    fireworks = [firework for workflow in workflows for firework in workflow.fws]
    ids = [firework.fw_id for firework in fireworks]
    there = {document["fw_id"] for document in lp.fireworks.find({"fw_id": {"$in": ids}}, {"fw_id": 1})}
    missing = [firework for firework in fireworks if firework.fw_id not in there]
    # Those that a worker may take come last, so that none runs before its children are there.
    for root in (False, True):
        _insert_new(lp.fireworks, [fw.to_db_dict() for fw in missing if (not fw.parents) == root])


# -------------------------------------------------------------------------------------------------- submissions


@dataclass(frozen=True)
class Submission:
    """What a submission did, and what it left alone.

    Attributes:
        chunks: handed out now; ``repaired`` of them were left by a submission that was broken off.
        crystals: in these chunks.
        elsewhere: crystals that wait in chunks handed out before, by where they are.
        withdrawn: chunks taken back now.
        differing: crystals that wait in chunks handed out otherwise, by how.
    """

    chunks: int
    repaired: int
    crystals: int
    elsewhere: dict[str, int]
    withdrawn: int = 0
    differing: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ledger:
    """The entries of a set under a protocol, and what became of their workflows.

    Attributes:
        entries: by hash.
        states: FireWorks' state of the workflow of a chunk's id.
        broken: ids of the chunks whose workflow lacks fireworks.
    """

    entries: dict[str, Chunk]
    states: dict[str, str]
    broken: set[str]

    def open_entries(self, waiting: Mapping[str, WaitingCrystal]) -> list[Chunk]:
        """Those whose crystals are somebody's task: some of them wait, and the workflow has not ended."""
        return [
            entry
            for entry in self.entries.values()
            if not entry.withdrawn
            and (entry.id in self.states or not entry.added)  # else `lpad delete_wfs` has withdrawn it
            and self.states.get(entry.id) not in _FINISHED
            and any(key in waiting for key in entry.keys)
        ]

    def unadded(self, entry: Chunk) -> bool:
        """Whether an open entry's workflow is not, or not whole, on the LaunchPad."""
        return entry.id not in self.states or entry.id in self.broken

    def place(self, entry: Chunk) -> str:
        """Where an open entry waits."""
        if entry.id in self.states:
            fizzled = self.states[entry.id] == "FIZZLED"
            return "on the LaunchPad, fizzled" if fizzled else "on the LaunchPad"
        return f"in files in {Path(entry.file).parent}" if entry.file else "in a submission that was broken off"


def submit(
    lp: LaunchPad,
    crystals: CrystalSet,
    waiting: Sequence[WaitingCrystal],
    *,
    store: Mapping[str, Any],
    potential: str,
    potential_settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    following: Mapping[str, int] | None = None,
    target: float = TARGET,
    folder: Path | None = None,
    adopt_files: bool = False,
    replace_waiting: bool = False,
    on_chunks: Callable[[int], None] = lambda _: None,
) -> Submission:
    """Hand out those crystals that wait and are in no chunk yet; what was broken off is brought to its end.

    Parameters:
        crystals: their set; that of their children, if they are to be followed.
        waiting: the crystals that wait to be computed, or to be followed, under the protocol of this set.
        store: spec of the results store.
        potential: name of the potential, as workers are to load it.
        potential_settings: settings that its family offers.
        device: where they are to run it: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        following: how far to follow the crystals, a FollowSettings as plain JSON; None to judge them.
        target: bound on the estimated cost of a chunk.
        folder: write the workflows there, as files for ``lpad add``, instead of adding them.
        adopt_files: add also the chunks that earlier went to files and are not on the LaunchPad. The files, where
            they are in reach, are removed first.
        replace_waiting: take back first what nobody has begun, and hand it out as it is asked for now.
        on_chunks: called with the number of chunks handed out so far, now and then.

    Raises:
        LaunchError: the LaunchPad is not initialised, or the set's name would not survive FireWorks.
    """
    require_ready(lp, crystals.name)
    by_key = {item.key: item for item in waiting}
    protocol = crystals.protocol.model_dump(mode="json")
    flow = {"store": dict(store), "protocol": protocol, "potential": potential, "device": device}
    flow |= {"potential_settings": dict(potential_settings or {})}
    if following is not None:
        flow["settings"] = dict(following)
    ledger = _read_ledger(lp, crystals)
    entries = ledger.open_entries(by_key)
    back = {entry.hash for entry in entries if replace_waiting and withdraw(lp, entry.hash, entry.id)}
    entries = [entry for entry in entries if entry.hash not in back]
    for entry in ledger.entries.values():
        if entry.hash in back and _is_written(entry):
            Path(str(entry.file)).unlink()
    if adopt_files:
        entries = [_adopted(lp, entry) if entry.file and ledger.unadded(entry) else entry for entry in entries]
    old = [entry for entry in entries if ledger.unadded(entry) and _belongs(entry, folder) and not _is_written(entry)]
    taken = {key for entry in entries for key in entry.keys}
    free = [item for item in waiting if item.key not in taken]
    chunks = bounded(free, lambda item: item.cost, target, MAX_CRYSTALS)
    new = [_new_chunk(crystals, [item.key for item in chunk], flow, ledger, folder) for chunk in chunks]
    handed_out = [*old, *(entry for entry in _claim(lp, new) if _belongs(entry, folder))]
    if folder is None:
        add_chunks(lp, handed_out, on_chunks)
        _note_added(lp, handed_out)
    else:
        _write_files(handed_out, on_chunks)
    done = {entry.hash for entry in handed_out}
    elsewhere: Counter[str] = Counter()
    differing: Counter[str] = Counter()
    for entry in entries:
        if entry.hash not in done:
            number = sum(key in by_key for key in entry.keys)
            elsewhere[ledger.place(entry)] += number
        if how := _differences(entry.flow, flow):
            differing[how] += sum(key in by_key for key in entry.keys)
    crystals_in = sum(key in by_key for entry in handed_out for key in entry.keys)
    return Submission(len(handed_out), len(old), crystals_in, dict(elsewhere), len(back), dict(differing))


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How a chunk that waits would be handed out otherwise now; empty if it would not."""

    def said(value: Any) -> str:
        return json.dumps(value) if isinstance(value, Mapping) else str(value)

    names = [name for name in now if name != "protocol" and then.get(name) != now[name]]
    return ", ".join(f"{name.replace('_', ' ')} {said(then.get(name))} instead of {said(now[name])}" for name in names)


def require_ready(lp: LaunchPad, set_name: str) -> None:
    """Raise LaunchError unless the LaunchPad is initialised and FireWorks leaves the set's name as it is."""
    if lp.fw_id_assigner.find_one() is None or missing_indexes(lp):
        raise LaunchError(f"the LaunchPad in the database {lp.name!r} has no indices yet: run `phononbench init-db`")
    if not isinstance(reconstitute_dates(set_name), str):
        raise LaunchError(f"FireWorks would take the name of the set, {set_name!r}, for a date: use another")


def require_ready_at_once(lp: LaunchPad, set_name: str) -> None:
    """The same, before much is done for it: a server that is away is not waited for.

    Raises:
        LaunchError: see :func:`require_ready`.
        PhononBenchError: the server does not answer.
    """
    attempt(lambda: require_ready(lp, set_name), address(lp), patience=0)


def _read_ledger(lp: LaunchPad, crystals: CrystalSet) -> _Ledger:
    ours = {"set": crystals.name, "protocol_id": crystals.protocol_id}
    entries = [Chunk.from_document(document) for document in lp.db[LEDGER].find(ours).sort("created_at")]
    query = {f"metadata.{name}": value for name, value in ours.items()}
    found = list(lp.workflows.find(query, {"metadata.chunk": 1, "nodes": 1, "state": 1}))
    ids = [number for document in found for number in document["nodes"]]
    there = {document["fw_id"] for document in lp.fireworks.find({"fw_id": {"$in": ids}}, {"fw_id": 1})}
    states = {document["metadata"]["chunk"]: document["state"] for document in found}
    broken = {d["metadata"]["chunk"] for d in found if not there.issuperset(d["nodes"])}
    leave_no_rest(lp, [entry.id for entry in entries if entry.withdrawn and entry.id in states])
    _note_added(lp, [e for e in entries if e.id in states and e.id not in broken and not e.added])
    return _Ledger({entry.hash: entry for entry in entries}, states, broken)


def chunks(lp: LaunchPad, set_name: str | None = None) -> Iterator[tuple[Chunk, str]]:
    """The ledger, or what it holds of a set, in the order of submission: each chunk and what became of it."""
    for document in lp.db[LEDGER].find({"set": set_name} if set_name else {}).sort("created_at"):
        chunk = Chunk.from_document(document)
        found = lp.workflows.find_one({"metadata.chunk": chunk.id}, {"state": 1})
        missing = "deleted" if chunk.added else f"in {chunk.file}" if chunk.file else "not yet on the LaunchPad"
        yield chunk, "withdrawn" if chunk.withdrawn else str(found["state"]).lower() if found else missing


def _note_added(lp: LaunchPad, entries: Sequence[Chunk]) -> None:
    """These are on the LaunchPad: who misses them there later knows that they were deleted."""
    for batch in batched(entries, _BATCH):
        lp.db[LEDGER].update_many({"_id": {"$in": [entry.hash for entry in batch]}}, {"$set": {"added": True}})


def _belongs(entry: Chunk, folder: Path | None) -> bool:
    """Whether the chunk goes where this submission goes: to the LaunchPad, or to files in that folder."""
    return (Path(entry.file).parent if entry.file else None) == folder


def _is_written(entry: Chunk) -> bool:
    return entry.file is not None and Path(entry.file).exists()


def _new_chunk(
    crystals: CrystalSet, keys: list[str], flow: dict[str, Any], ledger: _Ledger, folder: Path | None
) -> Chunk:
    name = chunk_hash(crystals.name, crystals.protocol_id, keys)
    ended = ledger.entries.get(name)
    chunk = Chunk(name, crystals.name, crystals.protocol_id, keys, flow, ended.generation + 1 if ended else 0)
    return replace(chunk, file=str(folder / f"{chunk.set}-{chunk.id}.json")) if folder else chunk


def _claim(lp: LaunchPad, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Enter chunks into the ledger; gives them as they stand there, whoever was first."""
    ledger = lp.db[LEDGER]
    claimed: list[Chunk] = []
    for batch in batched(chunks, _BATCH):
        _insert_new(ledger, [chunk.document() for chunk in batch if not chunk.generation])
        for chunk in batch:
            if chunk.generation:
                ledger.replace_one({"_id": chunk.hash, "generation": chunk.generation - 1}, chunk.document())
        there = {d["_id"]: d for d in ledger.find({"_id": {"$in": [chunk.hash for chunk in batch]}})}
        claimed += [Chunk.from_document(there[chunk.hash]) for chunk in batch]
    return claimed


def _adopted(lp: LaunchPad, entry: Chunk) -> Chunk:
    """The chunk of a file as one for the LaunchPad; its file is gone."""
    adopted = replace(entry, file=None)
    Path(str(entry.file)).unlink(missing_ok=True)
    lp.db[LEDGER].replace_one({"_id": entry.hash, "file": entry.file}, adopted.document())
    return adopted


def _write_files(chunks: Sequence[Chunk], on_chunks: Callable[[int], None]) -> None:
    """Write the files of these chunks, each whole or not at all."""
    for number, chunk in enumerate(chunks):
        on_chunks(number)
        path = Path(str(chunk.file))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(chunk_workflow(chunk).to_format("json"))
