"""Potentials without weights: one Lennard-Jones for every element, and variants that misbehave on purpose.

Close-packed crystals are stable under it, simple cubic and body-centred ones are not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
import torch_sim as ts
from torch_sim.models.interface import ModelInterface
from torch_sim.models.lennard_jones import LennardJonesModel

from phononbench_flows.potentials import Source, neighbour_list

SIGMA, EPSILON, CUTOFF = 2.3, 0.4, 5.75  # Å, eV, Å: the cutoff lies between two shells of the fcc lattice
NAN_ELEMENT, RAISING_ELEMENT, SLOW_ELEMENT = 54, 36, 18  # Xe, Kr, Ar


class Toy(ModelInterface):
    """Lennard-Jones in float64 that reports to ``watch`` before each call."""

    def __init__(self, watch: Callable[[ts.SimState], None] = lambda state: None, dtype=torch.float64):
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), dtype
        self._compute_stress = self._compute_forces = True
        self.watch = watch
        self.model = LennardJonesModel(
            sigma=SIGMA,
            epsilon=EPSILON,
            cutoff=CUTOFF,
            device=self._device,
            dtype=dtype,
            compute_stress=True,
            neighbor_list_fn=neighbour_list,
        )

    def forward(self, state: ts.SimState, **kwargs) -> dict[str, torch.Tensor]:
        self.watch(state)
        output = dict(self.model(state))
        forces = output["forces"].clone()
        poisoned = torch.zeros(state.n_systems, dtype=torch.bool)
        poisoned[state.system_idx[state.atomic_numbers == NAN_ELEMENT]] = True
        forces[poisoned[state.system_idx]] = torch.nan
        output["forces"] = forces
        if (state.atomic_numbers == RAISING_ELEMENT).any() and not os.environ.get("TOY_BEARS_KRYPTON"):
            raise RuntimeError("this potential cannot bear krypton")
        return output


def limited(max_atoms: int) -> Toy:
    """Runs out of memory above so many atoms in a call."""

    def watch(state: ts.SimState) -> None:
        if state.n_atoms > max_atoms:
            raise torch.OutOfMemoryError(f"CUDA out of memory with {state.n_atoms} atoms")

    return Toy(watch)


def _log(state: ts.SimState) -> None:
    """One line a system and call, for tests that count what is computed; argon takes its time."""
    if not (path := os.environ.get("TOY_LOG")):
        return
    sizes = state.n_atoms_per_system.tolist()
    kinds = [sorted(set(z.tolist())) for z in torch.split(state.atomic_numbers, sizes)]
    with Path(path).open("a") as file:
        file.writelines(f"{os.getpid()} {n} {','.join(map(str, z))}\n" for n, z in zip(sizes, kinds, strict=True))
    if (state.atomic_numbers == SLOW_ELEMENT).any():
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))


calls = count(1)  # of this process


def _break(_: ts.SimState) -> None:
    """The device breaks in call TOY_BREAKS_AT of a process, and stays broken; with TOY_OUT_OF_ORDER it always was."""
    if next(calls) >= float(os.environ.get("TOY_BREAKS_AT") or "inf"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")
    if os.environ.get("TOY_OUT_OF_ORDER"):
        raise ValueError("out of order")


def _watch(state: ts.SimState) -> None:
    _log(state)
    _break(state)


lj = Source(
    summary="Lennard-Jones for tests",
    load=lambda path, device: Toy(_watch),
    elements=lambda path: None,
    settings=f"lj {SIGMA} {EPSILON} {CUTOFF}",
    cutoff=lambda model: model.model.cutoff,
)
lj32 = Source(
    summary="the same in float32",
    load=lambda path, device: Toy(_log, dtype=torch.float32),
    elements=lambda path: frozenset({"Cu", "Ar"}),
    settings=f"lj32 {SIGMA} {EPSILON} {CUTOFF}",
)
