from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
import torch_sim as ts
from toy_potentials import Toy

from phononbench_flows import potentials
from phononbench_flows.potentials import Option, PotentialError, Source, loading, source
from phononbench_flows.potentials.potential import healthy_crystal


def state_of(*structures) -> ts.SimState:
    return ts.io.structures_to_state(list(structures), device=torch.device("cpu"), dtype=torch.float64)


@pytest.fixture
def adjustable(monkeypatch):
    """A potential with settings; what it was loaded with is kept."""
    asked: list[dict] = []

    def load(path, device, **settings):
        asked.append(settings)
        return Toy()

    options = {
        "fast": Option("faster", default=False),
        "cores": Option("on so many cores", default=1),
        "share": Option("of the memory", default=0.5),
        "mode": Option("of compiling", default="none", package="no_such_package", install="`pip install nothing`"),
        "on_gpu": Option("only there", default=False, gpu=True),
    }
    offered = Source("x", load, lambda path: None, settings="adjustable", options=options)
    monkeypatch.setitem(potentials.BUILT_IN, "adjustable", offered)
    loading._load.cache_clear()
    yield asked
    loading._load.cache_clear()


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
    loading._load.cache_clear()
    with pytest.raises(PotentialError, match="unset"):
        potentials.load("toy_potentials:lj", "cpu")


def test_settings_reach_the_model_and_the_record(adjustable):
    loaded = potentials.load("adjustable", "cpu", {"share": 1, "fast": True})
    assert adjustable == [{"fast": True, "share": 1.0}]
    assert loaded.settings == {"fast": True, "share": 1.0}
    record = loaded.record()
    assert record.settings == {"fast": True, "share": 1.0}
    assert type(record).model_validate_json(record.model_dump_json()) == record
    assert record.checkpoint_sha256 == potentials.identify("adjustable").sha256


def test_a_potential_is_loaded_once_for_the_same_settings(adjustable):
    plain = potentials.load("adjustable", "cpu")
    assert potentials.load("adjustable", "cpu", {}) is plain
    assert potentials.load("adjustable", "cpu", {"fast": False, "cores": 1}) is plain
    fast = potentials.load("adjustable", "cpu", {"fast": True, "cores": 2})
    assert fast is not plain
    assert potentials.load("adjustable", "cpu", {"cores": 2, "fast": True}) is fast
    assert adjustable == [{}, {"cores": 2, "fast": True}]
    assert plain.settings == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fats": True}, r"no setting fats: it has fast \(faster; false if not given\), cores"),
        ({"fast": 1}, "fast has to be of type bool, not 1: it has fast"),
        ({"cores": True}, "cores has to be of type int, not True"),
        ({"cores": 1.5}, "cores has to be of type int"),
        ({"share": "all"}, "share has to be of type float"),
        ({"mode": "max"}, "package no_such_package, which is not installed: `pip install nothing`"),
        ({"on_gpu": True}, "on_gpu needs a GPU"),
    ],
)
def test_settings_that_cannot_be_had_end_with_a_sentence(adjustable, settings, words):
    with pytest.raises(PotentialError, match=words):
        potentials.load("adjustable", "cpu", settings)
    assert adjustable == []


def test_a_potential_without_settings_says_so():
    with pytest.raises(PotentialError, match="toy_potentials:lj has no setting x: it has none"):
        potentials.load("toy_potentials:lj", "cpu", {"x": 1})


def test_settings_from_a_command_line():
    pairs = ["enable_cueq=true", "cores=2", "share=0.5", "mode=max=autotune", "empty=", "word='x'"]
    assert potentials.parse_settings(pairs) == {
        "enable_cueq": True,
        "cores": 2,
        "share": 0.5,
        "mode": "max=autotune",
        "empty": "",
        "word": "'x'",
    }
    assert potentials.parse_settings([]) == {}
    for pair, words in (("fast", "NAME=VALUE"), ("=1", "NAME=VALUE"), ("a=[1]", "a has to be"), ("a=null", "a has to")):
        with pytest.raises(PotentialError, match=words):
            potentials.parse_settings([pair])
    with pytest.raises(PotentialError, match="twice"):
        potentials.parse_settings(["a=1", "a=2"])


@pytest.mark.parametrize("name", ["sevennet-0", "mace-mpa-0-medium", "nequix-mp-1"])
def test_an_accelerator_that_is_not_installed_is_named_with_what_installs_it(monkeypatch, name):
    accelerators = {"cuequivariance_torch", "flashTP_e3nn", "openequivariance"}
    monkeypatch.setattr(source, "find_spec", lambda package: None if package in accelerators else sys.__spec__)
    options = [key for key, option in potentials.find_source(name).options.items() if option.accelerates]
    assert options
    for key in options:
        with pytest.raises(PotentialError, match=f"the setting {key} needs the package .* not installed: .+"):
            potentials.load(name, "cpu", {key: True})


class TestCheck:
    def test_a_healthy_model_passes(self):
        potentials.load("toy_potentials:lj", "cpu").check()
        potentials.load("toy_potentials:lj32", "cpu").check()

    def test_a_model_that_raises_or_is_not_finite_is_named(self):
        loaded = potentials.load("toy_potentials:lj", "cpu")

        def broken(state):
            raise RuntimeError("the GPU fell off the bus")

        with pytest.raises(PotentialError, match=r"toy_potentials:lj on cpu.* MgO.*the GPU fell off") as caught:
            replace(loaded, model=Toy(broken)).check()
        assert isinstance(caught.value.__cause__, RuntimeError)
        xenon = replace(loaded, elements=frozenset({"Xe"}))  # gives NaN
        with pytest.raises(PotentialError, match="forces that are not finite"):
            xenon.check()

    def test_calls_the_model_as_it_is_now(self, monkeypatch):
        loaded = potentials.load("toy_potentials:lj", "cpu")
        monkeypatch.setattr(Toy, "forward", lambda self, state: {"energy": torch.tensor([torch.inf])})
        with pytest.raises(PotentialError, match="energy that are not finite"):
            loaded.check()

    @pytest.mark.parametrize(
        ("elements", "formula"),
        [(None, "MgO"), ({"O", "Mg", "Cu"}, "MgO"), ({"Mg", "Cu"}, "Cu"), ({"Si"}, "Si"), ({"H", "Cs"}, "Cs")],
    )
    def test_the_crystal_is_one_that_the_potential_knows(self, elements, formula):
        atoms = healthy_crystal(elements and frozenset(elements))
        assert atoms.get_chemical_formula() == formula
        repeated = atoms * (2, 2, 2)
        assert 1.8 < repeated.get_distances(0, range(1, len(repeated)), mic=True).min() < 6
