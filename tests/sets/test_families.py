"""Families of crystals: what an unstable one leads to, over whichever ways."""

from __future__ import annotations

import pytest
from made_documents import make
from pymatgen.core import Lattice, Structure

from phononbench_flows.documents import FollowedRecord, Origin, RelaxationRecord, Symmetry
from phononbench_flows.results.query import CrystalQuery, criteria
from phononbench_flows.sets.children import child_id, leave_children
from phononbench_flows.sets.families import Lines, rms_distance, tell_families
from phononbench_flows.sets.set_names import children_of
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.followed import counts, followed_modes
from phononbench_flows.tables.rows import read_crystals

MINE = {"set": "S", "protocol_id": "p"}
HALITE = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        yield store


def put(store: ResultsStore, name: str, energy: float, status: str, parent: str | None = None, **more) -> None:
    """A relaxed crystal of energy in eV per atom; with a parent one of the children's set."""
    generation = name.count(".") if parent else None
    origin = Origin(parent=parent, root="S-a" if parent else None, generation=generation)
    relaxation = RelaxationRecord(
        steps=1, rounds=1, energy_per_atom=energy, max_force=0, max_stress=0, volume_change=0, refined=True
    )
    fields = {"id": name, "key": f"{name}@p", "set": children_of("S") if parent else "S", "origin": origin}
    fields |= {"status": status, "relaxation": relaxation, "symmetry_relaxed": Symmetry(symbol=f"G{abs(energy):g}")}
    fields |= {"relaxed_structure": HALITE.as_dict(), "formula_pretty": "NaCl", "timings": {"relaxation": 2.0}}
    store.put(make(1, **(fields | {"minimum": None, "assessments": []} | more)))


FOLLOWED = FollowedRecord(settings={}, sha256="0", seconds=1.0)


def family_of(store: ResultsStore, name: str = "S-a"):
    tell_families(store, MINE)
    found = store.get(f"{name}@p")
    assert found is not None
    return found.family


def test_the_lowest_stable_descendant_counts_with_the_way_to_it(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-a.1", -1.1, "unstable", "S-a", followed=FOLLOWED)
    put(store, "S-a.2", -1.05, "stable", "S-a")
    put(store, "S-a.1.1", -1.2, "stable", "S-a.1")
    found = family_of(store)
    assert (found.outcome, found.stable, found.path) == ("stable", "S-a.1.1", ["G1", "G1.1", "G1.2"])
    assert found.energy_gained == pytest.approx(0.2)
    assert (found.generations, found.n_descendants, found.descendants) == (2, 3, ["stable", "unstable"])
    assert found.seconds == pytest.approx(3 * 2.0 + 2 * 1.0)
    assert found.rmsd == pytest.approx(0, abs=1e-6)
    assert store.get("S-a.1@p").family is None


def test_what_lies_higher_or_where_it_was_does_not_count(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-a.1", -0.9, "stable", "S-a")
    put(store, "S-a.2", -1.0, "duplicate", "S-a", duplicate_of="S-a")
    found = family_of(store)
    assert (found.outcome, found.stable, found.n_descendants) == ("none", None, 2)


def test_a_child_that_is_a_crystal_of_the_set_leads_to_that(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-b", -1.3, "stable")
    put(store, "S-a.1", -1.3, "duplicate", "S-a", duplicate_of="S-b")
    found = family_of(store)
    assert (found.outcome, found.stable, found.in_set, found.generations) == ("stable", "S-b", "S-b", 1)
    described = counts(store.documents(MINE))
    assert (described.followed, described.different, described.new) == (1, 1, 0)


def test_who_waits_is_pending_whatever_else_there_is(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-a.1", -1.3, "stable", "S-a")
    put(store, "S-a.2", -1.3, "pending", "S-a")
    assert family_of(store).outcome == "pending"


def test_only_what_may_end_lower_than_a_stable_relative_is_followed(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-a.1", -1.2, "stable", "S-a")
    for name, energy in (("S-a.2", -1.3), ("S-a.3", -1.1), ("S-a.4", -0.9)):
        put(store, name, energy, "unstable", "S-a")
    lines = Lines.read(store, MINE)
    unstable = list(store.documents({"status": "unstable"}))
    assert sorted(each.id for each in unstable if lines.is_worth_following(each)) == ["S-a", "S-a.2"]


def test_children_are_of_no_generator_and_are_found_by_their_parents(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-b", -1.0, "unstable")
    put(store, "S-a.1", -1.3, "stable", "S-a")
    tell_families(store, MINE)
    assert set(read_crystals(store).rows["id"]) == {"S-a", "S-b"}
    assert set(read_crystals(store, sets=["S.children"]).rows["id"]) == {"S-a.1"}
    asked = criteria(CrystalQuery(statuses=["unstable"], has_child=["stable"]))
    assert [row["id"] for row in store.query(asked, ["id"])] == ["S-a"]
    [row] = followed_modes(store, ["S"], "p").to_dict("records")
    assert (row["followed"], row["leads_to_stable"], row["new"], row["stable_child"]) == (1, 1, 1, 1.0)


def test_what_was_made_of_an_earlier_state_of_a_crystal_counts_no_more(store):
    put(store, "S-a", -1.0, "unstable", followed=FOLLOWED)
    put(store, "S-a.1", -1.3, "unstable", "S-a")
    put(store, "S-a.1.1", -1.4, "stable", "S-a.1")
    leave_children(store, store.get("S-a@p"), unless="the relaxed crystal of now")
    assert store.count({"set": "S.children", "status": "gone"}) == 2
    assert family_of(store).outcome == "none"


def test_ids_tell_parent_protocol_and_mode_and_are_never_too_long():
    parent = make(1, id="S-a", key="S-a@p12345", protocol_id="p12345")
    assert child_id(parent, "q0m1a") == "S-a.p1234.q0m1a"
    child = make(1, id="S-a.p1234.q0m1a", key="c@p12345", protocol_id="p12345", origin=Origin(parent="S-a"))
    assert child_id(child, "strain1ap") == "S-a.p1234.q0m1a.strain1ap"
    long = make(1, id="x" * 120, key="c@p", origin=Origin(parent="S-a"))
    names = {child_id(long, way) for way in ("q0m1a", "q0m1b")}
    assert len(names) == 2
    assert all(len(name) <= 128 for name in names)


def test_atoms_that_move_in_another_cell_are_compared_with_where_they_were():
    moved = HALITE.copy()
    moved.translate_sites([0], [0.1, 0, 0], frac_coords=False)
    primitive = HALITE.get_primitive_structure()
    assert rms_distance(primitive, HALITE * (2, 1, 1)) == pytest.approx(0, abs=1e-6)
    # One of eight atoms by 0.1 Å, and all against their mean.
    assert rms_distance(primitive, moved) == pytest.approx(0.1 * (7 / 64) ** 0.5, rel=0.05)
