"""Crystals that have become the same by relaxing are told whenever somebody counts, in either store."""

from __future__ import annotations

from collections.abc import Iterator

import pymongo
import pytest
from made_documents import crystal_of, make
from pymatgen.core import Lattice, Structure
from screened import TOY, crystal_set, put_waiting

from phononbench_flows import potentials
from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import Protocol, ScreeningSettings
from phononbench_flows.results.bundle import pack
from phononbench_flows.run import run_here
from phononbench_flows.sets import relaxed
from phononbench_flows.sets.chunks import waiting_crystals
from phononbench_flows.sets.relaxed import compare_relaxed
from phononbench_flows.store import NotAllowedError, ResultsStore
from phononbench_flows.tables.frames import funnel_table
from phononbench_flows.tables.rows import read_crystals

MINE = {"set": "S", "protocol_id": "p"}


@pytest.fixture(params=["embedded", "mongo"])
def store(request: pytest.FixtureRequest, tmp_path) -> Iterator[ResultsStore]:
    place = tmp_path / "results"
    if request.param == "mongo":
        place = f"mongo:{request.getfixturevalue('mongo_database')}"
    with ResultsStore.open(place, create=True) as opened:
        yield opened


def halite(a: float) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def put(store: ResultsStore, protocol_id: str = "p", **structures: Structure) -> None:
    """Judged crystals, as workers leave them."""
    for name, structure in structures.items():
        found = {"relaxed_structure": structure.as_dict(), "formula_pretty": structure.reduced_formula}
        found |= {"symmetry_relaxed": {"number": 225, "symprec": 0.01}, "status": "stable", "nsites": len(structure)}
        found |= {"id": f"S-{name}", "key": f"S-{name}@{protocol_id}", "set": "S", "protocol_id": protocol_id}
        document = make(1, **found)
        store.put_crystals(crystal_of(document))
        store.put(document)


def same_as(store: ResultsStore) -> dict[str, str]:
    return {found.id: found.same_as for found in store.documents(MINE) if found.same_as}


def unique_relaxed(store: ResultsStore) -> int:
    [row] = funnel_table(read_crystals(store, sets=["S"])).to_dict("records")
    return row["unique_relaxed"]


def status(store: ResultsStore, name: str, new: str) -> None:
    found = store.get(f"S-{name}@p")
    store.put(found.model_copy(update={"status": new}))


def test_crystals_that_become_the_same_are_told_and_counted_once(store):
    put(store, a=halite(5.64), b=halite(5.69) * (1, 1, 2), c=halite(5.9), d=halite(5.66))
    store.put(make(2, id="S-e", key="S-e@p", protocol_id="p", set="S", formula_pretty="NaCl", status="pending"))
    assert compare_relaxed(store, MINE) == {"S-b@p": "S-a", "S-d@p": "S-a"}
    assert same_as(store) == {"S-b": "S-a", "S-d": "S-a"}
    assert store.get("S-b@p").status == Status.STABLE
    assert compare_relaxed(store, MINE) == {}
    # The first goes: the next stands for the others.
    status(store, "a", "gone")
    assert compare_relaxed(store, MINE) == {"S-b@p": None, "S-d@p": "S-b"}
    status(store, "d", "gone")
    status(store, "c", "gone")
    assert compare_relaxed(store, MINE) == {}
    status(store, "a", "stable")
    assert compare_relaxed(store, MINE) == {"S-b@p": "S-a"}


def test_a_report_counts_what_workers_have_finished_since_the_last_one(store):
    put(store, a=halite(5.64), b=halite(5.65), c=halite(5.9))
    assert unique_relaxed(store) == 2
    put(store, d=halite(5.66))
    assert unique_relaxed(store) == 2
    put(store, e=halite(6.1))
    assert unique_relaxed(store) == 3
    status(store, "a", "gone")
    assert unique_relaxed(store) == 3
    assert same_as(store) == {"S-d": "S-b"}


def test_a_bundle_says_what_is_the_same(store, tmp_path):
    put(store, Protocol().id_with("0" * 64), a=halite(5.64), b=halite(5.65))
    assert pack(store, "S", tmp_path / "s.zip").counts["relaxed_again"] == 1


def test_only_formulas_with_something_new_are_compared(store, monkeypatch):
    compared = []
    plain = relaxed._originals
    monkeypatch.setattr(relaxed, "_originals", lambda *given: compared.append(given[1][0].among[2]) or plain(*given))
    bromide = halite(5.97).copy()
    bromide.replace_species({"Cl": "Br"})
    put(store, a=halite(5.64), b=halite(5.9), c=bromide, d=bromide)
    before = {found.id: found.updated_at for found in store.documents(MINE)}
    assert unique_relaxed(store) == 3
    assert sorted(compared) == ["NaBr", "NaCl"]
    compared.clear()
    assert unique_relaxed(store) == 3
    assert not compared
    # That they were compared is no result: the rate of a running set, and what is newest, are as before.
    assert {found.id: found.updated_at for found in store.documents(MINE)} == before
    put(store, e=bromide)
    assert unique_relaxed(store) == 3
    assert compared == ["NaBr"]


def test_fields_are_set_whatever_else_is_written_meanwhile(store):
    put(store, a=halite(5.64), b=halite(5.65))
    status(store, "b", "undecided")
    before = store.get("S-b@p")
    store.set_fields({"S-b@p": {"same_as": "S-a"}, "nobody@p": {"same_as": "S-a"}})
    assert store.get("S-b@p") == before.model_copy(update={"same_as": "S-a"})
    assert store.count() == 2
    store.set_fields({})


def test_who_may_only_read_has_the_answer(mongo_password_server, monkeypatch):
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", mongo_password_server.uri)
    with ResultsStore.open("mongo:only_read") as store:
        put(store, a=halite(5.64), b=halite(5.65))
    with pymongo.MongoClient(mongo_password_server.uri) as client:
        client.admin.command("createUser", "reader", pwd="r", roles=[{"role": "read", "db": "only_read"}])
    reader = f"mongodb://reader:r@127.0.0.1:{mongo_password_server.port}/?authSource=admin"
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", reader)
    with ResultsStore.open("mongo:only_read") as store:
        assert unique_relaxed(store) == 1
        assert compare_relaxed(store, MINE) == {"S-b@p": "S-a"}
        assert same_as(store) == {}
        with pytest.raises(NotAllowedError, match="not authorized"):
            store.set_fields({"S-b@p": {"same_as": "S-a"}})


def test_the_distance_is_that_of_the_protocol_that_relaxed(tmp_path, fcc):
    """Without its end, which is what a cluster's run has not."""
    protocol = Protocol(name="narrow", screening=ScreeningSettings(same_distance_relaxed=1e-9))
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        for name, chosen in (("wide", Protocol()), ("narrow", protocol)):
            crystals = crystal_set(name, chosen)
            keys = put_waiting(store, crystals, {"a": fcc, "b": fcc.copy().scale_lattice(48)})
            run_here(waiting_crystals(store, crystals, keys), crystals, store, lambda: potentials.load(TOY, "cpu"))
            documents = list(store.documents(crystals.mine))
            assert {found.same_as for found in documents} == {None}
            distance = chosen.screening.same_distance_relaxed
            assert {found.relaxation.same_distance for found in documents} == {distance}
            [row] = funnel_table(read_crystals(store, sets=[name])).to_dict("records")
            assert row["relaxed"] == 2
            assert row["unique_relaxed"] == (1 if name == "wide" else 2)
