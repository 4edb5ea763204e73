"""SevenNet (MIT since 0.13); the weights of the first models come with its package."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.potentials.neighbours import neighbour_list
from phononbench_flows.potentials.settings import ACCELERATE, ACCELERATION
from phononbench_flows.potentials.source import (
    Family,
    Option,
    PotentialError,
    Source,
    elements_of_mptrj,
    given_file,
    package_file,
    symbols,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch_sim.models.interface import ModelInterface

_OPTIONS = {
    "enable_cueq": Option(
        "convolutions of cuEquivariance",
        default=False,
        package="cuequivariance_torch",
        install="`pip install 'sevenn[cueq13]'` (cueq12 for CUDA 12)",
        gpu=True,
        accelerates=True,
    ),
    "enable_flash": Option(
        "convolutions of FlashTP",
        default=False,
        package="flashTP_e3nn",
        install="build it from its source, as SevenNet's documentation says",
        gpu=True,
        accelerates=True,
    ),
    "enable_oeq": Option(
        "convolutions of OpenEquivariance",
        default=False,
        package="openequivariance",
        install="`pip install 'sevenn[oeq]'`",
        gpu=True,
        accelerates=True,
    ),
    ACCELERATE: ACCELERATION,
}
# Where SevenNet finds out whether it can use each; if it cannot, it warns and goes on without.
_AVAILABLE = {
    "enable_cueq": ("sevenn.nn.cue_helper", "is_cue_available"),
    "enable_flash": ("sevenn.nn.flash_helper", "is_flash_available"),
    "enable_oeq": ("sevenn.nn.oeq_helper", "is_oeq_available"),
}


def _loader(head: str) -> Callable[..., ModelInterface]:
    def load(path: Path | None, device: torch.device, **settings: Any) -> ModelInterface:
        import torch
        from sevenn.torchsim import SevenNetModel

        _require_accelerators(settings)
        # TorchScript's fuser compiles anew as the number of edges changes, and in a batched relaxation it often does:
        # 14 calls on batches of 1 to 6 small crystals took 68 s with it and 3 s without, on two CPU cores.
        torch.jit.set_fusion_strategy([("DYNAMIC", 0)])
        try:
            model = SevenNetModel(
                str(path), modal=head or None, device=device, neighbor_list_fn=neighbour_list, **settings
            )
        except ValueError as error:  # a head that is not there, or one that is missing
            raise PotentialError(f"SevenNet cannot load {path}: {error} (sevennet:PATH#HEAD names a head)") from error
        for parameter in model.parameters():
            parameter.requires_grad_(False)  # only gradients by position are wanted
        return model

    return load


def _require_accelerators(settings: dict[str, Any]) -> None:
    if len(settings) > 1:
        raise PotentialError(f"only one of {', '.join(settings)} can be used at a time")
    for key in settings:
        module, function = _AVAILABLE[key]
        if not getattr(import_module(module), function)():
            raise PotentialError(f"SevenNet says that {key} cannot be used here, though its package is installed")


def _elements(path: Path | None) -> frozenset[str]:
    from sevenn.util import load_checkpoint

    return symbols(load_checkpoint(str(path)).config["_type_map"])


def _source(summary: str, checkpoint: Callable[[], Path], head: str = "") -> Source:
    return Source(
        summary=summary,
        load=_loader(head),
        elements=_elements,
        checkpoint=checkpoint,
        settings=f"head {head}" if head else "",
        threads=True,
        package="sevenn",
        extra="sevennet",
        options=_OPTIONS,
        cutoff=lambda model: model.cutoff,
    )


def _shipped(summary: str, file: str, head: str = "") -> Source:
    source = _source(
        f"{summary} (MIT), weights come with the extra `sevennet`",
        package_file("sevenn", f"pretrained_potentials/{file}"),
        head,
    )
    # To ask the checkpoint is to import torch, for seconds: also where crystals are only handed out.
    source = replace(source, elements=elements_of_mptrj)
    return replace(source, obtain="they come with SevenNet: `pip install --force-reinstall --no-deps sevenn`")


def _from_file(path: Path, head: str) -> Source:
    return _source(f"SevenNet checkpoint {path}" + (f", head {head}" if head else ""), given_file(path), head)


_MF_0 = "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth"

FAMILY = Family(
    extra="sevennet",
    distribution="sevenn",
    sources={
        "sevennet-0": _shipped("SevenNet-0 (11 July 2024)", "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"),
        "sevennet-l3i5": _shipped("SevenNet-l3i5", "SevenNet_l3i5/checkpoint_l3i5.pth"),
        "sevennet-mf-0-pbe": _shipped("SevenNet-MF-0, its head for PBE", _MF_0, "PBE"),
        "sevennet-mf-0-r2scan": _shipped("SevenNet-MF-0, its head for r2SCAN", _MF_0, "R2SCAN"),
    },
    from_file=_from_file,
)
