"""UMA and eSEN of FAIRChem (the code MIT, the models under licences of their own), by FAIRChem's own torch-sim model.

A head is the task that a UMA model shall do: ``fairchem:PATH#omat`` for inorganic crystals. A checkpoint is a pickled
Python object: loading one runs what is in it, so it has to be one that you trust.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phononbench_flows.potentials.source import Family, Source, any_element, given_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch_sim.models.interface import ModelInterface


def _loader(task: str) -> Callable[..., ModelInterface]:
    def load(path: Path | None, device: torch.device) -> ModelInterface:
        from torch_sim.models.fairchem import FairChemModel

        return FairChemModel(str(path), device=device, compute_stress=True, task_name=task or None)

    return load


def _from_file(path: Path, head: str) -> Source:
    return Source(
        summary=f"FAIRChem checkpoint {path}" + (f", task {head}" if head else ""),
        load=_loader(head),
        elements=any_element,
        checkpoint=given_file(path),
        settings=f"task {head}" if head else "",
        package="fairchem.core",
        extra="fairchem",
        obtain="download one from the model page of FAIRChem, once you have accepted its licence",
    )


FAMILY = Family(extra="fairchem", distribution="fairchem-core", sources={}, from_file=_from_file)
