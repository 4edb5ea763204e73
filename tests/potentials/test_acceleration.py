from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
import torch_sim as ts
from torch_sim.models.interface import ModelInterface
from toy_potentials import Toy

from phononbench_flows import potentials
from phononbench_flows.potentials import Option, PotentialError, Source, loading
from phononbench_flows.potentials.acceleration import PLAIN, FastestForm, forms
from phononbench_flows.potentials.settings import ACCELERATE, ACCELERATION

SLOW, QUICK = 0.05, 0.0  # s


class Altered(ModelInterface):
    """The toy, slower and altered; from a call on it may break."""

    def __init__(self, seconds: float = QUICK, alter=lambda output: output, breaks_at: int = 10**6, error=RuntimeError):
        super().__init__()
        self.toy = Toy()
        self._device, self._dtype = self.toy.device, self.toy.dtype
        self._compute_stress = self._compute_forces = True
        self.seconds, self.alter, self.breaks_at, self.error, self.calls = seconds, alter, breaks_at, error, 0

    def forward(self, state: ts.SimState, **kwargs) -> dict[str, torch.Tensor]:
        self.calls += 1
        if self.calls >= self.breaks_at:
            raise self.error("no kernel for this")
        time.sleep(self.seconds)
        return self.alter(dict(self.toy(state)))


def off_by(size: float, key: str = "forces"):
    """An answer of which one number is wrong by so much."""

    def alter(output: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        wrong = output[key].clone()
        wrong.view(-1)[0] += size
        return output | {key: wrong}

    return alter


@pytest.fixture
def state(fcc, low_symmetry) -> ts.SimState:
    return ts.io.structures_to_state([fcc, low_symmetry], device=torch.device("cpu"), dtype=torch.float64)


def chosen(state: ts.SimState, **others: Altered) -> FastestForm:
    model = FastestForm(Altered(SLOW), {name: lambda each=each: each for name, each in others.items()}, patience=0)
    assert torch.equal(model(state)["forces"], Toy()(state)["forces"])
    return model


def test_the_fastest_form_that_gives_the_same_is_used(state):
    model = chosen(state, slower=Altered(2 * SLOW), quick=Altered(QUICK), fair=Altered(SLOW / 2))
    assert model.form == "quick"
    assert model.measured["quick"] < model.measured[PLAIN] < model.measured["slower"]
    plain = model._plain
    calls = plain.calls
    model(state)
    assert plain.calls == calls


@pytest.mark.parametrize("alter", [off_by(2e-4), off_by(float("nan")), off_by(0.01, "energy"), off_by(2e-5, "stress")])
def test_a_form_that_gives_anything_else_is_not_used(state, alter):
    model = chosen(state, quick=Altered(QUICK, alter))
    assert model.form == PLAIN
    assert "differ by" in model.measured["quick"]


def test_rounding_is_no_difference(state):
    assert chosen(state, quick=Altered(QUICK, off_by(5e-5))).form == "quick"


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
@pytest.mark.parametrize("breaks_at", [1, 2])
def test_a_form_that_cannot_compute_is_not_used(state, error, breaks_at):
    model = chosen(state, quick=Altered(QUICK, breaks_at=breaks_at, error=error))
    assert model.form == PLAIN
    assert "no kernel for this" in model.measured["quick"]
    assert torch.equal(model(state)["forces"], Toy()(state)["forces"])


def test_a_form_that_cannot_be_loaded_is_not_used(state):
    def load() -> ModelInterface:
        raise PotentialError("there is no compiler")

    model = FastestForm(Altered(), {"quick": load}, patience=0)
    model(state)
    assert (model.form, model.measured["quick"]) == (PLAIN, "PotentialError: there is no compiler")


def test_one_that_breaks_later_gives_way_to_the_plain_model(state):
    model = chosen(state, quick=Altered(QUICK, breaks_at=6))
    assert model.form == "quick"
    assert torch.equal(model(state)["forces"], Toy()(state)["forces"])
    assert model.form == PLAIN


def test_memory_that_runs_out_is_left_to_smaller_batches(state):
    model = chosen(state, quick=Altered(QUICK, breaks_at=6, error=torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        model(state)
    assert model.form == "quick"


def test_what_cannot_be_computed_at_all_tells_nothing(low_symmetry, fcc):
    bad = fcc.copy()
    bad.replace(0, "Xe")  # the toy gives NaN
    both = ts.io.structures_to_state([bad, low_symmetry], device=torch.device("cpu"), dtype=torch.float64)
    model = FastestForm(Altered(SLOW), {"quick": Altered}, patience=0)
    model(both)
    assert model.form == "quick"


def test_nothing_is_measured_early_or_on_a_small_batch(state, fcc):
    small = ts.io.structures_to_state([fcc], device=torch.device("cpu"), dtype=torch.float64)
    model = FastestForm(Altered(SLOW), {"quick": Altered}, patience=0.05)
    model(state)
    assert not model.measured
    time.sleep(0.05)
    model(small if 2 * small.n_atoms < state.n_atoms else ts.SimState(**_first_atom(small)))
    assert not model.measured
    model(state)
    assert model.form == "quick"


def _first_atom(state: ts.SimState) -> dict[str, torch.Tensor]:
    return {
        "positions": state.positions[:1],
        "masses": state.masses[:1],
        "cell": state.cell[:1],
        "pbc": state.pbc,
        "atomic_numbers": state.atomic_numbers[:1],
        "system_idx": state.system_idx[:1],
    }


OPTIONS = {
    "quick": Option("faster", default=False, accelerates=True),
    "on_gpu": Option("faster there", default=False, gpu=True, accelerates=True),
    "missing": Option("faster", default=False, accelerates=True, package="no_such_package"),
    "cores": Option("not faster code", default=1),
    ACCELERATE: ACCELERATION,
}


def test_what_is_tried_where():
    source = Source("x", lambda *_: Toy(), lambda _: None, options=OPTIONS)
    assert forms(source, {}, "cpu", "auto") == []
    assert forms(source, {}, "cpu", "measure") == ["quick"]
    assert forms(source, {"cores": 2}, "cuda:0", "auto") == ["quick", "on_gpu"]
    assert forms(source, {}, "cuda", "never") == []
    assert forms(source, {"quick": True}, "cuda", "auto") == []  # what the user chose stands
    assert forms(replace(source, options={}), {}, "cuda", "measure") == []


@pytest.fixture
def adjustable(monkeypatch):
    monkeypatch.setattr("phononbench_flows.potentials.acceleration.PATIENCE", 0)
    monkeypatch.setattr(FastestForm.__init__, "__defaults__", (0,))

    def load(path, device, *, quick=False, cores=1):
        return Altered(QUICK if quick else SLOW)

    offered = Source("x", load, lambda path: None, settings="adjustable", options=OPTIONS)
    monkeypatch.setitem(potentials.BUILT_IN, "adjustable", offered)
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


def test_the_record_says_which_form_ran(adjustable, state):
    loaded = potentials.load("adjustable", "cpu", {ACCELERATE: "measure", "cores": 2})
    assert loaded.record().form == PLAIN
    loaded.model(state)
    record = loaded.record()
    assert (record.form, record.settings) == ("quick", {ACCELERATE: "measure", "cores": 2})
    assert record.checkpoint_sha256 == potentials.identify("adjustable").sha256
    assert potentials.load("adjustable", "cpu").record().form is None
    with pytest.raises(PotentialError, match="auto, measure or never"):
        potentials.load("adjustable", "cpu", {ACCELERATE: "always"})


@pytest.mark.slow
def test_a_compiled_network_is_chosen_by_the_same_rule(state):
    """What ``torch.compile`` makes of a network, whatever is faster here; its forces are gradients."""

    class Springs(ModelInterface):
        def __init__(self, compiled: bool) -> None:
            super().__init__()
            self._device, self._dtype = torch.device("cpu"), torch.float64
            self._compute_stress = self._compute_forces = True
            self.network = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1)).double()
            with torch.no_grad():
                for parameter in self.network.parameters():
                    parameter.fill_(0.01)
            self.energy = torch.compile(self.network, dynamic=True) if compiled else self.network

        def forward(self, state: ts.SimState, **_) -> dict[str, torch.Tensor]:
            positions = state.positions.detach().requires_grad_(True)
            atoms = self.energy(positions)[:, 0]
            (gradient,) = torch.autograd.grad(atoms.sum(), positions)
            energy = torch.zeros(state.n_systems, dtype=torch.float64).index_add(0, state.system_idx, atoms.detach())
            return {"energy": energy, "forces": -gradient, "stress": torch.zeros(state.n_systems, 3, 3).double()}

    model = FastestForm(Springs(compiled=False), {"compile": lambda: Springs(compiled=True)}, patience=0)
    model(state)
    assert isinstance(model.measured["compile"], float)
    assert model.form in {PLAIN, "compile"}
