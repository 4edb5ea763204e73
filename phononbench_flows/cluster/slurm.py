"""What Slurm says of its jobs. Every function gives None where there is no Slurm, or it does not answer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_ANSWER_SECONDS = 30.0  # a controller under load takes its time
_GOES_ON = frozenset(
    {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "COMPLETING", "RESIZING"}
)
_LEFT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")  # [[days-]hours:]minutes:seconds


@dataclass(frozen=True)
class Jobs:
    """Jobs of a Slurm cluster that wait or run.

    Attributes:
        cluster: its name.
        restarts: how often each job was requeued, by its number; None while a run of it is ending.
    """

    cluster: str
    restarts: Mapping[str, int | None]


@dataclass(frozen=True)
class End:
    """How and when a job, or one run of a job that was requeued, ended: a word of Slurm's, such as ``PREEMPTED``."""

    word: str
    at: datetime | None


def jobs() -> Jobs | None:
    """The jobs of the cluster that this machine belongs to."""
    listed = _answer("squeue", "--noheader", "--Format=JobID:20,RestartCnt:10,State:20")
    configuration = _answer("scontrol", "show", "config")
    if listed is None or configuration is None:
        return None
    pairs = (line.partition("=") for line in configuration.splitlines())
    cluster = next((value.strip() for name, _, value in pairs if name.strip() == "ClusterName"), "")
    rows = map(str.split, listed.splitlines())
    # A job that is requeued counts one more from the first moment, while its processes may still write.
    return Jobs(cluster, {job: None if state == "COMPLETING" else int(restarts) for job, restarts, state in rows})


def seconds_left(job: str) -> float | None:
    """Until a job reaches its time limit; also None if it has none."""
    said = _answer("squeue", "--noheader", "--format=%L", f"--jobs={job}")
    match = _LEFT.fullmatch(said.strip()) if said else None
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def end_of(job: str, restarts: int = 0) -> End | None:
    """How a job's run after so many restarts ended; None, too, if it goes on.

    The controller remembers a job for some minutes, and its last run alone; accounting, where a site has it, all.
    """
    said = _answer("scontrol", "--oneliner", "show", "job", job) or ""
    now = dict(re.findall(r"\b(JobState|Restarts|EndTime)=(\S+)", said))
    if now.get("Restarts") == str(restarts):
        return None if now["JobState"] in _GOES_ON else End(now["JobState"], _time(now.get("EndTime", "")))
    rows = (_answer("sacct", "--duplicates", "-XPn", "--format=State,End", f"--jobs={job}") or "").splitlines()
    if len(rows) > restarts:
        state, _, at = rows[restarts].partition("|")
        word = state.split()[0]  # "CANCELLED by 1000"
        return None if word in _GOES_ON else End(word, _time(at))
    return End("REQUEUED", None) if int(now.get("Restarts", 0)) > restarts else None


def _time(said: str) -> datetime | None:
    return datetime.fromisoformat(said).replace(tzinfo=UTC) if re.match(r"\d{4}-", said) else None


def _answer(*command: str) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603  (the words are ours, or Slurm's own)
            [program, *command[1:]],
            env=os.environ | {"TZ": "UTC"},
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
