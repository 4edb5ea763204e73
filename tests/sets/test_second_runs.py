"""Runs into results that are there: whatever was changed, renamed, removed or added, they say what a fresh run says."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from made_documents import make
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from second_runs import as_fresh, counts, crystal_set, documents, run

from phononbench_flows.sets.ingest import ingest
from phononbench_flows.store import ResultsStore

pytestmark = pytest.mark.usefixtures("parsed_here")


def halite(a: float, anion: str = "Cl") -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Na", anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


CONTENTS = {
    "small": halite(5.64),
    "small, primitive": halite(5.64).get_primitive_structure(),
    "small, noisy": halite(5.645) * (1, 1, 2),
    "large": halite(5.9),
    "other": halite(5.64, "Br"),
    "other, twice": halite(5.64, "Br") * (2, 1, 1),
    "too close": Structure(Lattice.cubic(3), ["Na", "Cl"], [[0, 0, 0], [0.02, 0, 0]]),
}


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        yield store


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: str(CifWriter(structure)) for name, structure in CONTENTS.items()} | {"no CIF": "hello"}


class Folder:
    """Files by name, with contents by name."""

    def __init__(self, path: Path, texts: dict[str, str]) -> None:
        self.path, self.texts = path, texts
        path.mkdir()

    def put(self, **contents: str) -> None:
        for name, content in contents.items():
            (self.path / f"{name}.cif").write_text(self.texts[content])

    def remove(self, *names: str) -> None:
        for name in names:
            (self.path / f"{name}.cif").unlink()


@pytest.fixture
def folder(tmp_path, texts) -> Folder:
    return Folder(tmp_path / "crystals", texts)


def outcomes(store: ResultsStore) -> dict[str, str]:
    """Status by id, or what it repeats."""
    return {name: found["duplicate_of"] or found["status"] for name, found in documents(store).items()}


def test_when_the_original_changes_its_duplicate_is_screened_again(store, folder, tmp_path):
    folder.put(a="small", b="small, primitive", c="large")
    run([folder.path], store)
    assert outcomes(store) == {"S-a": "pending", "S-b": "S-a", "S-c": "pending"}
    folder.put(a="other")
    found = run([folder.path], store)
    assert (found.new, found.changed_ids, found.gone_ids, found.again_ids) == (0, ("S-a",), (), ("S-b",))
    assert outcomes(store) == dict.fromkeys(("S-a", "S-b", "S-c"), "pending")
    as_fresh([folder.path], store, tmp_path / "fresh")


def test_when_the_original_goes_so_is_its_duplicate_and_it_is_told(store, folder, tmp_path):
    folder.put(a="small", b="small, primitive", c="small, noisy")
    run([folder.path], store)
    folder.remove("a")
    found = run([folder.path], store)
    assert (found.gone_ids, found.again_ids) == (("S-a",), ("S-b", "S-c"))
    assert outcomes(store) == {"S-b": "pending", "S-c": "S-b"}
    assert (counts(store).generated, counts(store).gone) == (2, 1)
    gone = store.get(f"S-a@{crystal_set().protocol_id}")
    assert (gone.status, gone.gone) == ("gone", "its file is no longer there")
    as_fresh([folder.path], store, tmp_path / "fresh")


def test_what_comes_back_is_as_it_was(store, folder, tmp_path):
    folder.put(a="small", b="large", c="no CIF", d="too close", e="small, noisy")
    run([folder.path], store)
    key = f"S-b@{crystal_set().protocol_id}"
    judged = store.get(key)
    computed = {name: getattr(make(3), name) for name in ("assessments", "evidence", "minimum", "stage")}
    store.put(judged.model_copy(update=computed | {"status": "stable"}))
    before = documents(store)
    moved = folder.path.rename(tmp_path / "away")
    folder.path.mkdir()
    folder.put(z="other")
    assert len(run([folder.path], store).gone_ids) == 5
    assert set(documents(store)) == {"S-z"}
    shutil.rmtree(folder.path)
    moved.rename(folder.path)
    run([folder.path], store)
    assert documents(store) == before


def test_a_first_name_that_comes_later_is_the_original_of_a_fresh_run(store, folder, tmp_path):
    folder.put(b="small", c="small, primitive")
    run([folder.path], store)
    folder.put(a="small, noisy")
    found = run([folder.path], store)
    assert found.again_ids == ("S-b", "S-c")
    assert outcomes(store) == {"S-a": "pending", "S-b": "S-a", "S-c": "S-a"}
    as_fresh([folder.path], store, tmp_path / "fresh")


def test_a_renamed_folder_holds_the_same_crystals(store, folder, tmp_path):
    folder.put(a="small", b="other")
    run([folder.path], store)
    moved = folder.path.rename(tmp_path / "renamed")
    found = run([moved], store)
    assert (found.new, found.changed, found.gone_ids) == (0, 0, ())
    as_fresh([moved], store, tmp_path / "fresh")


def test_other_inputs_leave_what_is_there(store, folder, tmp_path, texts):
    folder.put(a="small")
    run([folder.path], store)
    later = Folder(tmp_path / "later", texts)
    later.put(z="small, primitive")
    assert run([later.path], store).gone_ids == ()
    assert outcomes(store) == {"S-a": "pending", "S-z": "S-a"}
    folder.remove("a")
    assert run([later.path], store).gone_ids == ("S-a",)
    assert outcomes(store) == {"S-z": "pending"}


def test_with_a_limit_nothing_is_gone_that_was_not_looked_for(store, folder):
    folder.put(a="small", b="other", c="large")
    run([folder.path], store)
    assert ingest([folder.path], crystal_set(), store, limit=1).gone_ids == ()
    assert counts(store).pending == 3


def test_members_of_archives_and_rows_of_tables_go_as_files_do(store, tmp_path, texts):
    table = tmp_path / "table.csv"
    rows = [f'{name},"{texts[name]}"' for name in ("small", "large")]
    table.write_text("\n".join(["id,cif", *rows]))
    run([table], store)
    table.write_text("\n".join(["id,cif", *rows[:1]]))
    assert run([table], store).gone_ids == ("S-large",)
    as_fresh([table], store, tmp_path / "fresh")


def test_any_history_ends_as_a_fresh_run(folder, tmp_path, texts):
    chance = random.Random(5)
    for story in range(4):
        with ResultsStore.open(tmp_path / f"results-{story}", create=True) as store:
            for _ in range(4):
                for name in "abcdef":
                    act = chance.random()
                    if act < 0.3:
                        (folder.path / f"{name}.cif").unlink(missing_ok=True)
                    elif act < 0.8:
                        folder.put(**{name: chance.choice(sorted(texts))})
                folder.put(g="small")
                run([folder.path], store)
                assert counts(store).generated == len(list(folder.path.iterdir()))
            as_fresh([folder.path], store, tmp_path / f"fresh-{story}")


def test_a_killed_ingest_is_gone_on_with(store, folder, tmp_path, monkeypatch):
    folder.put(a="small", b="small, primitive", c="large")
    with monkeypatch.context() as killed:
        killed.setattr("phononbench_flows.sets.ingest.settle", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run([folder.path], store)
    assert set(outcomes(store).values()) == {"pending"}
    assert store.count({"stage": "screened"}) == 0  # nothing of it would be computed
    run([folder.path], store)
    as_fresh([folder.path], store, tmp_path / "fresh")


def test_a_second_potential_shares_the_crystals_and_leaves_them_alone(store, folder):
    folder.put(a="small", b="small, primitive")
    run([folder.path], store)
    before = store.crystal("S-a")
    other = crystal_set(potential="another")
    ingest([folder.path], other, store)
    assert store.crystal("S-a") == before
    assert {found["status"] for found in documents(store, other).values()} == {"pending", "duplicate"}
    # A changed file is another crystal, and what the first potential said of the old one is said of nothing any more.
    folder.put(a="large")
    ingest([folder.path], other, store)
    [old] = store.documents(crystal_set().mine | {"id": "S-a"})
    assert (old.status, old.gone) == ("gone", "its file has changed since")
    run([folder.path], store)
    assert outcomes(store) == {"S-a": "pending", "S-b": "pending"}


def test_numbers_that_no_store_takes_reject_their_crystal_alone(store, tmp_path):
    lattice = {"nan": "nan 0 0", "inf": "0 1e999 0", "huge": "9" * 400 + " 0 0", "fine": "5.64 0 0"}
    names = []
    for name, vector in lattice.items():
        path = tmp_path / f"{name}.vasp"
        path.write_text(f"x\n1.0\n{vector}\n0 5.64 0\n0 0 5.64\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n")
        names.append(path)
    run(names, store)
    found = documents(store)
    assert {name: each["status"] for name, each in found.items()} == {
        "S-nan.vasp": "rejected", "S-inf.vasp": "rejected", "S-huge.vasp": "rejected", "S-fine.vasp": "pending",
    }  # fmt: skip
    assert store.crystal("S-inf.vasp").structure is None


def test_names_that_are_no_unicode_are_kept_as_escapes(store, folder):
    folder.put(a="small")
    odd = Path(str(folder.path / "a.cif")).rename(folder.path / "\udcff\n.cif")
    run([folder.path], store)
    [found] = documents(store).values()
    assert found["origin"]["source"].endswith("\\xff\\n.cif")
    assert odd.exists()
    # Such a name cannot be looked for: where its folder is not read again, it does not count as gone.
    other = folder.path.parent / "other"
    other.mkdir()
    (other / "z.cif").write_bytes(odd.read_bytes())
    assert ingest([other], crystal_set(), store).gone_ids == ()
