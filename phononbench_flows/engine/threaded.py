"""One model on all cores: on a CPU many small calls side by side beat one large call on many threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch_sim as ts
from torch_sim.models.interface import ModelInterface

# Measured with SevenNet-0 on two cores, in ms per atom: parts of 32 to 128 atoms, each on a thread of its own, took
# 9; the same in one call on both cores 12 to 17, and a call on 256 atoms 19, since its arrays leave the caches.
_PART_ATOMS = 64


class ThreadedModel(ModelInterface):
    """A CPU model that splits a batch into parts and computes them side by side, each on one core.

    The model must bear being called from several threads at once.
    """

    def __init__(self, model: ModelInterface, cores: int) -> None:
        super().__init__()
        self.model = model
        self._device, self._dtype = model.device, model.dtype
        self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces
        self._cores = cores
        self._pool = ThreadPoolExecutor(cores, "potential", initializer=torch.set_num_threads, initargs=(1,))

    def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the model gives for the whole batch."""
        parts = list(_parts(state, self._cores))
        if state.n_systems == 1 and state.n_atoms > _PART_ATOMS:  # alone it may have all cores
            return self.model(state, **kwargs)
        outputs = list(self._pool.map(lambda part: self.model(part, **kwargs), parts))
        return {key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}


def _parts(state: ts.SimState, cores: int) -> Iterator[ts.SimState]:
    """The systems in parts of about ``_PART_ATOMS``, or of less if that would leave a core without work."""
    sizes = state.n_atoms_per_system.tolist()
    target = min(_PART_ATOMS, -(-state.n_atoms // cores))
    first, atoms, at = 0, 0, 0
    for system, size in enumerate(sizes):
        if atoms and atoms + size / 2 > target:
            yield _part(state, slice(first, system), slice(at, at + atoms))
            first, at, atoms = system, at + atoms, 0
        atoms += size
    yield _part(state, slice(first, len(sizes)), slice(at, at + atoms))


def _part(state: ts.SimState, systems: slice, atoms: slice) -> ts.SimState:
    return ts.SimState(
        positions=state.positions[atoms],
        masses=state.masses[atoms],
        cell=state.cell[systems],
        pbc=state.pbc,
        atomic_numbers=state.atomic_numbers[atoms],
        system_idx=state.system_idx[atoms] - systems.start,
    )
