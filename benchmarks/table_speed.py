"""Time and memory of all tables and figures over a store of synthetic crystals.

The store is filled by one process and read by another, whose peak memory is given; it includes the imports. For
MongoDB, name the server in PHONONBENCH_MONGO_URI; the database must be empty, and keeps the documents.

    python benchmarks/table_speed.py --documents 100000
    PHONONBENCH_MONGO_URI=mongodb://localhost python benchmarks/table_speed.py --store mongo:table_speed
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("MatterGen", "DiffCSP", "CrystalFlow", "CrystalFormer", "CrystaLLM")
TRAINING_SETS = ("MP20", "Alex20")
SYSTEMS = ("Cubic", "Hexagonal", "Trigonal", "Tetragonal", "Orthorhombic", "Monoclinic", "Triclinic")
ELEMENTS = np.array("O Li F Si Fe Na Mg Al S Cl K Ca Ti Mn Cu Zn Se Br Sr Zr Ag Sn Te I Ba La Pb Bi".split())  # noqa: SIM905
SEED = 11


def documents(number: int) -> Iterator[dict[str, Any]]:
    """Crystals of ten sets, from the seed: every fifth lost on the way, the others with lowest frequencies."""
    from embedded_stores import template
    from pymatgen.core import Lattice, Structure

    random = np.random.default_rng(SEED)
    coordinates = np.linspace(0.01, 0.97, 30).reshape(10, 3)
    structure = Structure(Lattice.from_parameters(4.1, 5.2, 6.3, 81, 92, 103), ["O"] * 10, coordinates).as_dict()
    base = template() | {"relaxed_structure": structure}
    for index in range(number):
        name = f"{MODELS[index % 5]}-{TRAINING_SETS[index // 5 % 2]}"
        shares = 1 / np.arange(2, 2 + len(ELEMENTS))
        elements = random.choice(ELEMENTS, random.integers(1, 6), replace=False, p=shares / shares.sum())
        system = str(random.choice(SYSTEMS))
        crystal = {
            "key": f"{name}-{index}@p",
            "id": f"{name}-{index}",
            "set": name,
            "elements": sorted(map(str, elements)),
            "nelements": len(elements),
            "symmetry_initial": {"crystal_system": system},
            "condition": {"band_gap": 0.5 + index // 10 % 5},
        }
        yield base | crystal | _fate(random, base["minimum"], system, 0.15 + 0.05 * (index % 10))


def _fate(random: np.random.Generator, look: dict[str, Any], system: str, rate: float) -> dict[str, Any]:
    nothing: dict[str, Any] = {"phonon": None, "relaxed_structure": None, "minimum": None, "evidence": {"looks": {}}}
    if random.random() < 0.1:
        reason = str(random.choice(["unparsable", "atoms_too_close", "disordered"]))
        return {"status": "rejected", "stage": "read", "reason": reason} | nothing
    if random.random() < 0.1:
        reason = str(random.choice(["not_converged", "forces_exploded"]))
        return {"status": "failed", "stage": "screened", "reason": reason} | nothing
    lowest = -(10 ** random.uniform(-8, -4)) if random.random() < rate else -(10 ** random.uniform(-3, 1))
    minimum, other = (look | {"frequency": frequency} for frequency in (lowest, lowest / 2))
    return {
        "status": "unstable" if lowest < -1e-3 else "stable",
        "symmetry_relaxed": {"crystal_system": system, "number": 1},
        "evidence": {"looks": {"path": minimum, "commensurate": other | {"exact": True}, "mesh": other}},
        "minimum": minimum,
    }


def fill(spec: str, number: int) -> None:
    """Write the documents, a thousand at a time."""
    from phononbench_flows.documents import SetDocument
    from phononbench_flows.store import ResultsStore

    with ResultsStore.open(spec) as store:
        if store.count():
            raise SystemExit(f"{spec} holds crystals already: an empty store is needed")
        store.create_indexes()
        for lot in batched(documents(number), 1000):
            # Past the validation, which is not what is measured.
            store._calculations.update(list(lot))  # noqa: SLF001
        for name in store.distinct("set"):
            model, training_set = name.split("-")
            about = {"model": model, "training_set": training_set, "parameters": 10_000_000, "architecture": "GNN"}
            generated = {"n_generated": number // 8, "generation_seconds": 3600.0}
            store.put_set(SetDocument.model_validate({"set": name} | about | generated))


def measure(spec: str, out: Path) -> None:
    """Read the crystals, make every table and figure, and print what each took."""
    from phononbench_flows.store import ResultsStore
    from phononbench_flows.structures.memory import largest_resident
    from phononbench_flows.tables import frames, plots
    from phononbench_flows.tables.files import write_table
    from phononbench_flows.tables.rows import read_crystals

    began = last = (time.perf_counter(), time.process_time())

    def done(name: str, table: Any = None, figure: Any = None) -> None:
        nonlocal last
        if table is not None:
            write_table(table, out, name, name)
        if figure is not None:
            plots.save(figure, out, name)
        last, before = (time.perf_counter(), time.process_time()), last
        print(f"| {name} | {last[0] - before[0]:.2f} | {last[1] - before[1]:.2f} |", flush=True)

    print("| step | wall, s | processor, s |\n|---|---:|---:|")
    with ResultsStore.open(spec) as store:
        crystals = read_crystals(store)
    done(f"read {len(crystals.rows)} crystals")
    funnels = frames.funnel_table(crystals)
    done("funnels", funnels, plots.funnel_plot(funnels))
    done("rates", funnels, plots.rates_plot(funnels))
    done("ranking turns", frames.ranking_turns(funnels))
    done("pairs", frames.pair_table(funnels))
    done("samples needed", frames.samples_table(funnels))
    found = frames.threshold_table(crystals)
    done("thresholds", found, plots.threshold_plot(found))
    found = frames.convergence_table(funnels)
    done("convergence", found, plots.convergence_plot(found))
    found = frames.failure_table(crystals)
    done("failures", found, plots.failure_plot(found))
    for by in ("crystal_system", "nelements"):
        found = frames.breakdown(crystals, by)
        done(by, found, plots.groups_plot(found, by))
    found = frames.condition_table(crystals, "band_gap")
    done("band gap", found, plots.groups_plot(found, "band_gap"))
    found = frames.element_table(crystals)
    done("elements", found, plots.element_plot(found))
    found = frames.speed_table(crystals.sets.values())
    done("speed", found, plots.speed_plot(found))
    found = frames.architecture_table(crystals.sets.values())
    done("architectures", found, plots.parameters_plot(found))
    peak = largest_resident() / 2**20
    print(f"| all, peak memory {peak:.0f} MB | {last[0] - began[0]:.2f} | {last[1] - began[1]:.2f} |")


def main() -> None:
    """Fill a store and measure, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000, help="crystals to write")
    parser.add_argument("--store", help="an empty store; a temporary embedded one without it")
    parser.add_argument("--out", type=Path, help="keep the tables and figures here")
    parser.add_argument("--step", choices=("fill", "measure"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, out = args.store or str(Path(folder) / "store"), args.out or Path(folder) / "out"
        if args.step == "fill":
            fill(store, args.documents)
        elif args.step == "measure":
            measure(store, out)
        else:
            options = ["--documents", str(args.documents), "--store", store, "--out", str(out)]
            for step in ("fill", "measure"):
                subprocess.run([sys.executable, __file__, "--step", step, *options], check=True)


if __name__ == "__main__":
    main()
