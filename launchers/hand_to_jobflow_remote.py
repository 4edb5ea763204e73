"""Hand the chunks that ``phononbench submit --write DIR`` has written to jobflow-remote, each once.

    python hand_to_jobflow_remote.py DIR WORKER

Needs the extras `fireworks` and `jobflow-remote`. The project is the one that `jf` would take.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jobflow import Flow, Job
from jobflow_remote import JobController, submit_flow


def flow_of(file: Path) -> Flow:
    """The flow of a chunk, which has the same uuid whenever it is read."""
    workflow = json.loads(file.read_text())
    [firework] = workflow["fws"]
    [task] = firework["spec"]["_tasks"]
    job: Job = Job.from_dict(task["job"])  # type: ignore[assignment]
    uuid, job.hosts = job.hosts[0], []  # a job that has a flow cannot be put into another
    return Flow([job], name=workflow["name"], uuid=uuid)


def main() -> None:
    """Hand out every chunk that jobflow-remote does not have."""
    folder, worker = sys.argv[1:]
    controller = JobController.from_project_name()
    for file in sorted(Path(folder).glob("*.json")):
        flow = flow_of(file)
        there = controller.count_flows(flow_ids=flow.uuid)
        if not there:
            submit_flow(flow, worker=worker)
        print(f"{file.name}: {'is there' if there else 'handed out'}")


if __name__ == "__main__":
    main()
