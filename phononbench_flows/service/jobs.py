"""Uploads and what became of them: a table in a file beside the results, which survives every process."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.store import ResultsStore

_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    state TEXT NOT NULL,
    detail TEXT,
    keys TEXT NOT NULL DEFAULT '[]',
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted TEXT NOT NULL,
    started TEXT,
    ended TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""


class QueueFullError(PhononBenchError):
    """More uploads wait than the server takes; the message is a sentence."""


class JobState(StrEnum):
    """How far an upload came.

    One that was handed out waits for workers of a cluster, or they compute it: its crystals' documents tell.
    """

    WAITING = "waiting"
    RUNNING = "running"
    HANDED_OUT = "handed_out"
    DONE = "done"
    FAILED = "failed"


QUEUED = (JobState.WAITING, JobState.RUNNING)
"""Those of uploads that the process beside the server has not done yet."""


@dataclass(frozen=True)
class Job:
    """An upload.

    Attributes:
        number: uploads are computed in this order; id: cannot be guessed.
        name: of the file, as it was called by whoever sent it; file: where it lies, under a name of ours.
        detail: in a sentence, why it failed.
        keys: of the calculations that came of it.
        attempts: times that a worker began it.
    """

    number: int
    id: str
    name: str
    file: str
    state: JobState
    detail: str | None
    keys: list[str]
    attempts: int
    submitted: str
    started: str | None
    ended: str | None


def give_up(store: ResultsStore, keys: list[str], detail: str) -> None:
    """Say of the crystals of an upload that are not finished why they never will be."""
    for document in store.documents({"key": {"$in": keys}, "status": Status.PENDING.value}):
        document.status, document.reason, document.detail = Status.FAILED, Reason.KILLED_WORKER, detail
        store.put(document)


class Jobs:
    """The table of uploads in a folder. Every change is on disk when a method returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads = folder / "uploads"
        self.uploads.mkdir(parents=True, exist_ok=True)
        self._path = folder / "jobs.sqlite"
        with self._connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    def add(self, name: str, suffix: str, data: bytes, most: int) -> Job:
        """Keep a file, and put it at the end of the queue.

        Parameters:
            name: what whoever sent it calls it.
            suffix: ending of our own name of it, by which it is known what it is.
            most: uploads that may be open at once.

        Raises:
            QueueFullError: so many are.
        """
        if len(self.that_are(*QUEUED, JobState.HANDED_OUT)) >= most:
            raise QueueFullError(f"{most} uploads wait already: try again later.")
        # Of crystals that are the same the first by id is the original: no upload takes the verdict of one before it.
        identifier = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"
        path = self.uploads / f"{identifier}{suffix}"
        path.write_bytes(data)
        values = (identifier, name, str(path), JobState.WAITING, _now())
        with self._connected() as connection:
            connection.execute("INSERT INTO jobs (id, name, file, state, submitted) VALUES (?, ?, ?, ?, ?)", values)
        found = self.get(identifier)
        assert found is not None
        return found

    def get(self, identifier: str) -> Job | None:
        """The upload of an id, if there is one."""
        return next(iter(self._select("WHERE id = ?", (identifier,))), None)

    def that_are(self, *states: JobState) -> list[Job]:
        """Uploads in one of these states, in order."""
        return self._select(f"WHERE state IN ({', '.join('?' * len(states))}) ORDER BY number", states)

    def latest(self, number: int = 50) -> list[Job]:
        """The latest uploads, the youngest first."""
        return self._select("ORDER BY number DESC LIMIT ?", (number,))

    def start(self) -> Job | None:
        """The upload whose turn it is, which runs from now on; one that a worker left behind before all others."""
        waiting = self.that_are(*QUEUED)
        if not waiting:
            return None
        job = min(waiting, key=lambda each: (each.state != JobState.RUNNING, each.number))
        self._set(job, state=JobState.RUNNING, attempts=job.attempts + 1, started=_now())
        return self.get(job.id)

    def found(self, job: Job, keys: list[str]) -> None:
        """Say which calculations an upload became."""
        self._set(job, keys=json.dumps(keys))

    def put_back(self, job: Job) -> None:
        """Let an upload that was started wait again, as if it had not been."""
        self._set(job, state=JobState.WAITING, attempts=job.attempts - 1, started=None)

    def hand_out(self, job: Job) -> None:
        """Say that workers of a cluster have what has to be computed of an upload."""
        self._set(job, state=JobState.HANDED_OUT)

    def finish(self, job: Job) -> None:
        """Say that all has been done for an upload that can be."""
        self._set(job, state=JobState.DONE, ended=_now())

    def fail(self, job: Job, detail: str) -> None:
        """Say why nothing more will be done for an upload."""
        self._set(job, state=JobState.FAILED, detail=detail, ended=_now())

    def _set(self, job: Job, **values: Any) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._connected() as connection:
            connection.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (*values.values(), job.id))  # noqa: S608 - names of ours

    def _select(self, rest: str, parameters: tuple[Any, ...]) -> list[Job]:
        columns = ", ".join(Job.__dataclass_fields__)
        with self._connected() as connection:
            rows = connection.execute(f"SELECT {columns} FROM jobs {rest}", parameters).fetchall()  # noqa: S608 - as above
        return [_job(row) for row in rows]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(Job.__dataclass_fields__, row, strict=True))
    return Job(**values | {"state": JobState(values["state"]), "keys": json.loads(values["keys"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
