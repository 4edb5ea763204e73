"""A loaded potential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from phononbench_flows.potentials.source import PotentialError, Setting

if TYPE_CHECKING:
    from ase import Atoms
    from torch_sim.models.interface import ModelInterface

    from phononbench_flows.documents import PotentialRecord

CUTOFF = 6.0  # Å; that of a potential which does not tell, and of most
_MGO_LATTICE_CONSTANT = 4.21  # Å
_BOND_PER_RADIUS = 2.2  # neighbours in a metal are about two covalent radii apart


@dataclass(frozen=True)
class Potential:
    """A loaded potential.

    Attributes:
        model: takes and gives float64.
        settings: those that differ from their defaults.
        cutoff: atoms further apart do not feel each other, in Å; where messages are passed, in one layer.
    """

    name: str
    model: ModelInterface
    checkpoint_sha256: str
    elements: frozenset[str] | None
    dtype: str
    device: str
    settings: Mapping[str, Setting] = field(default_factory=dict, hash=False)
    cutoff: float = CUTOFF

    def record(self) -> PotentialRecord:
        """What a document says of it."""
        from phononbench_flows.documents import PotentialRecord

        return PotentialRecord(
            name=self.name,
            checkpoint_sha256=self.checkpoint_sha256,
            dtype=self.dtype,
            device=self.device,
            settings=dict(self.settings),
            form=getattr(self.model, "form", None),
        )

    def check(self) -> None:
        """Compute a small healthy crystal, to tell a broken machine from a bad crystal.

        Raises:
            PotentialError: the model raised (that error is its cause), or gave something that is not finite.
        """
        import torch
        import torch_sim as ts

        atoms = healthy_crystal(self.elements)
        what = f"{self.name} on {self.device}, for a healthy crystal of {atoms.get_chemical_formula()}"
        try:
            state = ts.initialize_state(atoms, self.model.device, torch.float64)
            output = {key: value.cpu() for key, value in self.model(state).items()}  # errors of a GPU come late
        except Exception as error:
            raise PotentialError(f"{what}, raises {type(error).__name__}: {error}") from error
        bad = [key for key in ("energy", "forces", "stress") if key in output and not output[key].isfinite().all()]
        if bad:
            raise PotentialError(f"{what}, gives {' and '.join(bad)} that are not finite")


def healthy_crystal(elements: frozenset[str] | None) -> Atoms:
    """Rock salt MgO if the elements allow it or are not known, else an fcc crystal of one of them."""
    from ase.build import bulk
    from ase.data import atomic_numbers, covalent_radii, reference_states

    if elements is None or {"Mg", "O"} <= elements:
        return bulk("MgO", "rocksalt", a=_MGO_LATTICE_CONSTANT)
    by_number = sorted(elements, key=atomic_numbers.__getitem__)
    for symbol in by_number:
        reference = reference_states[atomic_numbers[symbol]]
        if reference and reference["symmetry"] == "fcc":
            return bulk(symbol, "fcc", a=float(str(reference["a"])))
    heaviest = by_number[-1]
    bond = _BOND_PER_RADIUS * covalent_radii[atomic_numbers[heaviest]]
    return bulk(heaviest, "fcc", a=bond * 2**0.5)
