from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.structure_matcher import StructureMatcher
from samples import CIF

from phononbench_flows.protocol import PRESETS
from phononbench_flows.structures import Parsed, ReferenceSet, content_hash, duplicates, load_reference, parse

PAPER = PRESETS["paper"]


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


def test_a_reference_is_asked_as_the_field_does_within_a_space_group(nacl: Structure) -> None:
    reference = ReferenceSet(PAPER)
    reference.add("halite", nacl)
    large = (nacl * (2, 1, 1)).scale_lattice(380)
    assert reference.find(large, 225) == "halite"
    assert reference.find(large, 221) is None
    cscl = Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert reference.find(cscl, 225) is None
    reference.add("cesium chloride", cscl)
    assert reference.find(cscl.scale_lattice(50), 221) == "cesium chloride"
    assert len(reference) == 2


def test_phases_of_a_perovskite_are_not_known_by_each_other() -> None:
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    cubic = Structure(Lattice.cubic(3.97), ["Pb", "Ti", "O", "O", "O"], sites)
    shifts = np.array([[0, 0, 0], [0, 0, 0.04], [0, 0, 0.11], [0, 0, 0.12], [0, 0, 0.12]])
    polar = Structure(Lattice.tetragonal(3.905, 4.156), cubic.species, sites + shifts)
    reference = ReferenceSet(PAPER)
    reference.add("cubic", cubic)
    assert reference.find(polar, 99) is None
    assert StructureMatcher().fit(cubic, polar)


def test_reference_skips_what_is_unusable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parsed in this process: workers take seconds to start, and have a test of their own.
    monkeypatch.setattr(
        duplicates, "parse_all", lambda raws: ((raw, raw.rejection or parse(raw.format, raw.data)) for raw in raws)
    )
    (tmp_path / "a.cif").write_text(CIF)
    (tmp_path / "bad.cif").write_text("x")
    reference = load_reference(tmp_path, PAPER)
    assert len(reference) == 1
    assert "1 left out" in caplog.text
    crystal = parse("cif", CIF.encode())
    assert isinstance(crystal, Parsed)
    assert reference.find(crystal.structure, 221) == "a"
