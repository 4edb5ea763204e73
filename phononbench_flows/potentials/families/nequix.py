"""Nequix (MIT), by its own torch-sim model, in float64; PFT names the models trained on phonons too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from phononbench_flows.potentials.neighbours import neighbour_list
from phononbench_flows.potentials.settings import ACCELERATE, ACCELERATION
from phononbench_flows.potentials.source import Family, Option, Source, any_element, given_file, without_heads

if TYPE_CHECKING:
    import torch
    from torch_sim.models.interface import ModelInterface

# Where Nequix' own downloader puts its files. It writes a converted copy beside them; ours are always the published.
_FOLDER = Path("~/.cache/nequix/models")
_OPTIONS = {
    "use_kernel": Option(
        "convolutions of OpenEquivariance",
        default=False,
        package="openequivariance",
        install="`pip install openequivariance`",
        gpu=True,
        accelerates=True,
    ),
    ACCELERATE: ACCELERATION,
}


def _load(path: Path | None, device: torch.device, *, use_kernel: bool = False) -> ModelInterface:
    from torch_sim.models.nequix import NequixModel

    with TemporaryDirectory() as folder:  # a file of JAX (.nqx) is converted, and the result written beside it
        link = Path(folder) / Path(str(path)).name
        link.symlink_to(str(path))
        return NequixModel(link, use_kernel, device=device, neighbor_list_fn=neighbour_list)


def _source(summary: str, file: Path) -> Source:
    return Source(
        summary=summary,
        load=_load,
        elements=any_element,
        checkpoint=given_file(file),
        package="nequix",
        extra="nequix",
        options=_OPTIONS,
    )


def _published(name: str) -> Source:
    download = f"from nequix.calculator import from_pretrained as f; f({name!r}, backend='jax', use_kernel=False)"
    summary = f"Nequix {name.removeprefix('nequix-')} (MIT), weights by Nequix' own downloader"
    return replace(
        _source(summary, _FOLDER / f"{name}.nqx"),
        obtain=f'on a machine with network run `python -c "{download}"`, or copy the file there',
    )


def _from_file(path: Path, head: str) -> Source:
    without_heads("nequix", path, head)
    return _source(f"Nequix checkpoint {path}", path)


FAMILY = Family(
    extra="nequix",
    distribution="nequix",
    sources={name: _published(name) for name in ("nequix-mp-1", "nequix-mp-1-pft", "nequix-oam-1-pft")},
    from_file=_from_file,
)
