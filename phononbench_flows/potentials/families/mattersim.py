"""MatterSim (MIT), the paper's potential; its weights are downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phononbench_flows.potentials.settings import ACCELERATE, ACCELERATION
from phononbench_flows.potentials.source import (
    Download,
    Family,
    Option,
    Source,
    elements_of_mptrj,
    given_file,
    without_heads,
)

if TYPE_CHECKING:
    import torch
    from torch_sim.models.interface import ModelInterface

# MatterSim looks for its checkpoints here and nowhere else, so files that it downloaded itself are found too.
_FOLDER = Path("~/.local/mattersim/pretrained_models")
# The commit pins the files: MatterSim's own downloader follows the branch `main`, without a checksum.
_URL = (
    "https://raw.githubusercontent.com/microsoft/mattersim/296630372948fd35613939d14d3f97daa27cefda/pretrained_models"
)


_OPTIONS = {
    "compile": Option(
        "torch.compile of the network, which takes a minute at first", default=False, gpu=True, accelerates=True
    ),
    ACCELERATE: ACCELERATION,
}


def _load(path: Path | None, device: torch.device, *, compile: bool = False) -> ModelInterface:  # noqa: A002
    import torch
    from mattersim.forcefield import Potential
    from mattersim.torchsim import TorchSimWrapper

    # Weights stay in float32 as published. The wrapper's dtype decides in which precision the graph is built, and
    # in float32 large cells keep edges from an atom to itself, whose forces are NaN.
    loaded = Potential.from_checkpoint(load_path=str(path), device=str(device), load_training_state=False)
    if compile:  # as MatterSim's own calculator does it
        loaded.model.forward = torch.compile(loaded.model.forward, dynamic=True)
    return TorchSimWrapper(loaded, device=device, dtype=torch.float64)


def _source(summary: str, file: Path, download: Download | None = None) -> Source:
    return Source(
        summary=summary,
        load=_load,
        elements=elements_of_mptrj,  # those that it was trained on are the same
        checkpoint=given_file(file),
        download=download,
        threads=True,
        package="mattersim",
        extra="mattersim",
        options=_OPTIONS,
        cutoff=lambda model: model.two_body_cutoff,
    )


def _published(size: str, git_blob: str) -> Source:
    filename = f"mattersim-v1.0.0-{size}.pth"
    return _source(
        f"MatterSim v1.0.0, {size} parameters (MIT); the paper's potential is the 5M one",
        _FOLDER / filename,
        Download(f"{_URL}/{filename}", git_blob),
    )


def _from_file(path: Path, head: str) -> Source:
    without_heads("mattersim", path, head)
    return _source(f"MatterSim checkpoint {path}", path)


FAMILY = Family(
    extra="mattersim",
    distribution="mattersim",
    sources={
        "mattersim-v1-5m": _published("5M", "7641430c8b1a4877eaed73c11920c6ad7f3846d6"),
        "mattersim-v1-1m": _published("1M", "812737ca1933fb8860195a5376986fb82f697212"),
    },
    from_file=_from_file,
)
