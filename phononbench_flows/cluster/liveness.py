"""Is a worker still there? It leaves its identity with everything it begins, and anybody may ask for it later."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from phononbench_flows.cluster import slurm


def identity() -> dict[str, Any]:
    """Tells this process apart from every other; plain JSON."""
    return {
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_cluster": os.environ.get("SLURM_CLUSTER_NAME"),
        "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def is_alive(worker: Mapping[str, Any], jobs: slurm.Jobs | None) -> bool | None:
    """Whether a worker is there; None if that cannot be told from here.

    Parameters:
        worker: its :func:`identity`.
        jobs: what Slurm knows of; None if it cannot be asked.
    """
    if worker["machine"] == _machine():
        return _same_process(worker["pid"], worker["started"])
    if jobs is not None and has_ended(worker, jobs):
        return False
    return None  # perhaps it died within a job that goes on


def has_ended(worker: Mapping[str, Any], jobs: slurm.Jobs) -> bool:
    """Whether the Slurm job of a worker is gone, or was requeued since. No if it is none of these jobs' cluster."""
    if not worker["slurm_job"] or worker["slurm_cluster"] not in {None, jobs.cluster}:
        return False
    if worker["slurm_job"] not in jobs.restarts:
        return True
    return jobs.restarts[worker["slurm_job"]] not in {None, worker.get("slurm_restarts", 0)}


def _same_process(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _machine() -> str:
    """Names this boot of the machine and this container on it: who agrees in it means the same by a process id.

    Without Linux's files it is the network card's address: names of machines are often those of others, too. Where
    there is none Python makes one up for each process, and of no other can be told whether it lives.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.is_file() and namespace.is_symlink():
        return f"{boot.read_text().strip()} {namespace.readlink()}"
    return f"{uuid.getnode():012x}"
