"""NequIP and Allegro (MIT), by their own torch-sim model, from a model compiled for the device.

A compiled model is a program: it has to be one that you made or trust.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phononbench_flows.potentials.source import Family, Source, any_element, given_file, without_heads

if TYPE_CHECKING:
    import torch
    from torch_sim.models.interface import ModelInterface


def _load(path: Path | None, device: torch.device) -> ModelInterface:
    from torch_sim.models.nequip_framework import NequIPFrameworkModel

    return NequIPFrameworkModel.from_compiled_model(str(path), device=device)


def _from_file(path: Path, head: str) -> Source:
    without_heads("nequip", path, head)
    return Source(
        summary=f"NequIP or Allegro model {path}",
        load=_load,
        elements=any_element,
        checkpoint=given_file(path),
        package="nequip",
        extra="nequip",
        obtain=(
            "on a machine with network and the same kind of device run `nequip-compile "
            "nequip.net:mir-group/NequIP-OAM-L:0.1 model.nequip.pt2 --mode aotinductor --device cuda --target batch`"
        ),
    )


FAMILY = Family(extra="nequip", distribution="nequip", sources={}, from_file=_from_file)
