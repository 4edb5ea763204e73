"""What a job can learn of the firework that it is: nothing where another manager runs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jobflow import CURRENT_JOB


@dataclass(frozen=True)
class Launch:
    """FireWorks' ids of the firework that runs, and of this launch of it."""

    fw_id: int
    launch_id: int


def current_launch() -> Launch | None:
    """The launch that runs this job: FireWorks writes it to the folder that it runs in. None without FireWorks."""
    file, job = Path("FW.json"), CURRENT_JOB.job
    if job is None or not file.is_file():
        return None
    firework = json.loads(file.read_text(encoding="utf-8"))
    tasks = firework["spec"]["_tasks"]
    # The file of another firework may lie where somebody works.
    if not any(task.get("job", {}).get("uuid") == job.uuid for task in tasks) or not firework.get("launches"):
        return None
    return Launch(firework["fw_id"], firework["launches"][-1]["launch_id"])
