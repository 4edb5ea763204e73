"""One command for a machine with one GPU: what can be known only there, in under eight minutes.

    uv run --group gpu --extra sevennet python benchmarks/gpu.py ../shared/data/generated --out gpu.json

* `run`: real crystals through `phononbench run`, in a process of its own: crystals an hour, microseconds an atom and
  evaluation, how busy the device was (NVML), its memory. It is stopped when its share of the time is over, and what was
  judged until then counts.
* `batches`: microseconds an atom in calls of growing size, to the largest that memory holds.
* `out-of-memory`: the forces of displaced supercells with too little memory: batches are halved, and no crystal fails.
* `compare`: forces of a rattled supercell of 500 atoms, on the device against the CPU.
* `forms`: the plain model against its faster forms, as a run measures them; which would be used.

Each part writes its result, or a sentence on why there is none, as soon as it is there; `--parts` names some of them.
`--device cpu --count 6` runs the same lines on a CPU: what asks CUDA or NVML is then left out, and memory runs out
where the benchmark says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms
from torch_sim.models.interface import ModelInterface

from phononbench_flows import ResultsStore, potentials
from phononbench_flows.engine.batch import Budget, is_out_of_memory
from phononbench_flows.engine.force_constants import force_constants
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.potentials.acceleration import FastestForm
from phononbench_flows.potentials.potential import healthy_crystal
from phononbench_flows.potentials.settings import ACCELERATE, MEASURE, NEVER
from phononbench_flows.protocol import PRESETS

NAME, CALLS = "GPU_BENCHMARK_POTENTIAL", "GPU_BENCHMARK_CALLS"
SET = "gpu-benchmark"
PARTS = ("run", "batches", "out-of-memory", "compare", "forms")
TOTAL_SECONDS, RUN_SECONDS, BATCHES_SECONDS = 460.0, 230.0, 60.0
SAMPLE_SECONDS = 0.1
SMALL_SHARE = 0.05  # of the device's memory, in which the out-of-memory part has to do
CPU_ATOMS = 400  # that a call on a CPU may have there
NOT_BEGUN = "not begun: the time was over"


class Counted(ModelInterface):
    """A model that writes down how many atoms each call has."""

    def __init__(self, model: ModelInterface) -> None:
        super().__init__()
        self.model = model
        self._device, self._dtype = model.device, model.dtype
        self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces

    def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the model gives."""
        output = dict(self.model(state, **kwargs))
        with Path(os.environ[CALLS]).open("a") as file:
            file.write(f"{state.n_atoms}\n")
        return output


class Limited(ModelInterface):
    """A model that runs out of memory above so many atoms, for where there is no GPU."""

    def __init__(self, model: ModelInterface, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most
        self._device, self._dtype = model.device, model.dtype
        self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces

    def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the model gives."""
        if state.n_atoms > self.most:
            raise torch.OutOfMemoryError(f"{state.n_atoms} atoms are too many")
        return dict(self.model(state, **kwargs))


def __getattr__(name: str) -> potentials.Source:
    # `gpu:source` in the process that runs the crystals.
    if name != "source":
        raise AttributeError(name)
    asked = os.environ[NAME]
    inner = potentials.find_source(asked)

    def load(_path: Path | None, device: torch.device, **settings: Any) -> ModelInterface:
        return Counted(potentials.load(asked, str(device), settings).model)

    return replace(inner, load=load, cutoff=None, threads=False, options={})


@dataclass
class Watch:
    """Samples of how busy a GPU is, in percent, and of its memory in use, in MiB; none without NVML."""

    device: str
    busy: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if self.device.startswith("cuda"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self.device.startswith("cuda"):
            self._thread.join()

    def _sample(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(self.device.partition(":")[2] or 0))
        while not self._ended.wait(SAMPLE_SECONDS):
            self.busy.append(float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
            self.memory.append(pynvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20)

    def summary(self) -> dict[str, float | None]:
        """Mean share of the time that a kernel ran in, and the most memory in use."""
        if not self.busy:
            return {"busy": None, "memory_mib": None}
        return {"busy": round(float(np.mean(self.busy)) / 100, 3), "memory_mib": round(max(self.memory))}


def end_to_end(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Real crystals through the command."""
    calls, out = folder / "calls", folder / "results"
    calls.touch()
    environment = os.environ | {NAME: given.potential, CALLS: str(calls)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "phononbench_flows", "run", *map(str, given.crystals), "--set", SET]
    command += ["--potential", "gpu:source", "--protocol", given.protocol, "--device", given.device]
    command += ["--limit", str(given.count), "--out", str(out), "--workers", str(given.workers)]
    began, complete = time.perf_counter(), True
    with Watch(given.device) as watch:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait(given.run_seconds)
        except subprocess.TimeoutExpired:  # what was written until now is there
            os.killpg(process.pid, signal.SIGKILL)
            complete, code = False, 0
            process.wait()
    if code:
        raise RuntimeError(f"`phononbench run` ended with {code}")
    wall = time.perf_counter() - began
    with ResultsStore.open(out) as store:
        statuses = [row["status"] for row in store.query({"set": SET}, ["status"])]
    judged = sum(status in {"stable", "unstable", "undecided"} for status in statuses)
    atoms = np.loadtxt(calls, ndmin=1)
    device = watch.summary()
    per_atom = None if device["busy"] is None else round(1e6 * wall * device["busy"] / max(float(atoms.sum()), 1.0), 2)
    return {
        "protocol": given.protocol,
        "complete": complete,
        "crystals": len(statuses),
        "judged": judged,
        "failed": statuses.count("failed"),
        "wall_s": round(wall, 1),
        "crystals_an_hour": round(3600 * judged / wall),
        "calls": len(atoms),
        "evaluations_a_crystal": round(float(atoms.sum()) / max(judged, 1)),
        "device_us_an_atom": per_atom,
        "processor_s": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, 1),
        **device,
    }


def batches(given: argparse.Namespace) -> dict[str, Any]:
    """Calls of growing size on copies of one supercell, until memory or time runs out."""
    model = potentials.load(given.potential, given.device, plain_settings(given.potential)).model
    cell, began, rows, end = supercell(given.potential, 100), time.perf_counter(), [], "time ran out"
    copies = 1
    while time.perf_counter() - began < BATCHES_SECONDS:
        if given.device == "cpu" and copies * len(cell) > CPU_ATOMS:
            end = f"no more than {CPU_ATOMS} atoms on a CPU"
            break
        try:
            seconds = seconds_of(model, [cell] * copies)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            end = f"out of memory with {copies * len(cell)} atoms"
            break
        atoms = copies * len(cell)
        memory = torch.cuda.max_memory_allocated() >> 20 if given.device != "cpu" else None
        rows.append({"atoms": atoms, "us_an_atom": round(1e6 * seconds / atoms, 2), "memory_mib": memory})
        copies *= 2
    release()
    return {"largest": rows[-1]["atoms"], "end": end, "rows": rows}


def out_of_memory(given: argparse.Namespace) -> dict[str, Any]:
    """Force constants in a batch that memory does not hold."""
    model = potentials.load(given.potential, given.device, plain_settings(given.potential)).model
    if given.device == "cpu":
        model = Limited(model, CPU_ATOMS)
    else:
        usual = torch.cuda.get_per_process_memory_fraction()
        torch.cuda.set_per_process_memory_fraction(SMALL_SHARE)
    from pymatgen.io.ase import AseAtomsAdaptor

    crystals = []
    for seed in range(8 if given.device == "cpu" else 200):
        atoms = healthy_crystal(potentials.identify(given.potential).elements())
        atoms.rattle(0.02, seed=seed)
        crystals.append(AseAtomsAdaptor.get_structure(atoms))
    budget = Budget(10**6)
    try:
        found = force_constants(crystals, model, PRESETS["paper"].force_constants, budget=budget)
    finally:
        if given.device != "cpu":
            torch.cuda.set_per_process_memory_fraction(usual)
        release()
    return {
        "crystals": len(found),
        "failed": sum(isinstance(each, Failure) for each in found),
        "batch_became": budget.max_atoms if budget.max_atoms < 10**6 else "no smaller: memory held all",
    }


def compare(given: argparse.Namespace) -> dict[str, Any] | str:
    """Forces on the device against those on the CPU."""
    ready = potentials.checkpoints.readiness(given.compare)
    if ready != "ready":
        return f"{given.compare} was not compared: {ready}"
    atoms = supercell(given.compare, 500)
    forces = []
    for device in ("cpu", given.device):
        model = potentials.load(given.compare, device, plain_settings(given.compare)).model
        forces.append(model(ts.initialize_state([atoms], model.device, torch.float64))["forces"].cpu())
    release()
    return {
        "potential": given.compare,
        "atoms": len(atoms),
        "largest_difference_ev_a": float((forces[0] - forces[1]).abs().max()),
        "finite": bool(torch.isfinite(forces[1]).all()),
    }


def forms(given: argparse.Namespace) -> dict[str, Any]:
    """The plain model against its faster forms."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys([given.potential, given.compare]):
        ready = potentials.checkpoints.readiness(name)
        if ready != "ready":
            found[name] = ready
            continue
        settings: Mapping[str, Any] = {ACCELERATE: MEASURE} if plain_settings(name) else {}
        model = potentials.load(name, given.device, settings).model
        if not isinstance(model, FastestForm):
            found[name] = "there is no other form of it here"
            continue
        model.patience = 0.0
        cell = supercell(name, 100)
        model(ts.initialize_state([cell] * (2 if given.device == "cpu" else 32), model.device, torch.float64))
        found[name] = {"used": model.form} | model.measured
        print(json.dumps({"forms": {name: found[name]}}), flush=True)  # the next one may be compiled for minutes
        release()
    return found


def plain_settings(name: str) -> dict[str, Any]:
    """Settings that keep a potential plain, where it has other forms."""
    return {ACCELERATE: NEVER} if ACCELERATE in potentials.find_source(name).options else {}


def supercell(name: str, atoms: int) -> Atoms:
    """A rattled supercell of a healthy crystal, of about so many atoms."""
    cell = healthy_crystal(potentials.identify(name).elements())
    found = cell.repeat(max(1, round((atoms / len(cell)) ** (1 / 3))))
    found.rattle(0.05, seed=0)
    return found


def seconds_of(model: ModelInterface, crystals: list[Atoms]) -> float:
    """Seconds of a call, once it is warm."""
    state = ts.initialize_state(crystals, model.device, torch.float64)
    model(state)["energy"].cpu()
    began = time.perf_counter()
    model(state)["energy"].cpu()  # a GPU is done when a number has come back
    return time.perf_counter() - began


def release() -> None:
    """Give memory back that the next part needs."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def machine(given: argparse.Namespace) -> dict[str, Any]:
    """What it was measured on."""
    on_gpu = given.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(given.device) if on_gpu else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "potential": given.potential,
    }


def main() -> None:
    """Run the parts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", type=Path, nargs="+", help="folders of real crystals")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--compare", default="mattersim-v1-5m")
    parser.add_argument("--protocol", default="paper")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--run-seconds", type=float, default=RUN_SECONDS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    began = time.perf_counter()
    found: dict[str, Any] = {"machine": machine(given)}
    with tempfile.TemporaryDirectory() as folder:
        parts: dict[str, Callable[[], Any]] = {
            "run": lambda: end_to_end(given, Path(folder)),
            "batches": lambda: batches(given),
            "out-of-memory": lambda: out_of_memory(given),
            "compare": lambda: compare(given),
            "forms": lambda: forms(given),
        }
        for name in given.parts:
            if time.perf_counter() - began > TOTAL_SECONDS:
                found[name] = NOT_BEGUN
            else:
                try:
                    found[name] = parts[name]()
                except Exception as error:  # noqa: BLE001 (the other parts are worth having)
                    found[name] = f"{type(error).__name__}: {error}"
            print(json.dumps({name: found[name]}), flush=True)
            if given.out:
                given.out.write_text(json.dumps(found, indent=1))
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
