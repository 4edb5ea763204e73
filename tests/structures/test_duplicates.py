from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher
from samples import CIF

from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import Matcher, Parsed, content_hash, duplicates, load_reference, parse, read_inputs

RULES = ScreeningSettings()


def test_hash_ignores_order_images_and_noise(nacl: Structure) -> None:
    order = list(range(len(nacl)))
    random.Random(0).shuffle(order)
    noise = np.random.default_rng(0).normal(0, 1e-10, (len(nacl), 3))
    same = Structure(
        Lattice(nacl.lattice.matrix + 1e-10),
        [nacl[i].specie for i in order],
        [nacl[i].frac_coords + 3 + noise[i] for i in order],
    )
    assert content_hash(same) == content_hash(nacl)


def test_hash_tells_crystals_apart(nacl: Structure) -> None:
    moved = nacl.copy()
    moved.translate_sites([0], [1e-4, 0, 0])
    stretched = nacl.copy()
    stretched.apply_strain([0.001, 0, 0])
    other = nacl.copy()
    other.replace_species({"Na": "K"})
    assert len({content_hash(s) for s in (nacl, moved, stretched, other)}) == 4


def test_duplicates_are_found(nacl: Structure) -> None:
    matcher = Matcher(RULES)
    assert matcher.find(nacl) is None
    assert matcher.find_or_add("a", nacl) is None
    large = nacl * (2, 1, 1)
    large.perturb(0.02)
    order = list(range(len(large)))
    random.Random(0).shuffle(order)
    assert matcher.find_or_add("b", Structure.from_sites([large[i] for i in order])) == "a"
    cscl = Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert matcher.find(cscl) is None
    matcher.add("c", cscl)
    assert matcher.find(cscl.scale_lattice(50)) == "c"
    assert len(matcher) == 2


def test_same_as_plain_structure_matcher(shared_data: Path) -> None:
    """Reducing once and comparing within groups changes no answer."""
    raws = itertools.islice(read_inputs([shared_data / "generated" / "MatterGen"]), 0, 250, 10)
    crystals = [p.structure for raw in raws if isinstance(p := parse(raw.format, raw.data), Parsed)]
    plain, chance, same = StructureMatcher(), random.Random(0), 0
    for crystal in crystals:
        changed = crystal * chance.choice([(1, 1, 1), (2, 1, 1)])
        changed.perturb(chance.choice([0.05, 0.5, 1.0]))
        matcher = Matcher(RULES)
        matcher.add("it", crystal)
        found = matcher.find(changed) == "it"
        assert found == plain.fit(crystal, changed)
        same += found
    assert 0 < same < len(crystals)


def test_comparisons_grow_linearly(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    plain = StructureMatcher.fit

    def counted(*args: object, **kwargs: object) -> bool:
        nonlocal compared
        compared += 1
        return plain(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(StructureMatcher, "fit", counted)
    elements = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Al", "Ga", "In", "Si", "Ge", "Sn", "P", "As"]
    elements += ["Sb", "O", "S", "Se", "Te", "F", "Cl", "Br", "I"]
    triples = list(itertools.islice(itertools.combinations(elements, 3), 1000))
    matcher = Matcher(RULES)
    repeats = 0
    for index, species in enumerate(triples * 2):
        coordinates = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        crystal = Structure(Lattice.tetragonal(4, 5), list(species), coordinates)
        repeats += matcher.find_or_add(str(index), crystal) is not None
    assert repeats == len(triples)
    assert compared == len(triples)


def test_reference_skips_what_is_unusable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parsed in this process: workers take seconds to start, and have a test of their own.
    monkeypatch.setattr(
        duplicates, "parse_all", lambda raws: ((raw, raw.rejection or parse(raw.format, raw.data)) for raw in raws)
    )
    (tmp_path / "a.cif").write_text(CIF)
    (tmp_path / "bad.cif").write_text("x")
    reference = load_reference(tmp_path, RULES)
    assert len(reference) == 1
    assert "1 left out" in caplog.text
    crystal = parse("cif", CIF.encode())
    assert isinstance(crystal, Parsed)
    assert reference.find(crystal.structure) == "a"
