"""Uploads that mean harm: each is answered with a sentence, nothing of it runs, and the server lives."""

from __future__ import annotations

import bz2
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Structure
from serving import Server

pytest.importorskip("fastapi")
OPTIONS = ("--potential", "toy_potentials:lj", "--protocol", "paper")


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outer") / "results"


@pytest.fixture(scope="module")
def server(folder) -> Iterator[Server]:
    found = Server(folder, *OPTIONS)
    yield found
    found.kill()


def cell(symbol: str, edge: float) -> bytes:
    cube = [[edge, 0, 0], [0, edge, 0], [0, 0, edge]]
    return Structure.from_spacegroup("Fm-3m", cube, [symbol], [[0, 0, 0]]).to(fmt="cif").encode()


def archive(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return made.getvalue()


def bomb(gigabytes: int) -> bytes:
    """A zip of one file of zeros, as small as zip can make it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_BZIP2) as opened, opened.open("x.cif", "w", force_zip64=True) as member:
        for _ in range(100 * gigabytes):
            member.write(bytes(10_000_000))
    return made.getvalue()


def liar(gigabytes: int) -> bytes:
    """A zip whose directory says that its file is small."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * (1000 * gigabytes // 3) + packer.flush()
    sizes = struct.pack("<LLL", 0, len(packed), 1000)
    head = struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes
    local = b"PK\x03\x04" + head + struct.pack("<HH", 5, 0) + b"x.cif" + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + head + struct.pack("<HHHHHLL", 5, 0, 0, 0, 0, 0, 0) + b"x.cif"
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def answered(server: Server, name: str, data: bytes) -> tuple[str, list[dict[str, Any]]]:
    """What is said of an upload, in a sentence, and its crystals."""
    status, job = server.upload(name, data)
    if status != 202:
        return job["detail"], []
    done = server.finished(job["id"])
    said = done["detail"] or next(each["detail"] for each in done["crystals"] if each["status"] == "rejected")
    return said, done["crystals"]


@pytest.mark.parametrize("gigabytes", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [bomb, liar])
def test_a_small_archive_that_unpacks_to_gigabytes(server, make, gigabytes):
    data = make(gigabytes)
    assert len(data) < 2_000_000
    said, crystals = answered(server, "bomb.zip", data)
    assert said.endswith(".")
    assert {each["status"] for each in crystals} <= {"rejected"}
    assert server.json("/api/status")["complete"]


def test_a_member_that_leads_out_of_its_archive(server, folder, tmp_path):
    gold, elsewhere = cell("Au", 4.1), tmp_path / "evil.cif"
    data = archive(**{"../../../evil.cif": gold, str(elsewhere): gold, "good.cif": cell("Cu", 3.6)})
    said, crystals = answered(server, "paths.zip", data)
    assert said == "The member's name leads out of the archive."
    assert sorted((each["status"], each["reason"]) for each in crystals) == [
        *[("rejected", "unsafe_archive_member")] * 2,
        ("stable", None),
    ]
    assert not list(folder.parent.rglob("evil*"))
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    "name",
    [
        "x.pkl",
        "x.cif",
        "x.zip",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("x.pt", "x.json", "x.npz", "x.pkl.bz2")),
    ],
)
def test_a_pickle_is_not_run(server, tmp_path, name):
    data = pickle.dumps(Touches(tmp_path / "ran"))
    if name.endswith(".zip"):
        data = archive(**{"inner.pkl": data, "inner.pt": data})
    said, crystals = answered(server, name, bz2.compress(data) if name.endswith(".bz2") else data)
    assert said.endswith(".")
    assert {each["status"] for each in crystals} <= {"rejected"}
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_the_server_lives_and_so_does_its_next_start(tmp_path):
    folder, touched = tmp_path / "results", tmp_path / "ran"
    server = Server(folder, *OPTIONS)  # of its own, since it is killed
    answered(server, "bomb.zip", bomb(1))
    answered(server, "x.cif", pickle.dumps(Touches(touched)))
    _, job = server.upload("silver.cif", cell("Ag", 3.7))
    assert [each["status"] for each in server.finished(job["id"])["crystals"]] == ["stable"]
    server.kill()
    again = Server(folder, *OPTIONS)
    try:
        assert again.json(f"/api/uploads/{job['id']}")["state"] == "done"
        _, second = again.upload("nickel.cif", cell("Ni", 3.5))
        assert [each["status"] for each in again.finished(second["id"])["crystals"]] == ["stable"]
    finally:
        again.kill()
    assert not touched.exists()
