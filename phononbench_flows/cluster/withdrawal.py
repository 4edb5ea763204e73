"""Taking back what was handed out and nobody has begun: chunks leave the LaunchPad, and the ledger remembers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fireworks import LaunchPad

from phononbench_flows.cluster.launchpad import LEDGER

_TAKEN_BACK = "ARCHIVED"


def withdraw(lp: LaunchPad, chunk_hash: str, chunk_id: str) -> bool:
    """Take a chunk back; gives whether it was, which it is not if a worker has begun it.

    May be broken off, and repeated. Whoever takes the first of its fireworks first, a worker or this, has the chunk.
    """
    workflow = lp.workflows.find_one({"_id": chunk_id}) or lp.workflows.find_one({"metadata.chunk": chunk_id})
    if workflow is not None:
        nodes = workflow["nodes"]
        if lp.launches.find_one({"fw_id": {"$in": nodes}}, {"launch_id": 1}):
            return False
        roots = [int(node) for node in _roots(workflow)]
        free = {"fw_id": {"$in": roots}, "state": {"$in": ["READY", _TAKEN_BACK]}}
        if any(lp.fireworks.find_one({"fw_id": root}, {"fw_id": 1}) for root in roots):
            if not lp.fireworks.update_many(free, {"$set": {"state": _TAKEN_BACK}}).matched_count:
                return False
        elif workflow["state"] not in {"READY", _TAKEN_BACK}:
            return False
    lp.db[LEDGER].update_one({"_id": chunk_hash}, {"$set": {"withdrawn": True}})
    delete_workflow(lp, workflow)
    return True


def delete_workflow(lp: LaunchPad, workflow: Mapping[str, Any] | None) -> None:
    """Delete a workflow that was taken back, with its fireworks."""
    if workflow is not None:
        lp.fireworks.delete_many({"fw_id": {"$in": workflow["nodes"]}})
        lp.workflows.delete_one({"_id": workflow["_id"]})


def leave_no_rest(lp: LaunchPad, chunk_ids: Iterable[str]) -> None:
    """Delete what a withdrawal that was broken off has left of these chunks."""
    for workflow in lp.workflows.find({"metadata.chunk": {"$in": list(chunk_ids)}}):
        delete_workflow(lp, workflow)


def _roots(workflow: Mapping[str, Any]) -> set[str]:
    """Ids of the fireworks that wait for no other."""
    children = {str(child) for each in workflow["links"].values() for child in each}
    return {str(node) for node in workflow["nodes"]} - children
