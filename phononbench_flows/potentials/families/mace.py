"""MACE (the code MIT; some models under the Academic Software License), by its own torch-sim model, in float64.

A checkpoint of MACE is a pickled Python object: loading one runs what is in it, so it has to be one that you trust.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.potentials.neighbours import neighbour_list
from phononbench_flows.potentials.settings import ACCELERATE, ACCELERATION
from phononbench_flows.potentials.source import Family, Option, PotentialError, Source, given_file, symbols

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch_sim.models.interface import ModelInterface

_RUNS_CODE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_OPTIONS = {
    "enable_cueq": Option(
        "convolutions of cuEquivariance",
        default=False,
        package="cuequivariance_torch",
        install="`pip install cuequivariance-torch cuequivariance-ops-torch-cu13` (cu12 for CUDA 12)",
        gpu=True,
        accelerates=True,
    ),
    "enable_oeq": Option(
        "convolutions of OpenEquivariance",
        default=False,
        package="openequivariance",
        install="`pip install openequivariance`",
        gpu=True,
        accelerates=True,
    ),
    ACCELERATE: ACCELERATION,
}


def _loader(head: str) -> Callable[..., ModelInterface]:
    def load(path: Path | None, device: torch.device, **settings: Any) -> ModelInterface:
        import torch

        with _variable_kept():
            from torch_sim.models.mace import MaceModel

            model_class: Any = MaceModel  # where MACE is not installed, torch-sim has another class of that name
            try:
                return model_class(
                    str(path),
                    device=device,
                    dtype=torch.float64,
                    neighbor_list_fn=neighbour_list,
                    head=head or None,
                    **settings,
                )
            except ValueError as error:  # a head that is not there
                raise PotentialError(f"MACE cannot load {path}: {error}") from error

    return load


def _elements(path: Path | None) -> frozenset[str]:
    import torch

    with _variable_kept():
        return symbols(torch.load(str(path), map_location="cpu", weights_only=False).atomic_numbers.tolist())


@contextmanager
def _variable_kept() -> Iterator[None]:
    """Take back what MACE does when it is imported: it lets the checkpoints of all other potentials run code too."""
    before = os.environ.get(_RUNS_CODE)
    try:
        yield
    finally:
        os.environ.pop(_RUNS_CODE, None)
        if before is not None:
            os.environ[_RUNS_CODE] = before


def _source(summary: str, checkpoint: Callable[[], Path], head: str = "") -> Source:
    return Source(
        summary=summary,
        load=_loader(head),
        elements=_elements,
        checkpoint=checkpoint,
        settings=f"head {head}" if head else "",
        package="mace",
        extra="mace",
        options=_OPTIONS,
        cutoff=lambda model: model.r_max,
    )


def _published(summary: str, name: str, file: str) -> Source:
    def checkpoint() -> Path:  # where MACE's own downloader puts it
        return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mace" / file

    download = f"from mace.calculators.foundations_models import download_mace_mp_checkpoint as d; d({name!r})"
    return replace(
        _source(f"{summary}, weights by MACE's own downloader", checkpoint),
        obtain=f'on a machine with network run `python -c "{download}"`, or copy the file there',
    )


def _from_file(path: Path, head: str) -> Source:
    return _source(f"MACE checkpoint {path}" + (f", head {head}" if head else ""), given_file(path), head)


FAMILY = Family(
    extra="mace",
    distribution="mace-torch",
    sources={
        "mace-mpa-0-medium": _published("MACE-MPA-0, medium (MIT)", "medium-mpa-0", "macempa0mediummodel"),
        "mace-omat-0-medium": _published("MACE-OMAT-0, medium (ASL)", "medium-omat-0", "maceomat0mediummodel"),
    },
    from_file=_from_file,
)
