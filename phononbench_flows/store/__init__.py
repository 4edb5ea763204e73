"""Where results are kept: one document per crystal and protocol, and the arrays that belong to it.

A :class:`ResultsStore` is either of two things, which answer MongoDB's query language alike:

* a directory with ``results.sqlite`` (the documents), ``sets.sqlite`` (what is known of the sets) and ``blobs/``
  (compressed arrays under the hash of their bytes). Many processes of one machine may read and write at once: writers
  take turns, readers are not held up. The directory has to lie on a file system of the machine itself: SQLite's
  write-ahead log needs shared memory, which processes on different machines do not have;
* a database of a MongoDB server, for any number of machines: collections ``crystals`` and ``sets``, and the blobs in
  GridFS or in a directory that all machines share.

A write that has returned survives a killed process and a power cut.
"""

from __future__ import annotations

from phononbench_flows.store.blobs import BlobError
from phononbench_flows.store.collection import AwayError, NotAllowedError, StoreError
from phononbench_flows.store.counts import Count
from phononbench_flows.store.results_store import ResultsStore, can_be_stored, close_store, open_store
from phononbench_flows.store.saving import Saver
from phononbench_flows.store.specs import (
    DEFAULT_DATABASE,
    DEFAULT_STORE,
    Spec,
    cluster_spec,
    configured_spec,
    full_spec,
)

__all__ = [
    "DEFAULT_DATABASE",
    "DEFAULT_STORE",
    "AwayError",
    "BlobError",
    "Count",
    "NotAllowedError",
    "ResultsStore",
    "Saver",
    "Spec",
    "StoreError",
    "can_be_stored",
    "close_store",
    "cluster_spec",
    "configured_spec",
    "full_spec",
    "open_store",
]
