"""Train a small MatterSim potential that knows a few metals, for tests that cannot have MatterSim's own weights.

The student is MatterSim's M3GNet with few units, trained by MatterSim's own loop and saved in MatterSim's own
checkpoint format. The teacher is ASE's EMT, whose fcc metals are stable and cost nothing to label. The result is
good for the strained and rattled fcc phases it was shown, up to about 7 % in volume, and for nothing else.

The same seed gives the same weights on one machine and one set of package versions.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa
from loguru import logger
from mattersim.datasets.utils.converter import BatchGraphConverter
from mattersim.forcefield.m3gnet.m3gnet import M3Gnet
from mattersim.forcefield.m3gnet.scaling import AtomScaling
from mattersim.forcefield.potential import Potential
from torch_geometric.loader import DataLoader

METALS = ("Cu", "Ni")
CUTOFF = 5.0  # Å
THREEBODY_CUTOFF = 3.5  # Å, the first shell only: EMT has no angles to teach
ARCHITECTURE = {
    "num_blocks": 2,
    "units": 32,
    "max_l": 3,
    "max_n": 3,
    "cutoff": CUTOFF,
    "threebody_cutoff": THREEBODY_CUTOFF,
}
MAX_VOLUME_CHANGE = 0.07
SHEAR = 0.012  # standard deviation of the deviatoric strain
RATTLES = (0.01, 0.03, 0.06, 0.10, 0.15)  # standard deviations, in Å
DISPLACEMENTS = (0.01, 0.03, 0.06, 0.10)  # of a single atom, in Å
BATCH_SIZE = 8
LEARNING_RATE = 5e-3
FORCE_WEIGHT = 1.0  # per (eV/Å)^2, next to 1 per (eV/atom)^2
STRESS_WEIGHT = 1e-3  # per GPa^2: 1 GPa then weighs as much as 0.03 eV/Å
THREADS = 1  # the order of sums depends on it; the tensors are small, and threads wait for each other on a busy machine
HELD_OUT = 16  # structures per metal that are only used to measure errors


@dataclass(frozen=True)
class Report:
    """What was trained, and its root-mean-square errors on structures it has not seen."""

    metals: tuple[str, ...]
    lattice_constants: tuple[float, ...]  # the teacher's, conventional fcc, in Å, in the order of `metals`
    structures: int
    atoms: int
    epochs: int
    parameters: int
    seconds: float
    energy_rmse: float  # eV/atom
    force_rmse: float  # eV/Å, per component
    stress_rmse: float  # GPa, per component


@dataclass(frozen=True)
class Labelled:
    """Structures with the teacher's energies (eV), forces ((n_atoms, 3), eV/Å) and stresses ((3, 3), GPa)."""

    structures: list[Atoms]
    energies: list[float]
    forces: list[np.ndarray]
    stresses: list[np.ndarray]

    @classmethod
    def by_emt(cls, structures: list[Atoms]) -> Labelled:
        """Label ``structures`` with EMT."""
        for atoms in structures:
            atoms.calc = EMT()
        return cls(
            structures,
            [atoms.get_potential_energy() for atoms in structures],
            [atoms.get_forces() for atoms in structures],
            [atoms.get_stress(voigt=False) / GPa for atoms in structures],
        )

    def loader(self, *, shuffle: bool) -> DataLoader:
        """Return batches of MatterSim graphs on the CPU."""
        # Not build_dataloader: its default converter does not shift the three-body indices of the second and
        # later graphs of a batch (MatterSim 1.2.5), and its batch converter always takes the GPU if there is one.
        converter = BatchGraphConverter(twobody_cutoff=CUTOFF, threebody_cutoff=THREEBODY_CUTOFF, device="cpu")
        graphs = converter.convert(self.structures, energy=self.energies, forces=self.forces, stresses=self.stresses)
        return DataLoader(graphs, batch_size=BATCH_SIZE, shuffle=shuffle)


def emt_lattice_constant(metal: str) -> float:
    """Return the conventional fcc lattice constant of ``metal`` in EMT, in Å."""
    atoms = bulk(metal, "fcc", cubic=True)
    atoms.calc = EMT()
    relaxation = BFGS(FrechetCellFilter(atoms), logfile=None)  # type: ignore[arg-type]  # a filter serves as well
    relaxation.run(fmax=1e-4, steps=200)
    return float(atoms.cell.lengths()[0])


def sample(metal: str, lattice_constant: float, count: int, rng: np.random.Generator) -> list[Atoms]:
    """Return ``count`` strained fcc cells of ``metal`` of 1 to 8 atoms; ``lattice_constant`` is in Å.

    Of every four, one has its atoms in place, one has a single displaced atom, as phonons do, and two are rattled.
    """
    primitive = bulk(metal, "fcc", a=lattice_constant)
    cubic = bulk(metal, "fcc", a=lattice_constant, cubic=True)
    structures = []
    for i in range(count):
        kind = i % 4
        atoms = (primitive, cubic, primitive * (2, 2, 2), primitive * (2, 2, 2))[kind].copy()
        strain = rng.normal(scale=SHEAR, size=(3, 3))
        strain = (strain + strain.T) / 2
        strain -= np.eye(3) * np.trace(strain) / 3
        scale = (1 + rng.uniform(-MAX_VOLUME_CHANGE, MAX_VOLUME_CHANGE)) ** (1 / 3)
        atoms.set_cell(atoms.cell[:] @ (scale * np.eye(3) + strain), scale_atoms=True)
        if kind == 3:
            direction = rng.normal(size=3)
            atoms.positions[0] += rng.choice(DISPLACEMENTS) * direction / np.linalg.norm(direction)
        elif kind:
            atoms.positions += rng.normal(scale=rng.choice(RATTLES), size=atoms.positions.shape)
        structures.append(atoms)
    return structures


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Fix torch's random numbers and threads, and give the caller's back afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _quiet_mattersim() -> Iterator[None]:
    """Keep MatterSim from logging several lines per epoch."""
    logger.disable("mattersim")
    try:
        yield
    finally:
        logger.enable("mattersim")


def _fit(data: Labelled, epochs: int) -> Potential:
    """Return a potential fitted to ``data`` by MatterSim's training loop."""
    model = M3Gnet(device="cpu", **ARCHITECTURE)
    model.set_normalizer(
        AtomScaling(
            atoms=data.structures,
            total_energy=data.energies,
            forces=data.forces,
            shift_key="per_species_energy_mean_linear_reg",
            scale_key="forces_rms",
            device="cpu",
        )
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=1e-3 * LEARNING_RATE)
    potential = Potential(model, optimizer=optimizer, scheduler=scheduler, device="cpu")
    # The loop looks for an earlier best model in save_path, even if it is told to save nothing.
    with tempfile.TemporaryDirectory() as nothing_here:
        potential.train_model(
            data.loader(shuffle=True),
            None,
            loss=torch.nn.MSELoss(),
            include_forces=True,
            include_stresses=True,
            force_loss_ratio=FORCE_WEIGHT,
            stress_loss_ratio=STRESS_WEIGHT,
            epochs=epochs,
            save_path=nothing_here,
            log=False,
        )
    return potential


def _save(potential: Potential, out: Path) -> None:
    """Write MatterSim's checkpoint of the averaged weights to ``out``, all or nothing."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own and under its final name, because torch writes the file's name into the file.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, potential.ema.average_parameters():
        unfinished = Path(folder) / out.name
        potential.save(str(unfinished))
        unfinished.replace(out)


def _errors(potential: Potential, data: Labelled) -> tuple[float, float, float]:
    """Return root-mean-square errors of energies (eV/atom), forces (eV/Å) and stresses (GPa)."""
    energies, forces, stresses = potential.predict_properties(
        data.loader(shuffle=False), include_forces=True, include_stresses=True
    )
    sizes = np.array([len(atoms) for atoms in data.structures])
    differences = (
        (np.array(energies) - data.energies) / sizes,
        np.concatenate(forces) - np.concatenate(data.forces),
        np.array(stresses) - data.stresses,
    )
    energy, force, stress = (float(np.sqrt(np.mean(difference**2))) for difference in differences)
    return energy, force, stress


def train(
    out: Path, *, metals: Sequence[str] = METALS, seed: int = 0, structures_per_metal: int = 40, epochs: int = 30
) -> Report:
    """Train a small potential on EMT ``metals`` and save it to ``out`` as a MatterSim checkpoint.

    The weights are float32, as MatterSim's own are. The errors reported are those of the saved file.
    """
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    lattice_constants = tuple(emt_lattice_constant(metal) for metal in metals)

    def draw(count: int) -> Labelled:
        pairs = zip(metals, lattice_constants, strict=True)
        return Labelled.by_emt([atoms for metal, a in pairs for atoms in sample(metal, a, count, rng)])

    training, held_out = draw(structures_per_metal), draw(HELD_OUT)
    with _reproducible(seed), _quiet_mattersim():
        potential = _fit(training, epochs)
        potential.set_description(f"small test potential: EMT {', '.join(metals)}, seed {seed}")
        _save(potential, out)
        saved = Potential.from_checkpoint(load_path=str(out), load_training_state=False, device="cpu")
        energy_rmse, force_rmse, stress_rmse = _errors(saved, held_out)
    return Report(
        metals=tuple(metals),
        lattice_constants=lattice_constants,
        structures=len(training.structures),
        atoms=sum(len(atoms) for atoms in training.structures),
        epochs=epochs,
        parameters=sum(parameter.numel() for parameter in potential.model.parameters()),
        seconds=time.perf_counter() - start,
        energy_rmse=energy_rmse,
        force_rmse=force_rmse,
        stress_rmse=stress_rmse,
    )


def main(
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")],
    metals: Annotated[str, typer.Option(help="Metals that EMT knows, separated by commas.")] = ",".join(METALS),
    seed: Annotated[int, typer.Option(help="Seed of the structures, the weights and the batches.")] = 0,
    structures: Annotated[int, typer.Option(help="Training structures per metal.", min=4)] = 40,
    epochs: Annotated[int, typer.Option(help="Passes over the training structures.", min=1)] = 30,
) -> None:
    """Train a small MatterSim potential on EMT metals and write its checkpoint."""
    report = train(out, metals=metals.split(","), seed=seed, structures_per_metal=structures, epochs=epochs)
    for name, value in asdict(report).items():
        typer.echo(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    typer.run(main)
