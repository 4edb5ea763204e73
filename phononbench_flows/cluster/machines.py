"""Do machines agree? What ``phononbench doctor`` finds on each is left beside the queue, and compared with the others'.

Of a folder that several machines have to see, the first leaves a mark in it, and the others look for that mark: names
alone say nothing, since a node may have a folder of the same name on a disk of its own.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
from fireworks import LaunchPad
from pymongo.errors import PyMongoError

from phononbench_flows.cluster.preflight import Check, State
from phononbench_flows.flows.step_runs import versions
from phononbench_flows.store.connection import sentence

COLLECTION = "phononbench_machines"
"""In the LaunchPad's database."""

MARK = ".phononbench-doctor"

_ANSWER_SECONDS = 20.0
_REMEMBERED = timedelta(days=1)


def compared(lp: LaunchPad, folders: Mapping[str, Path], host: str | None = None) -> Iterator[Check]:
    """Whether the machines on which the doctor was of late have the same packages, and see the same folders.

    Parameters:
        folders: what all of them have to see, by what lies there.
        host: name of this machine.
    """
    host = host or socket.gethostname()
    now = datetime.now(UTC)
    lately = {"_id": {"$ne": host}, "at": {"$gt": now - _REMEMBERED}}
    marks = {what: _marked(folder) for what, folder in folders.items()}
    here = {
        "at": now,
        "versions": [list(pair) for pair in versions().items()],
        "folders": [[what, str(folders[what]), mark] for what, mark in marks.items() if mark],
    }
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            lp.db[COLLECTION].replace_one({"_id": host}, here, upsert=True)
            others = list(lp.db[COLLECTION].find(lately).sort("_id", 1))
    except PyMongoError as error:
        yield Check("other machines", State.WARNING, f"the LaunchPad does not tell of them: {sentence(error)}")
        return
    for what, folder in folders.items():
        if marks[what] is None:
            advice = "make it, or start where jobs can write, too"
            yield Check(what, State.FAILED, f"nothing can be written to {folder}", advice)
    if not others:
        advice = "run it where workers run, too: `srun phononbench doctor`"
        yield Check("other machines", State.OK, "the doctor was on none of them today", advice)
        return
    yield _same_versions(others)
    for what in sorted({what for other in others for what, *_ in other["folders"]}):
        yield _same_folder(what, others)


def _same_versions(others: list[dict[str, Any]]) -> Check:
    name, here = "versions elsewhere", versions()
    differing = []
    for other in others:
        there = dict(other["versions"])
        for package in sorted(here.keys() | there.keys()):
            if here.get(package) != there.get(package):
                theirs, ours = there.get(package, "missing"), here.get(package, "missing")
                differing.append(f"{package} is {theirs} on {other['_id']}, and {ours} here")
    if differing:
        advice = "have one environment that all machines see, or install the same; run the doctor there again then"
        return Check(name, State.WARNING, "; ".join(differing), advice)
    return Check(name, State.OK, f"the same on {_named(others)}")


def _same_folder(what: str, others: list[dict[str, Any]]) -> Check:
    """Whether this machine finds the marks that the others have seen in their folder."""
    seen = [(other, *rest) for other in others for name, *rest in other["folders"] if name == what]
    strange = [f"{folder} of {other['_id']}" for other, folder, mark in seen if _read(Path(folder)) != mark]
    if strange:
        advice = "use a folder on a file system that login nodes and compute nodes share"
        return Check(what, State.FAILED, f"this machine does not see {', '.join(strange)}", advice)
    return Check(what, State.OK, f"this machine sees that of {_named([other for other, *_ in seen])}")


def _named(others: list[dict[str, Any]]) -> str:
    return ", ".join(other["_id"] for other in others)


def _marked(folder: Path) -> str | None:
    """The mark of a folder, left now if there was none; None where nothing can be written."""
    try:
        with (folder / MARK).open("x") as file:
            file.write(uuid.uuid4().hex)
    except FileExistsError:
        pass
    except OSError:
        return None
    return _read(folder)


def _read(folder: Path) -> str | None:
    try:
        return (folder / MARK).read_text()
    except OSError:
        return None
