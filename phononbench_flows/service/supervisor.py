"""Sees to it that uploads are judged: starts the worker when there is something to do, ends it when it is too slow, and
says of what a cluster computes when it is done.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime

from phononbench_flows.outcomes import Status
from phononbench_flows.service.jobs import QUEUED, Job, Jobs, JobState, give_up
from phononbench_flows.service.settings import Settings
from phononbench_flows.store import ResultsStore, StoreError

_PAUSE = 0.3
_BETWEEN_LOOKS = 2.0  # seconds, at what a cluster has in its hands
_AFTER_A_FALL = 5.0  # seconds before a worker that ended by itself is started again

_log = logging.getLogger(__name__)


class Supervisor:
    """Keeps a worker while uploads wait."""

    def __init__(self, settings: Settings, jobs: Jobs, store: ResultsStore) -> None:
        self._settings, self._jobs, self._store = settings, jobs, store
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._not_before = self._next_look = 0.0

    def start(self) -> None:
        """Begin to look after uploads."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker; what it has in its hands goes on when a server is started again."""
        self._stopped.set()
        self._thread.join(10)
        self._end()

    def _run(self) -> None:
        while not self._stopped.wait(_PAUSE):
            try:
                self._look_after()
            except StoreError as error:
                _log.warning("Uploads cannot be looked after, which is tried again: %s", error)

    def _look_after(self) -> None:
        waiting = self._jobs.that_are(*QUEUED)
        self._end_slow(waiting)
        if waiting and not self._is_working() and time.monotonic() > self._not_before:
            self._begin()
        if time.monotonic() > self._next_look:
            self._finish_computed()
            self._next_look = time.monotonic() + _BETWEEN_LOOKS

    def _is_working(self) -> bool:
        if self._worker is None:
            return False
        code = self._worker.poll()
        if code is None:
            return True
        if code:
            _log.error("The process that judges uploads ended with %s; it is started again.", code)
            self._not_before = time.monotonic() + _AFTER_A_FALL
        self._worker = None
        return False

    def _begin(self) -> None:
        settings = self._settings
        assert settings.judging is not None
        told = {"spec": dict(settings.spec), "folder": str(settings.folder)}
        told |= {"judging": asdict(settings.judging), "limits": asdict(settings.limits)}
        command = [sys.executable, "-m", "phononbench_flows.service.worker"]
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - our own module
        assert self._worker.stdin is not None
        self._worker.stdin.write(json.dumps(told).encode() + b"\n")
        self._worker.stdin.flush()

    def _end(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None

    def _finish_computed(self) -> None:
        """Whether workers of a cluster have done an upload, its crystals' documents say."""
        handed_out = self._jobs.that_are(JobState.HANDED_OUT)
        if not handed_out:
            return
        keys = [key for job in handed_out for key in job.keys]
        waiting = {"key": {"$in": keys}, "status": Status.PENDING.value}
        pending = {row["key"] for row in self._store.query(waiting, ["key"])}
        for job in handed_out:
            if pending.isdisjoint(job.keys):
                self._jobs.finish(job)

    def _end_slow(self, waiting: list[Job]) -> None:
        assert self._settings.judging is not None
        for job in waiting:
            if self._settings.judging.cluster and job.keys:
                continue  # it was read, and may wait for a server that is away to be handed out
            if job.state == JobState.RUNNING and _minutes_since(job.started) > self._settings.limits.minutes:
                self._end()
                detail = (
                    f"It took more than {self._settings.limits.minutes:g} minutes, which is what this server gives."
                )
                give_up(self._store, job.keys, detail)
                self._jobs.fail(job, detail)


def _minutes_since(moment: str | None) -> float:
    return 0.0 if moment is None else (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() / 60
