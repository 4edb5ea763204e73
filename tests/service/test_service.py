"""The web application without a browser: the table against the store, downloads, access, and uploads."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import phonopy
import pytest
import synthetic
import yaml
from pymatgen.core import Structure
from serving import Server

from phononbench_flows.engine.force_constants import ForceConstants
from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.results.export import json_line
from phononbench_flows.results.query import CrystalQuery, Range, criteria
from phononbench_flows.service.live import LiveTable
from phononbench_flows.service.selection import chosen, ordered
from phononbench_flows.store import ResultsStore

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store")
    synthetic.fill(path, 300).close()
    return path


@pytest.mark.parametrize(
    "question",
    [
        CrystalQuery(),
        CrystalQuery(statuses=["stable", "failed"], sets=["Alpha"]),
        CrystalQuery(all_of=["O"], none_of=["U"]),
        CrystalQuery(any_of=["U", "La"], natoms=Range(3, 8)),
        CrystalQuery(only=["O", "Li", "F"], nelements=Range(None, 2)),
        CrystalQuery(crystal_systems=["cubic"], published="unstable"),
        CrystalQuery(space_groups=["Fm-3m", 62], published="stable"),
        CrystalQuery(reasons=["unparsable"]),
        CrystalQuery(formulas=["LiF", "O2"], disputed=False),
    ],
)
def test_the_table_answers_as_the_store(folder, question):
    with ResultsStore.open(folder) as store:
        live = LiveTable(store)
        live.refresh()
        rows = ordered(live.table, chosen(live.table, question))
        expected = [found["key"] for found in store.query(criteria(question), ["key"], sort={"id": 1})]
        assert [live.table.keys[row] for row in rows] == expected


def test_a_store_that_changes_is_followed(tmp_path):
    with synthetic.fill(tmp_path, 40) as store:
        live = LiveTable(store)
        live.refresh()
        document = next(store.documents({"status": "stable"}))
        document.status = "unstable"
        store.put(document)
        live.refresh()
        place = live.table.keys.index(document.key)
        assert live.table.row(place)["status"] == "unstable"
        assert len(live.table) == 40


def test_pages_of_the_table(server):
    first = server.json("/api/crystals?set=Alpha&sort=lowest&per_page=7")
    second = server.json("/api/crystals?set=Alpha&sort=lowest&per_page=7&page=2")
    lowest = [row["lowest"] for row in first["rows"] + second["rows"]]
    assert first["found"] == 100
    assert lowest == sorted(lowest)
    assert server.open("/api/crystals?natoms=x")[0] == 400
    assert server.open("/api/crystals?sort=x")[0] == 400
    assert server.open("/api/crystals?elements=Xx")[0] == 400


def test_downloads_are_what_the_store_holds(server, folder):
    with ResultsStore.open(folder) as store:
        documents = list(store.documents({"set": "Alpha", "status": "stable"}, sort={"id": 1}))
    lines = server.open("/api/download/json?set=Alpha&status=stable")[1].decode()
    assert lines == "".join(map(json_line, documents))
    rows = list(csv.DictReader(io.StringIO(server.open("/api/download/csv?set=Alpha&status=stable")[1].decode())))
    assert [row["id"] for row in rows] == [document.id for document in documents]
    with zipfile.ZipFile(io.BytesIO(server.open("/api/download/cif?set=Alpha&status=stable")[1])) as archive:
        for document in documents:
            read = Structure.from_str(archive.read(f"{document.id}.cif").decode(), "cif")
            assert read.matches(Structure.from_dict(document.relaxed_structure), scale=False, attempt_supercell=False)
    with zipfile.ZipFile(io.BytesIO(server.open("/api/download/poscar?set=Alpha&status=stable")[1])) as archive:
        assert len(archive.namelist()) == len(documents)
        for document in documents:
            read = Structure.from_str(archive.read(f"{document.id}.vasp").decode(), "poscar")
            ours = Structure.from_dict(document.relaxed_structure).get_sorted_structure()
            assert read.species == ours.species
            np.testing.assert_allclose(read.lattice.matrix, ours.lattice.matrix, atol=1e-12)
            np.testing.assert_allclose(read.frac_coords, ours.frac_coords, atol=1e-12)


@pytest.mark.parametrize("largest", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_downloads_of_phonons_are_what_the_store_holds(server, folder, tmp_path, largest):
    found = f"set=Alpha&status=unstable&natoms=2:{largest}"
    question = CrystalQuery(sets=["Alpha"], statuses=["unstable"], natoms=Range(2, largest))
    kept = []
    with ResultsStore.open(folder) as store:
        documents = list(store.documents(criteria(question), sort={"id": 1}))
        for document in documents:  # whose bands are made up, and not those of their force constants
            constants = ForceConstants.from_arrays(store.blobs.get(document.arrays["force_constants"]))
            bands = spectrum(constants.phonopy(), synthetic.PROTOCOL.spectrum).bands
            document.arrays["band_structure"] = store.blobs.put(bands.arrays())
            store.put(document)
            kept.append((constants, bands))
    assert len(documents) > 1
    with zipfile.ZipFile(io.BytesIO(server.open(f"/api/download/phonopy?{found}")[1])) as archive:
        for place, (name, (constants, _)) in enumerate(zip(archive.namelist(), kept, strict=True)):
            assert name.startswith(documents[place].id)
            path = tmp_path / f"{place}.yaml"
            path.write_bytes(archive.read(name))
            read, ours = phonopy.load(path, log_level=0), constants.phonopy()
            points = [[0, 0, 0], [0.5, 0, 0], [0.1, 0.2, 0.3]]
            frequencies = [each.run_qpoints(points).frequencies for each in (read, ours)]
            np.testing.assert_allclose(*frequencies, atol=1e-6)
    with zipfile.ZipFile(io.BytesIO(server.open(f"/api/download/band?{found}")[1])) as archive:
        for place, (name, (_, bands)) in enumerate(zip(archive.namelist(), kept, strict=True)):
            assert name.startswith(documents[place].id)
            read = yaml.load(archive.read(name), yaml.CSafeLoader)["phonon"]
            frequencies = [[mode["frequency"] for mode in point["band"]] for point in read]
            np.testing.assert_allclose(frequencies, np.concatenate(bands.frequencies), atol=1e-6)


def test_nobody_of_elsewhere_is_let_in(server):
    assert server.open("/api/status", Host="evil.example")[0] == 421
    assert server.open("/api/uploads?name=a.cif", b"x", Origin="http://evil.example")[0] == 403
    headers = server.open("/")[2]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"].split("script-src")[1].split(";")[0]


def test_a_token_is_asked_for(folder):
    server = Server(folder, "--host", "0.0.0.0", token="secret")
    try:
        assert server.open("/api/status")[0] == 401
        assert server.open("/api/status", Authorization="Bearer wrong")[0] == 401
        assert server.open("/api/status", Cookie="phononbench_token=secret")[0] == 200
    finally:
        server.kill()


@pytest.mark.slow
def test_uploads_become_verdicts_and_survive_a_kill(tmp_path):
    options = ("--potential", "toy_potentials:lj", "--protocol", "paper", "--max-atoms", "20", "--max-megabytes", "1")
    copper = Structure.from_spacegroup("Fm-3m", [[3.6, 0, 0], [0, 3.6, 0], [0, 0, 3.6]], ["Cu"], [[0, 0, 0]])
    server = Server(tmp_path, *options)
    status, job = server.upload("../<script>alert(1)</script>.cif", copper.to(fmt="cif").encode())
    assert status == 202
    assert not list(tmp_path.rglob("*<*"))
    done = server.finished(job["id"])
    assert (done["state"], [each["status"] for each in done["crystals"]]) == ("done", ["stable"])

    silver = Structure.from_spacegroup("Fm-3m", [[3.7, 0, 0], [0, 3.7, 0], [0, 0, 3.7]], ["Ag"], [[0, 0, 0]])
    _, second = server.upload("silver.cif", silver.to(fmt="cif").encode())
    server.kill()
    server = Server(tmp_path, *options)
    assert [each["status"] for each in server.finished(second["id"])["crystals"]] == ["stable"]

    gold = Structure.from_spacegroup("Fm-3m", [[4.1, 0, 0], [0, 4.1, 0], [0, 0, 4.1]], ["Au"], [[0, 0, 0]])
    for repeats in ([2, 2, 2], [14, 14, 13]):  # more than this server takes, and than any does: 10,192
        large = gold.make_supercell(repeats, in_place=False)
        _, third = server.upload("large.vasp", large.to(fmt="poscar").encode())
        assert [each["reason"] for each in server.finished(third["id"])["crystals"]] == ["too_many_atoms"]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.cif", b"0" * 50_000_000)
    _, fourth = server.upload("bomb.zip", bomb.getvalue())
    found = server.finished(fourth["id"])
    assert [each["status"] for each in found["crystals"]] == ["rejected"]
    assert server.upload("huge.cif", b"x" * 1_000_001)[0] == 413
    assert server.upload("paths.txt", b"/etc/passwd")[0] == 415
    assert server.upload("code.pkl", b"x")[0] == 415
    server.kill()
