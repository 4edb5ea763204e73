from __future__ import annotations

import hashlib
import io
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch_sim as ts
from pymatgen.io.ase import AseAtomsAdaptor
from toy_potentials import Toy

from phononbench_flows import potentials
from phononbench_flows.potentials import Download, PotentialError, Source


def state_of(*structures) -> ts.SimState:
    return ts.io.structures_to_state(list(structures), device=torch.device("cpu"), dtype=torch.float64)


def test_default_and_names():
    assert potentials.DEFAULT == "mattersim-v1-5m"
    assert potentials.names()[:4] == ["mattersim-v1-5m", "mattersim-v1-1m", "sevennet-0", "sevennet-l3i5"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("nonsense", "sevennet-0"),
        ("no.such.module:thing", "cannot be imported"),
        ("toy_potentials:SIGMA", "potentials.Source"),
        ("missing.pth", "missing.pth"),
    ],
)
def test_what_cannot_be_found_says_what_to_do(name, word):
    with pytest.raises(PotentialError, match=word):
        potentials.load(name)


def test_missing_weights_end_at_once_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(potentials, "MATTERSIM_FOLDER", tmp_path)
    with pytest.raises(PotentialError, match="potentials fetch mattersim-v1-5m"):
        potentials.load("mattersim-v1-5m")
    assert "potentials fetch" in potentials.readiness("mattersim-v1-1m")


def test_half_a_checkpoint_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(potentials, "MATTERSIM_FOLDER", tmp_path)
    (tmp_path / "mattersim-v1.0.0-5M.pth").write_bytes(b"half a file")
    with pytest.raises(PotentialError, match="not the published checkpoint"):
        potentials.identify("mattersim-v1-5m")


@pytest.fixture
def offered(monkeypatch, tmp_path):
    """A potential whose weights lie behind a URL that the test answers."""
    path = tmp_path / "weights" / "x.pth"
    blob = hashlib.sha1(b"blob 5\0right").hexdigest()
    source = Source("x", lambda p, d: Toy(), lambda p: None, lambda: path, download=Download("https://x/x", blob))
    monkeypatch.setitem(potentials.BUILT_IN, "x", source)

    def answer(data: bytes | Exception) -> None:
        def urlopen(url, timeout):
            if isinstance(data, Exception):
                raise data
            return io.BytesIO(data)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)

    return path, answer


def test_fetch_is_whole_and_checked_or_not_at_all(offered):
    path, answer = offered
    answer(b"wrong")
    with pytest.raises(PotentialError, match="nothing was written"):
        potentials.fetch("x")
    answer(URLError("no network"))
    with pytest.raises(PotentialError, match="no network"):
        potentials.fetch("x")
    assert list(path.parent.iterdir()) == []
    answer(b"right")
    assert potentials.fetch("x") == path
    assert path.read_bytes() == b"right"
    assert [p.name for p in path.parent.iterdir()] == ["x.pth"]
    assert potentials.readiness("x") == "ready"
    with pytest.raises(PotentialError, match="nothing to download"):
        potentials.fetch("sevennet-0")


def test_an_installed_package_offers_a_potential(monkeypatch):
    class Entry:
        name = "theirs"

        def load(self):
            return Source("theirs", lambda p, d: Toy(), lambda p: None, settings="theirs")

    monkeypatch.setattr(potentials, "entry_points", lambda group: [Entry()])
    assert "theirs" in potentials.names()
    loaded = potentials.load("theirs", "cpu")
    assert loaded.checkpoint_sha256 == hashlib.sha256(b"theirs").hexdigest()
    assert loaded.elements is None


def test_float64_at_the_edge_of_a_float32_model(fcc, low_symmetry):
    single, double = potentials.load("toy_potentials:lj32", "cpu"), potentials.load("toy_potentials:lj", "cpu")
    assert (single.dtype, double.dtype) == ("float32", "float64")
    state = state_of(fcc, low_symmetry)
    output = single.model(state)
    assert {v.dtype for v in output.values()} == {torch.float64}
    assert state.positions.dtype == torch.float64
    assert torch.allclose(output["forces"], double.model(state)["forces"], atol=1e-3)


def test_a_checkpoint_may_not_run_code(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    potentials._load.cache_clear()
    with pytest.raises(PotentialError, match="unset"):
        potentials.load("toy_potentials:lj", "cpu")


@pytest.mark.sevennet
class TestSevenNet:
    @pytest.fixture(scope="class")
    def loaded(self):
        pytest.importorskip("sevenn")
        return potentials.load("sevennet-0", "cpu")

    def test_is_identified_by_its_checkpoint(self, loaded):
        path = potentials.identify("sevennet-0").path
        assert loaded.checkpoint_sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert len(loaded.elements) == 89
        assert loaded.dtype == "float32"

    def test_batched_forces_are_those_of_its_own_calculator(self, loaded, low_symmetry, cu3au):
        from sevenn.calculator import SevenNetCalculator

        output = loaded.model(state_of(low_symmetry, cu3au))
        calculator = SevenNetCalculator("7net-0", device="cpu")
        for structure, forces in zip((low_symmetry, cu3au), output["forces"].split(4), strict=True):
            atoms = AseAtomsAdaptor.get_atoms(structure)
            atoms.calc = calculator
            assert torch.allclose(forces, torch.tensor(atoms.get_forces(), dtype=torch.float64), atol=1e-4)

    def test_dense_crystals_are_not_refused(self, loaded, low_symmetry):
        dense = low_symmetry.copy()
        dense.scale_lattice(12.0)  # 3 Å^3 per atom: more neighbours than torch-sim's list allows for
        assert torch.isfinite(loaded.model(state_of(dense))["forces"]).all()
