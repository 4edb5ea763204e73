"""ASE's databases (SQLite) and trajectories: the atoms in them, and nothing else that they hold.

ASE's own readers open a database for writing, and make objects of the classes that a file names.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import limited
from phononbench_flows.structures.formats.base import Format, Found, Level
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError, Rejection

_OLDEST = 5  # version of ASE's database whose columns are those of today


def read_database(found: Found) -> Iterator[RawCrystal]:
    """The atoms of each row, by its id."""
    yield from limited.read_apart(_rows, found)


def read_trajectory(found: Found) -> Iterator[RawCrystal]:
    """The atoms of each frame."""
    yield from limited.read_apart(_frames, found, imports=("ase.io.ulm",))


def _rows(found: Found, content: Path | bytes) -> Iterator[RawCrystal]:
    connection = _connected(content)
    connection.execute("PRAGMA trusted_schema = OFF")
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'systems'").fetchone():
        raise NoCrystalsError("It is no database of ASE: it has no table `systems`.")
    version = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
    if version is None or int(version[0]) < _OLDEST:
        raise RejectedError(Reason.UNSUPPORTED_FILE, "The database is of an old ASE: `python -m ase.db.convert` it.")
    rows = connection.execute("SELECT id, numbers, positions, cell, pbc FROM systems ORDER BY id")
    empty = True
    for key, numbers, positions, cell, pbc in rows:
        empty = False
        try:
            atoms = {
                "numbers": np.frombuffer(numbers, "<i4").tolist(),
                "positions": np.frombuffer(positions, "<f8").reshape(-1, 3).tolist(),
                "cell": np.frombuffer(cell, "<f8").reshape(3, 3).tolist(),
                "pbc": [bool(int(pbc) & bit) for bit in (1, 2, 4)],
            }
        except (TypeError, ValueError) as error:
            yield found.bad_part(int(key), Rejection(Reason.UNPARSABLE, f"The row's atoms cannot be read: {error}."))
            continue
        yield found.part(int(key), "json", json.dumps(atoms).encode())
    if empty:
        raise NoCrystalsError("The database is empty.")


def _connected(content: Path | bytes) -> sqlite3.Connection:
    if isinstance(content, Path):
        return sqlite3.connect(f"file:{quote(str(content.absolute()))}?mode=ro&immutable=1", uri=True)
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content)
    return connection


def _frames(found: Found, content: Path | bytes) -> Iterator[RawCrystal]:
    from ase.io.ulm import Reader

    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
        reader = Reader(stream)
        if reader.get_tag() != "ASE-Trajectory":
            raise NoCrystalsError("It is no trajectory of ASE.")
        if len(reader) == 0:
            raise NoCrystalsError("The trajectory is empty.")
        shared: dict[str, Any] = {}
        for index in range(len(reader)):
            frame = reader[index]
            # What does not change is written with the first frame only.
            shared = {key: frame.get(key) for key in ("numbers", "pbc") if key in frame} or shared
            atoms = {**shared, "positions": frame.positions, "cell": frame.cell, "info": _occupancy(frame)}
            yield found.part(index + 1, "json", json.dumps(atoms, default=_plain).encode())


def _occupancy(frame: Any) -> dict[str, Any]:
    info = frame.get("info") or {}
    return {"occupancy": info["occupancy"]} if "occupancy" in info else {}


def _plain(value: Any) -> Any:
    return value.tolist()


FORMATS = (
    Format("ASE database", (".db",), read_database, Level.COLLECTION),
    Format("ASE trajectory", (".traj",), read_trajectory, Level.COLLECTION),
)
