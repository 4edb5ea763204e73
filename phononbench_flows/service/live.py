"""Keeps the table of crystals what the store is, while others write into the store."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.service.table import FIELDS, Rows, Table
from phononbench_flows.store import ResultsStore

_LOT = 5000  # rows between two looks at what there is so far
_OVERLAP = timedelta(minutes=2)
"""So far back is read again: writers' clocks differ, and a write lasts."""

_log = logging.getLogger(__name__)


@dataclass
class LiveTable:
    """The table of a store's calculations, read once and then kept up to date by a thread of its own.

    Attributes:
        table: what is known so far; it is replaced, never changed.
        total: calculations in the store when reading began; None before.
        complete: whether all of them have been read once.
        version: grows with each change of the table.
        trouble: why the store cannot be read at the moment, in a sentence.
    """

    store: ResultsStore
    pause: float = 2.0
    table: Table = field(default_factory=Table)
    total: int | None = None
    complete: bool = False
    version: int = 0
    trouble: str | None = None
    _rows: Rows = field(default_factory=Rows)
    _newest: str = ""
    _seen: dict[str, str] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read in the background."""
        self._thread = threading.Thread(target=self._run, name="live-table", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(10)

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until everything has been read once."""
        deadline = time.monotonic() + seconds
        while not self.complete and time.monotonic() < deadline:
            time.sleep(0.02)

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            StoreError: the store cannot be read.
        """
        if self.total is None:
            self.total = self.store.count()
        since: dict[str, Any] = {"updated_at": {"$gte": self._since()}} if self.complete else {}
        for lot in batched(self.store.query(since, list(FIELDS)), _LOT):
            fresh = [found for found in lot if self._seen.get(found["key"]) != found["updated_at"]]
            for document in fresh:
                self._rows.put(document)
                self._newest = max(self._newest, document["updated_at"])
            # Only what the next refresh may meet again has to be remembered.
            self._seen |= {found["key"]: found["updated_at"] for found in fresh}
            if fresh:
                self._publish()
            if self._stopped.is_set():
                return
        oldest = self._since()
        self._seen = {key: stamp for key, stamp in self._seen.items() if stamp >= oldest}
        self.complete = True

    def _publish(self) -> None:
        # While the first reading lasts, a look at it every time would take longer than the reading.
        if self.complete or len(self._rows) >= 1.5 * len(self.table):
            self.table, self.version = self._rows.table(), self.version + 1

    def _since(self) -> str:
        if not self._newest:
            return ""
        moment = datetime.fromisoformat(self._newest) - _OVERLAP
        return moment.astimezone(UTC).isoformat().replace("+00:00", "")

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.refresh()
                if len(self._rows) != len(self.table):
                    self.table, self.version = self._rows.table(), self.version + 1
                self.trouble = None
            except PhononBenchError as error:
                _log.warning("The store cannot be read: %s", error)
                self.trouble = str(error)
            self._stopped.wait(self.pause)
