"""The same crystals under other names fall into the same groups, through all of a screening and an ingest."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from second_runs import crystal_set, documents, run

from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.looking import look
from phononbench_flows.store import ResultsStore

pytestmark = pytest.mark.usefixtures("parsed_here")

Groups = set[frozenset[str]]


def rutile(x: float) -> Structure:
    return Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [x, x, 0]])


def tetragonal(c_over_a: float) -> Structure:
    a = (28.0 / c_over_a) ** (1 / 3)
    return Structure(Lattice.tetragonal(a, a * c_over_a), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def shifted(crystal: Structure) -> Structure:
    """The same in a larger cell, from another origin, its sites in another order."""
    found = (crystal * (1, 2, 1)).get_sorted_structure(key=lambda site: -site.frac_coords[2])
    found.translate_sites(range(len(found)), [0.1, 0.2, 0.3])
    return found


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Two chains in which each crystal is the same as the next, and the first not the same as the last."""
    found = {f"rutile {n}": rutile(0.30 + 0.0046 * n) for n in range(7)}
    found |= {f"CuAu {n}": tetragonal(1 + 0.002 * n) for n in range(6)}
    found |= {f"{name} again": shifted(found[name]) for name in ("rutile 0", "rutile 3", "CuAu 5")}
    found["CuAu too close"] = Structure(Lattice.cubic(3), ["Cu", "Au"], [[0, 0, 0], [0.05, 0, 0]])
    return {name: str(CifWriter(structure)) for name, structure in found.items()} | {"no CIF": "hello"}


def groups(repeated: Iterable[tuple[str, str]]) -> Groups:
    found = defaultdict(set)
    for content, original in repeated:
        found[original].add(content)
    return {frozenset(members) for members in found.values()}


def screened(folder: Path, contents: Mapping[str, str]) -> Groups:
    """What of the folder's crystals is the same, by what ``screen`` says; the original is the first by name."""
    found = look([folder], PRESETS["paper"])
    for each in found:
        assert each.duplicate_of is None or each.duplicate_of < each.label
    usable = [each for each in found if each.outcome != "rejected"]
    assert len(found) - len(usable) == 2
    return groups((contents[each.label], each.duplicate_of or each.label) for each in usable)


def ingested(folder: Path, contents: Mapping[str, str], place: Path) -> Groups:
    """The same by what a run leaves in a store."""
    with ResultsStore.open(place, create=True) as store:
        run([folder], store)
        found = documents(store, crystal_set())
    assert all(each["duplicate_of"] is None or each["duplicate_of"] < name for name, each in found.items())
    usable = {name: each for name, each in found.items() if each["status"] != "rejected"}
    assert len(found) - len(usable) == 2
    return groups((contents[name.removeprefix("S-")], each["duplicate_of"] or name) for name, each in usable.items())


@pytest.mark.parametrize("shuffles", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_shuffled_names(tmp_path, texts, shuffles):
    chance, seen = random.Random(shuffles), set()
    for number in range(shuffles):
        names = [f"{n:02}" for n in range(len(texts))]
        contents = dict(zip(chance.sample(names, len(names)), texts, strict=True))
        folder = tmp_path / f"{number}"
        folder.mkdir()
        for name, content in contents.items():
            (folder / f"{name}.cif").write_text(texts[content])
        found = screened(folder, contents)
        assert ingested(folder, contents, tmp_path / f"results-{number}") == found
        seen.add(frozenset(found))
        shutil.rmtree(tmp_path / f"results-{number}")
    [expected] = seen
    assert 4 <= len(expected) < len(texts) - 6
