"""Finished crystals on their way into a store: one at a time, or together where they come fast.

A crystal is written at once unless another was a few seconds before. Those that come faster are written by a thread
that takes all that wait, in three commands for however many: arrays, then documents. So a worker asks a server for
little per second, and a worker that is killed loses what it computed in the last few seconds at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Self

import numpy as np

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.store.blobs import packed, reference
from phononbench_flows.store.collection import Criteria
from phononbench_flows.store.results_store import ResultsStore

PACE_SECONDS = 5.0
"""Between two writes to a server."""

_MAX_BYTES = 2**26  # of arrays that wait; then who computes waits too

logger = logging.getLogger(__name__)


class Saver:
    """Takes crystals as they finish; all of them last when its ``with`` block has ended.

    A crystal is written if its document is still as expected, else the one that is there stands. In an embedded store
    each is written at once, however fast they come.
    """

    def __init__(self, store: ResultsStore, expected: Criteria) -> None:
        """Nothing is written yet.

        Args:
            store: where to.
            expected: what the documents that are there have to match.
        """
        self._store = store
        self._expected = expected
        self._pace = 0.0 if store.spec["kind"] == "embedded" else PACE_SECONDS
        self._changed = threading.Condition()
        self._documents: list[CalculationDocument] = []
        self._blobs: dict[str, bytes] = {}
        self._next = 0.0
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write_lots, name="saver", daemon=True)

    def __enter__(self) -> Self:
        if self._pace:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pace:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._thread.join()
        self._raise()

    def save(self, document: CalculationDocument, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Take a crystal as it is now, and the arrays to keep with it, by name.

        Its fields may be given other values afterwards, but what they hold is not changed.

        Raises:
            StoreError: this one, or one before, cannot be stored.
        """
        blobs = {name: packed(kept) for name, kept in arrays.items()}
        document.arrays = document.arrays | {name: reference(data) for name, data in blobs.items()}
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._size() < _MAX_BYTES)
            self._raise()
            at_once = not self._documents and time.monotonic() >= self._next
            self._documents.append(document.model_copy())
            self._blobs |= {document.arrays[name].sha256: data for name, data in blobs.items()}
            lot = self._taken() if at_once else None
            if lot is None:
                self._changed.notify_all()
        if lot is not None:
            self._write(*lot)

    def _size(self) -> int:
        return sum(map(len, self._blobs.values()))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _taken(self) -> tuple[list[CalculationDocument], dict[str, bytes]]:
        lot = self._documents, self._blobs
        self._documents, self._blobs = [], {}
        self._next = time.monotonic() + self._pace
        self._changed.notify_all()
        return lot

    def _write_lots(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._documents or self._ended)
                if not self._documents:
                    return
                left = self._next - time.monotonic()
                self._changed.wait_for(lambda: self._ended or self._size() >= _MAX_BYTES, max(0.0, left))
                lot = self._taken()
            try:
                self._write(*lot)
            except Exception as error:  # noqa: BLE001  (raised where crystals are handed in)
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return

    def _write(self, documents: list[CalculationDocument], blobs: Mapping[str, bytes]) -> None:
        self._store.blobs.put_all(blobs)
        for key in self._store.put_if(self._expected, *documents):
            logger.warning("%s was computed by another worker meanwhile; its result stands", key)
