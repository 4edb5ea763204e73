"""What the routes of one server share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.service.filters import Selector
from phononbench_flows.service.live import LiveTable
from phononbench_flows.service.settings import Settings
from phononbench_flows.store import ResultsStore

if TYPE_CHECKING:
    from phononbench_flows.service.jobs import Jobs


@dataclass
class State:
    """What the routes of one server share.

    Attributes:
        jobs: uploads and their fates; None for a server that takes none.
        drawing: held by who computes a picture, so that these share one core.
    """

    settings: Settings
    store: ResultsStore
    live: LiveTable
    jobs: Jobs | None = None
    selector: Selector = field(default_factory=Selector)
    drawing: threading.Lock = field(default_factory=threading.Lock)


def state_of(request: Request) -> State:
    """The state of the server that was asked."""
    found: State = request.app.state.server
    return found


def calculation(request: Request, key: str) -> CalculationDocument:
    """The calculation of a key.

    Raises:
        HTTPException: there is none.
    """
    found = state_of(request).store.get(key)
    if found is None:
        raise HTTPException(404, "There is no such calculation.")
    return found
