"""What a crystal costs outside the potential: processor time a crystal, and how busy a device would be.

    python benchmarks/overhead.py --count 100 400 1600

Crystals are ordered and rattled fcc cells of 4 and 8 atoms under a Lennard-Jones potential, judged as `run` does, into
a fresh store, in `--workers` processes. Of the processor time of the run and its processes, what was spent in the
potential is taken out.

With `--seconds-per-atom` each call also occupies a device that there is one of for all processes, for so long (3e-6 is
a fast potential on a GPU): the time that it was occupied, over the wall time of computing, is how busy it would have
been.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
import resource
import tempfile
import threading
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure
from torch_sim.models.interface import ModelInterface
from torch_sim.models.lennard_jones import LennardJonesModel

from phononbench_flows.potentials import Source, neighbour_list
from phononbench_flows.run import judge_folder

SIGMA, EPSILON, CUTOFF = 2.3, 0.4, 5.75  # Å, eV, Å
ELEMENTS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Ca", "Sr", "Pb")
SLEEP, FILE = "OVERHEAD_SECONDS_PER_ATOM", "OVERHEAD_FILE"


class Timed(ModelInterface):
    """Lennard-Jones that writes down its own processor time, and how long it occupied the device."""

    _lock = threading.Lock()

    def __init__(self) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_stress = self._compute_forces = True
        self.model = LennardJonesModel(
            sigma=SIGMA,
            epsilon=EPSILON,
            cutoff=CUTOFF,
            device=self._device,
            dtype=self._dtype,
            compute_stress=True,
            neighbor_list_fn=neighbour_list,
        )

    def forward(self, state: ts.SimState, **_: object) -> dict[str, torch.Tensor]:
        """What Lennard-Jones gives."""
        began = time.thread_time()
        output = dict(self.model(state))
        spent = time.thread_time() - began
        occupied = float(os.environ[SLEEP]) * state.n_atoms
        with Timed._lock, Path(os.environ[FILE]).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            time.sleep(occupied)
            file.write(f"{spent} {occupied} {time.time()}\n")
            file.flush()
        return output


source = Source(
    summary="Lennard-Jones that is timed",
    load=lambda _path, _device: Timed(),
    elements=lambda _path: None,
    settings=f"timed lj {SIGMA} {EPSILON} {CUTOFF}",
    cutoff=lambda _model: CUTOFF,
)


def write_crystals(folder: Path, count: int) -> None:
    """Write so many CIFs, all different: a third keeps the symmetry of its order, the others are rattled."""
    random = np.random.default_rng(0)
    sites = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    for number in range(count):
        crystal = Structure(Lattice.cubic(3.7), [str(each) for each in random.choice(ELEMENTS, 4)], sites)
        if number % 2:
            crystal.make_supercell([2, 1, 1])
            for place in range(len(crystal)):
                crystal.replace(place, str(random.choice(ELEMENTS)))
        if number % 3:
            crystal.perturb(0.05, seed=number)
        crystal.to(str(folder / f"{number:05d}.cif"))


def measure(count: int, protocol: str, workers: int) -> dict[str, float | str]:
    """Judge so many crystals; seconds a crystal that was judged, and how busy the device was."""
    with tempfile.TemporaryDirectory() as folder:
        crystals, calls_file = Path(folder) / "crystals", Path(folder) / "calls"
        crystals.mkdir()
        write_crystals(crystals, count)
        os.environ[FILE] = str(calls_file)
        began, before, system_before = time.perf_counter(), _processor_time(), _system_time()
        judged = judge_folder(
            crystals,
            "S",
            out=Path(folder) / "results",
            potential="overhead:source",
            protocol=protocol,
            device="cpu",
            workers=workers,
        )
        wall, spent = time.perf_counter() - began, _processor_time() - before
        system = _system_time() - system_before
        inside, occupied, at = np.loadtxt(calls_file).T
    outside, computing = float(spent - inside.sum()), float(at[-1] - at[0])
    done = judged.funnel.judged + judged.funnel.undecided  # some crystals repeat others
    return {
        "crystals": count,
        "protocol": protocol,
        "judged": done,
        "workers": workers,
        "outside_s": round(outside / done, 4),
        "system_s": round(system / done, 4),
        "inside_s": round(float(inside.sum()) / done, 4),
        "wall_s": round(wall / done, 4),
        "device_s": round(float(occupied.sum()) / done, 4),
        "busy": round(float(occupied.sum()) / computing, 3),
        "busy_by_processor_time": round(min(1.0, float(occupied.sum()) * workers / max(outside, 1e-9)), 3),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Time sets of growing size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--protocol", nargs="+", default=["paper", "converged"])
    parser.add_argument("--seconds-per-atom", type=float, default=0.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, help="a CSV file")
    given = parser.parse_args()
    os.environ[SLEEP] = str(given.seconds_per_atom)
    torch.set_num_threads(1)
    before = _processor_time()
    for protocol in given.protocol:
        measure(4, protocol, 1)
    print(f"beginning: {_processor_time() - before:.1f} s of processor time", flush=True)
    rows = []
    for count, protocol, workers in product(given.count, given.protocol, given.workers):
        rows.append(measure(count, protocol, workers))
        print(rows[-1], flush=True)
    if given.out:
        with given.out.open("w", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


def _processor_time() -> float:
    """Of this process and of those that it has waited for, s."""
    return sum(each.ru_utime + each.ru_stime for each in _used())


def _system_time() -> float:
    """What of it the kernel took: with memory short it is far more than a run needs."""
    return sum(each.ru_stime for each in _used())


def _used() -> list[resource.struct_rusage]:
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


if __name__ == "__main__":
    from overhead import main as timed_main  # the module that the run imports, for its counters

    timed_main()
