"""From a name to a model that takes and gives float64."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from phononbench_flows.potentials import registry
from phononbench_flows.potentials.checkpoints import identify, require_package, require_weights
from phononbench_flows.potentials.potential import CUTOFF, Potential
from phononbench_flows.potentials.settings import ACCELERATE, AUTO, checked, require
from phononbench_flows.potentials.source import PotentialError, Setting, Source

if TYPE_CHECKING:
    import torch
    import torch_sim as ts
    from torch_sim.models.interface import ModelInterface


def load(name: str, device: str = "auto", settings: Mapping[str, Setting] | None = None) -> Potential:
    """Load a potential, once per process, name, device and settings.

    Parameters:
        name: see the docstring of ``phononbench_flows.potentials``.
        device: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        settings: values of the source's options, by name.

    Raises:
        PotentialError: see ``identify``; or a setting that the potential does not have or that cannot be had here.
    """
    source = registry.find_source(name)
    require_package(name, source)
    given = checked(name, source, settings)
    device = resolved(device)
    require(source, given, device)
    return _load(name, device, tuple(given.items()))


def resolved(device: str) -> str:
    """What ``auto`` means here: the first GPU, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_asked(name: str, device: str, settings: Mapping[str, Setting] | None = None) -> None:
    """Make sure that a potential can be asked for so, as far as that is known without importing anything of it.

    Raises:
        PotentialError: there is no such potential, device or setting, or its package or weights are not here.
    """
    source = registry.find_source(name)
    require_package(name, source)
    checked(name, source, settings)
    check_device(device)
    if source.checkpoint is not None:
        require_weights(name, source)


def check_device(device: str) -> None:
    """Make sure that a device can be asked for by this name.

    Raises:
        PotentialError: it cannot.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise PotentialError(f"there is no device {device!r}: use auto, cpu, cuda or cuda:N")


@lru_cache(maxsize=4)
def _load(name: str, device: str, settings: tuple[tuple[str, Setting], ...]) -> Potential:
    checkpoint = identify(name)
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0") not in {"", "0"}:
        raise PotentialError("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets a checkpoint run code: unset it")
    import torch

    from phononbench_flows.engine.batch import limit_memory
    from phononbench_flows.potentials.acceleration import FastestForm, forms

    limit_memory(torch.device(device))
    if device == "cpu":
        _keep_freed_memory()
    source = checkpoint.source
    given = dict(settings)
    how = given.pop(ACCELERATE, AUTO)
    try:
        model = source.load(checkpoint.path, torch.device(device), **given)
        elements = source.elements(checkpoint.path)
        cutoff = CUTOFF if source.cutoff is None else float(source.cutoff(model))
    except (PotentialError, ImportError):
        raise
    except Exception as error:  # whatever a family's own code makes of a file that is broken, or none of its own
        said = (str(error).splitlines() or [""])[0][:300]
        raise PotentialError(f"{name} cannot be loaded: {type(error).__name__}: {said}") from error
    dtype = str(getattr(model, "_model_dtype", model.dtype)).removeprefix("torch.")
    model = _ready(model, source, device)
    if others := forms(source, given, device, how):

        def accelerated(setting: str) -> ModelInterface:
            loaded = source.load(checkpoint.path, torch.device(device), **given, **{setting: True})
            return _ready(loaded, source, device)

        model = FastestForm(model, {setting: partial(accelerated, setting) for setting in others})
    return Potential(
        name=name,
        model=model,
        checkpoint_sha256=checkpoint.sha256,
        elements=elements,
        dtype=dtype,
        device=device,
        settings=dict(settings),
        cutoff=cutoff,
    )


def _ready(model: ModelInterface, source: Source, device: str) -> ModelInterface:
    """A family's model as it is called here: in float64, and on all cores of a CPU where it bears that."""
    import torch

    if model.dtype != torch.float64:
        model = _in_float64(model)
    if device == "cpu" and source.threads and torch.get_num_threads() > 1:
        from phononbench_flows.engine.threaded import ThreadedModel

        model = ThreadedModel(model, torch.get_num_threads())
    return model


def _in_float64(model: ModelInterface) -> ModelInterface:
    """Take a float64 state to a model of lower precision and its answer back.

    Relaxation and symmetry need the state in float64 whatever the network computes in: in float32 a relaxed
    crystal loses its symmetry at phonopy's 1e-5 Å, and each lost operation costs displaced supercells.
    """
    import torch
    import torch_sim as ts
    from torch_sim.models.interface import ModelInterface

    class InFloat64(ModelInterface):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self._device, self._dtype = model.device, torch.float64
            self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces

        def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
            cast = ts.SimState(
                positions=state.positions.to(model.dtype),
                masses=state.masses.to(model.dtype),
                cell=state.cell.to(model.dtype),
                pbc=state.pbc,
                atomic_numbers=state.atomic_numbers,
                system_idx=state.system_idx,
            )
            return {key: value.to(torch.float64) for key, value in model(cast, **kwargs).items()}

    return InFloat64()


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks, where there is a glibc.

    By default every tensor above 128 kB to 32 MB is mapped afresh and given back at once, and the page faults cost
    more than the arithmetic: batched forces of SevenNet-0 on two cores ran 2.5 times faster with this.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # names and numbers from glibc's malloc.h
    mallopt(arena_max, 1)  # the arenas of other threads are too small for our arrays, which would be mapped again
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 256 << 20)
