"""Models of metatomic, such as PET-OAM and PET-MAD of UPET (BSD), by metatomic's own torch-sim model.

A head is the variant of the energy, where a model has several. A model may bring compiled code of its own: it has to be
one that you trust.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phononbench_flows.potentials.source import Family, Source, given_file, symbols

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch_sim.models.interface import ModelInterface


def _loader(variant: str) -> Callable[..., ModelInterface]:
    def load(path: Path | None, device: torch.device) -> ModelInterface:
        from torch_sim.models.metatomic import MetatomicModel

        variants = {"energy": variant} if variant else None
        return MetatomicModel(str(path), device=device, variants=variants, uncertainty_threshold=None)

    return load


def _elements(path: Path | None) -> frozenset[str]:
    from metatomic.torch import load_atomistic_model

    return symbols(load_atomistic_model(str(path)).capabilities().atomic_types)


def _from_file(path: Path, head: str) -> Source:
    return Source(
        summary=f"metatomic model {path}" + (f", variant {head}" if head else ""),
        load=_loader(head),
        elements=_elements,
        checkpoint=given_file(path),
        settings=f"variant {head}" if head else "",
        package="metatomic_torchsim",
        extra="metatomic",
        obtain=(
            "on a machine with network run `python -c \"from upet import save_upet; save_upet(model='pet-oam', "
            "size='xl', output='pet-oam-xl.pt')\"`"
        ),
    )


FAMILY = Family(extra="metatomic", distribution="metatomic-torchsim", sources={}, from_file=_from_file)
