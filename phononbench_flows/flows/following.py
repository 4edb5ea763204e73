"""Unstable crystals followed along their modes, as jobs: displaced, their children relaxed, compared, judged.

Children go through the Makers of every set. The local run and a cluster use the same Makers; everything that is found
lies in the results store, so that a flow that is started again computes what is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from jobflow import Flow, Job, JobOrder, Response, job

from phononbench_flows.documents import CalculationDocument, FollowedRecord
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.flows import machine
from phononbench_flows.flows.makers import ChunkMaker, StepsMaker, StoreMaker
from phononbench_flows.outcomes import COUNTED, Reason, Status
from phononbench_flows.protocol import ExactLooksSettings, Protocol
from phononbench_flows.sets.children import as_children, child_documents, leave_children, relaxed_hash, set_apart
from phononbench_flows.sets.families import Lines, tell_families
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.sets.set_names import generated_of
from phononbench_flows.stability import is_imaginary
from phononbench_flows.steps import Tools, references
from phononbench_flows.store import ResultsStore, open_store
from phononbench_flows.structures import stored_structure

if TYPE_CHECKING:
    from phononbench_flows.engine.dialogues import Dialogue
    from phononbench_flows.engine.following import Followed, FollowSettings, SoftStrain
    from phononbench_flows.engine.q_symmetry import Operation
    from phononbench_flows.engine.trouble import Found


@dataclass
class FollowMaker(StoreMaker):
    """Follow unstable crystals of a results store along their modes, over some generations.

    Attributes: those of :class:`StoreMaker`, and
        settings: a FollowSettings as plain JSON.
    """

    name: str = "follow"
    settings: dict[str, int] = field(default_factory=dict)

    @job
    def make(self, keys: list[str], generation: int = 1) -> Response[list[str]]:
        """Make the children of the unstable ones among these crystals, and have them judged and followed.

        Its output are the keys of the children.
        """
        from phononbench_flows.engine.following import FollowSettings

        store, protocol = open_store(self.store), Protocol.model_validate(self.protocol)
        settings = FollowSettings.model_validate(self.settings)
        children: list[str] = []
        if generation <= settings.generations:
            with machine.watched():
                children = displace(keys, store, self.tools(), settings)
        tell_ended(keys, children, store)
        if not children:
            return Response(output=[])
        return Response(output=children, replace=self._judged(children, protocol, generation))

    def _judged(self, children: list[str], protocol: Protocol, generation: int) -> Flow:
        """The flow that relaxes children, compares them, judges those that are new, and follows those in turn."""
        first = references(protocol)[0]
        jobs: list[Job | Flow] = [
            StepsMaker(name="relaxation of children", steps=[first], **self.computing).make(children),
            compare_children(children, self.store, self.protocol),
            ChunkMaker(name="stability of children", **self.computing).make(children),
            self.make(children, generation + 1),
        ]
        return Flow(jobs, name=f"generation {generation}", order=JobOrder.LINEAR)


@job
def compare_children(keys: list[str], store: dict[str, Any], protocol: dict[str, Any]) -> list[str]:
    """Set relaxed children apart that are crystals which are there; gives the keys of the others."""
    return set_apart(open_store(store), keys, Protocol.model_validate(protocol))


def tell_ended(keys: Sequence[str], children: Sequence[str], store: ResultsStore) -> None:
    """Write what those crystals lead to that these come from, but for those whose lines go on with the children."""
    going_on = _roots(children, store)
    for whose, names in _roots(keys, store).items():
        if ended := names - going_on.get(whose, set()):
            tell_families(store, {"set": whose[0], "protocol_id": whose[1]}, ended)


def _roots(keys: Sequence[str], store: ResultsStore) -> dict[tuple[str, str], set[str]]:
    """Ids of the generated crystals that these come from, or are, by set and protocol."""
    roots: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in store.query({"key": {"$in": list(keys)}}, ["id", "set", "protocol_id", "origin.root"]):
        roots[generated_of(row["set"]), row["protocol_id"]].add(row["origin"].get("root") or row["id"])
    return roots


# ----------------------------------------------------------------------------------------------------- displacing


def displace(keys: Sequence[str], store: ResultsStore, tools: Tools, settings: FollowSettings) -> list[str]:
    """Make the children of those of these crystals that are unstable; gives the keys of all that they have.

    A crystal that was displaced already, in the same way, is left as it is.
    """
    among: dict[str, Any] = {"key": {"$in": list(keys)}, "status": Status.UNSTABLE.value}
    parents = list(store.documents(among, sort={"id": 1}))
    if not parents:
        return []
    protocol_id = parents[0].protocol_id
    lines = Lines.read(store, {"set": parents[0].set, "protocol_id": protocol_id})
    parents = [document for document in parents if document.followed or lines.is_worth_following(document)]
    _displace([each for each in parents if not was_displaced(each, settings)], store, tools, settings)
    followed = {
        row["id"]: row["followed"]["children"] for row in store.query(_of(parents), ["id", "followed.children"])
    }
    ids = [child for parent in parents for child in followed[parent.id]]
    among = {"id": {"$in": ids}, "protocol_id": protocol_id}
    return sorted(row["key"] for row in store.query(among, ["key"]))


def _of(documents: Sequence[CalculationDocument]) -> dict[str, Any]:
    return {"key": {"$in": [document.key for document in documents]}}


def was_displaced(document: CalculationDocument, settings: FollowSettings) -> bool:
    """Whether there are children of a crystal as it is now, made by these settings."""
    found = document.followed
    return found is not None and found.settings == settings.model_dump() and found.sha256 == relaxed_hash(document)


def _displace(
    parents: Sequence[CalculationDocument], store: ResultsStore, tools: Tools, settings: FollowSettings
) -> None:
    from phononbench_flows.engine.dialogues import hold

    def tell(index: int, found: Found[Followed] | Failure) -> None:
        parent = parents[index]
        record = FollowedRecord(settings=settings.model_dump(), sha256=relaxed_hash(parent))
        if isinstance(found, Failure):
            if found.reason == Reason.EXCEPTION:
                tools.loaded.check()
            record.left_out = [f"failed ({found.reason}): {found.detail}"]
        else:
            record.children = _born(parent, found.result, store, tools)
            record.left_out, record.seconds = found.result.left_out, found.seconds
            record.evaluations = found.evaluations
        # What it leads to is known when its line has ended: until then it is somebody's task.
        parent.followed, parent.family = record, None
        store.put(parent)

    dialogues = [partial(_dialogue, parent, store, tools, settings) for parent in parents]
    hold(dialogues, tools.model, budget=tools.budget, on_result=tell)


def _born(parent: CalculationDocument, found: Followed, store: ResultsStore, tools: Tools) -> list[str]:
    """Put children into the store; gives their ids. One that is there as it is stays, with all that was computed."""
    crystals = CrystalSet(parent.set, parent.condition, tools.protocol, parent.potential, lambda: tools.loaded.elements)
    pairs = [child_documents(parent, each, as_children(crystals)) for each in found.distorted]
    among = {"key": {"$in": [document.key for _, document in pairs]}} | COUNTED
    there = {row["id"]: row["origin"]["sha256"] for row in store.query(among, ["id", "origin.sha256"])}
    for crystal, document in pairs:
        if there.get(crystal.id) != crystal.origin.sha256:
            store.put_crystals(crystal)
            store.put(document)
            leave_children(store, document, unless="")
    leave_children(store, parent, unless=relaxed_hash(parent))
    return [crystal.id for crystal, _ in pairs]


def _dialogue(parent: CalculationDocument, store: ResultsStore, tools: Tools, settings: FollowSettings) -> Dialogue:
    """Dialogue about an unstable crystal, which ends with a :class:`Followed`."""
    import numpy as np

    from phononbench_flows.engine.corrected import through_looks
    from phononbench_flows.engine.following import distort, held_matrices, matrix_at, soft_modes
    from phononbench_flows.engine.force_constants import ForceConstants, undisplaced
    from phononbench_flows.engine.interpolation import interpolation
    from phononbench_flows.engine.q_symmetry import operations

    displacing, tolerance = tools.protocol.force_constants, ExactLooksSettings().tolerance
    if "force_constants" in parent.arrays:
        constants = ForceConstants.from_arrays(store.blobs.get(parent.arrays["force_constants"]))
        looks = store.blobs.get(parent.arrays["exact_looks"]) if "exact_looks" in parent.arrays else None
        plain = partial(interpolation, constants.phonopy(symmetry=False), tolerance=tolerance)
        interpolated = plain() if looks is None or not len(looks["q"]) else through_looks(constants, looks)
        primitive, known = interpolated.cell, held_matrices(interpolated)
    else:
        structure = stored_structure(parent.relaxed_structure or {}, parent.id)
        primitive = undisplaced(structure, displacing, symmetry=False).primitive
        known = []
        for look in parent.evidence.exact:
            known.append((yield from matrix_at(primitive, np.array(look.q), displacing, tolerance=tolerance)))
    symmetry = operations(primitive, displacing.symprec)
    modes = soft_modes(known, primitive.masses, symmetry, threshold=parent.assessments[0].threshold)
    return (yield from distort(primitive, modes, _strains(parent, symmetry), symmetry, settings))


def _strains(parent: CalculationDocument, symmetry: Sequence[Operation]) -> list[SoftStrain]:
    """The strains under which a crystal is unstable; none if its elastic constants are unknown, or sound."""
    import numpy as np

    from phononbench_flows.engine.following import soft_strains

    elastic, found = parent.evidence.elastic, parent.results.get("elasticity", {})
    if elastic is None or not is_imaginary(elastic.lowest, -elastic.noise):
        return []
    if "in_plane_tensor" in found:
        return soft_strains(np.array(found["in_plane_tensor"]), symmetry, np.array(found["in_plane_axes"]))
    return soft_strains(np.array(found["elastic_tensor"]["raw"]), symmetry)
