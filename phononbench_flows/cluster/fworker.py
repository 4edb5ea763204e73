"""FireWorks' FWorker: which work a worker takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bson
from bson.errors import BSONError
from fireworks import FWorker
from fireworks.fw_config import FWORKER_LOC
from pydantic import BaseModel, ConfigDict, Json, ValidationError

from phononbench_flows.errors import PhononBenchError, problems
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml


class FWorkerError(PhononBenchError):
    """A file that describes no worker; the message is a sentence."""


class _File(BaseModel):
    """What a ``my_fworker.yaml`` says."""

    model_config = ConfigDict(strict=True)

    name: str
    category: str | list[str]
    query: Json[dict[str, Any]]
    env: dict[str, Any] | None = None


def fworker(file: Path | None = None) -> FWorker:
    """The FWorker of a file; without one, of FireWorks' own configuration, as for ``rlaunch``; else one for any work.

    FireWorks' own loader would import whatever modules the file names.

    Raises:
        FWorkerError: for a file that is none, or holds what no database takes.
    """
    found = file or (Path(FWORKER_LOC) if FWORKER_LOC else None)
    if found is None:
        return FWorker()
    try:
        given = _File.model_validate(read_plain_yaml(found))
        worker = FWorker(given.name, given.category, given.query, given.env)
        bson.encode({"name": worker.name, "query": worker.query, "env": worker.env})
    except PlainYamlError as error:
        raise FWorkerError(f"the worker's file {found} cannot be read: {error}") from error
    except ValidationError as error:
        raise FWorkerError(f"{found} does not describe a worker: {problems(error)}") from error
    except (BSONError, AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise FWorkerError(f"{found} describes a worker that no LaunchPad takes: {error}") from error
    return worker
