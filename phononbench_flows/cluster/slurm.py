"""What Slurm says of its jobs. Every function gives None where there is no Slurm, or it does not answer."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

_ANSWER_SECONDS = 30.0  # a controller under load takes its time
_LEFT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")  # [[days-]hours:]minutes:seconds


@dataclass(frozen=True)
class Jobs:
    """Jobs of a Slurm cluster that wait or run."""

    cluster: str
    ids: frozenset[str]


def jobs() -> Jobs | None:
    """The jobs of the cluster that this machine belongs to."""
    listed = _answer("squeue", "--noheader", "--format=%A")
    configuration = _answer("scontrol", "show", "config")
    if listed is None or configuration is None:
        return None
    pairs = (line.partition("=") for line in configuration.splitlines())
    cluster = next((value.strip() for name, _, value in pairs if name.strip() == "ClusterName"), "")
    return Jobs(cluster, frozenset(listed.split()))


def seconds_left(job: str) -> float | None:
    """Until a job reaches its time limit; also None if it has none."""
    said = _answer("squeue", "--noheader", "--format=%L", f"--jobs={job}")
    match = _LEFT.fullmatch(said.strip()) if said else None
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def end_of(job: str) -> str | None:
    """Slurm's word for how a job ended, such as ``PREEMPTED`` or ``NODE_FAIL``; it remembers that for some minutes."""
    said = _answer("scontrol", "--oneliner", "show", "job", job)
    match = re.search(r"\bJobState=(\w+)", said) if said else None
    return match.group(1) if match else None


def _answer(*command: str) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603  (the words are ours, or Slurm's own)
            [program, *command[1:]], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
