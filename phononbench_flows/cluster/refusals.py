"""Workers that refused, and why: kept beside the queue, told by ``status``, and a reason not to feed the queue.

A worker that finds its environment, or its machine, unfit takes nothing and ends, and whoever feeds the queue would
start the next one at once. So each refusal leaves a word here, which the next worker of the same kind that does begin
takes away.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fireworks import FWorker, LaunchPad

COLLECTION = "phononbench_refusals"
"""In the LaunchPad's database."""

_FIRST, _LONGEST = timedelta(minutes=1), timedelta(hours=1)
_LENGTH = 2000  # of a reason, at most


@dataclass(frozen=True)
class Refusal:
    """Refusals of one kind of worker for one reason, with no worker of the kind at work since.

    Attributes:
        fworker: name in the worker's FWorker file.
        job_name: of its Slurm job; None outside of Slurm.
        what: the checks that failed, by which reasons are told apart.
        why: in a sentence, as of the last one.
        number: how many in a row.
        host: machine of the last one.
        at: time of the last one.
    """

    fworker: str
    job_name: str | None
    what: str
    why: str
    number: int
    host: str
    at: datetime

    @property
    def until(self) -> datetime:
        """The queue is not fed before: a minute after the first, twice as long after each, at most an hour."""
        return self.at + min(_FIRST * 2 ** min(self.number - 1, 10), _LONGEST)


def record(lp: LaunchPad, fworker: FWorker, what: str, why: str) -> None:
    """Leave a word of a refusal of this process."""
    kind = _kind(fworker)
    now = {"why": why[:_LENGTH], "host": socket.gethostname(), "at": datetime.now(UTC)}
    lp.db[COLLECTION].update_one(kind | {"what": what}, {"$set": now, "$inc": {"number": 1}}, upsert=True)


def forget(lp: LaunchPad, fworker: FWorker) -> None:
    """A worker of this kind has begun: what kept others from it is over."""
    lp.db[COLLECTION].delete_many(_kind(fworker))


def refusals(lp: LaunchPad) -> list[Refusal]:
    """What was left, the last first."""
    rows = lp.db[COLLECTION].find({}, {"_id": 0}).sort("at", -1)
    return [Refusal(**row | {"at": row["at"].replace(tzinfo=UTC)}) for row in rows]


def in_the_way(lp: LaunchPad, job_name: str) -> Refusal | None:
    """The refusal for which Slurm jobs of this name are not to be submitted yet."""
    now = datetime.now(UTC)
    return next((each for each in refusals(lp) if each.job_name == job_name and each.until > now), None)


def _kind(fworker: FWorker) -> dict[str, Any]:
    return {"fworker": fworker.name, "job_name": os.environ.get("SLURM_JOB_NAME")}
