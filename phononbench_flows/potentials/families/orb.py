"""ORB v3 (Apache-2.0), by its own torch-sim model.

A checkpoint has the weights alone, so a path needs the name of the model: ``orb:PATH#orb-v3-conservative-inf-omat``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.potentials.settings import ACCELERATE, ACCELERATION
from phononbench_flows.potentials.source import Family, Option, PotentialError, Source, any_element, given_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch_sim.models.interface import ModelInterface

_OPTIONS = {
    "compile": Option("torch.compile of the network", default=False, accelerates=True),
    ACCELERATE: ACCELERATION,
}


def _loader(name: str) -> Callable[..., ModelInterface]:
    def load(path: Path | None, device: torch.device, *, compile: bool = False) -> ModelInterface:  # noqa: A002
        import torch
        from torch_sim.models.orb import OrbModel

        build = _models().get(name)
        if build is None:
            raise PotentialError(f"ORB has no model {name!r}: name one by orb:PATH#MODEL, of {', '.join(_models())}")
        # `highest` keeps float32 whole, where ORB's default lets a GPU round the factors of products.
        network, adapter = build(
            weights_path=str(path), device=str(device), precision="float32-highest", compile=compile
        )
        return OrbModel(network, adapter, device=device, dtype=torch.float32)

    return load


def _models() -> dict[str, Any]:
    """Those whose forces are gradients of their energy; the others' force constants are not those of any crystal."""
    from orb_models.forcefield.pretrained import ORB_PRETRAINED_MODELS

    return {name: build for name, build in ORB_PRETRAINED_MODELS.items() if name.startswith("orb-v3-conservative")}


def _source(summary: str, name: str, checkpoint: Callable[[], Path]) -> Source:
    return Source(
        summary=summary,
        load=_loader(name),
        elements=any_element,
        checkpoint=checkpoint,
        settings=f"model {name}",
        package="orb_models",
        extra="orb",
        options=_OPTIONS,
    )


def _published(name: str, trained_on: str) -> Source:
    download = f"from orb_models.forcefield.pretrained import ORB_PRETRAINED_MODELS as m; m[{name!r}](device='cpu')"
    obtain = f'on a machine with network run `python -c "{download}"`'

    def checkpoint() -> Path:
        from inspect import signature

        from cached_path import find_latest_cached, get_cache_dir

        url = signature(_models()[name]).parameters["weights_path"].default
        found = find_latest_cached(url, get_cache_dir())  # where ORB's own downloader puts it
        if found is None:
            raise PotentialError(f"the weights of {name} are not in {get_cache_dir()}: {obtain}")
        return Path(found)

    summary = f"ORB v3 {trained_on} (Apache-2.0), weights by ORB's own downloader"
    return replace(_source(summary, name, checkpoint), obtain=obtain)


def _from_file(path: Path, head: str) -> Source:
    return _source(f"ORB checkpoint {path}, model {head}", head, given_file(path))


FAMILY = Family(
    extra="orb",
    distribution="orb-models",
    sources={
        "orb-v3-conservative-inf-omat": _published(
            "orb-v3-conservative-inf-omat", "conservative, all neighbours, OMat24"
        ),
        "orb-v3-conservative-inf-mpa": _published(
            "orb-v3-conservative-inf-mpa", "conservative, all neighbours, MPtrj and Alexandria"
        ),
    },
    from_file=_from_file,
)
