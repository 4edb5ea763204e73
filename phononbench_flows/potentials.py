"""Interatomic potentials: a name or a path becomes a torch-sim model in float64 with a known checkpoint.

This is the only module that imports mattersim or sevenn. A potential is named in one of four ways: one of the
built-in names, the path of a MatterSim checkpoint, a name that an installed package offers in the entry point
group ``phononbench_flows.potentials``, or ``package.module:attribute``. The last two lead to a :class:`Source`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.files import replacing

if TYPE_CHECKING:
    import torch
    from torch_sim.models.interface import ModelInterface

    from phononbench_flows.documents import PotentialRecord

ENTRY_POINT_GROUP = "phononbench_flows.potentials"
DEFAULT = "mattersim-v1-5m"
# MatterSim looks for its checkpoints here and nowhere else, so files that it downloaded itself are found too.
MATTERSIM_FOLDER = Path("~/.local/mattersim/pretrained_models")
# The commit pins the files: MatterSim's own downloader follows the branch `main`, without a checksum.
MATTERSIM_URL = (
    "https://raw.githubusercontent.com/microsoft/mattersim/296630372948fd35613939d14d3f97daa27cefda/pretrained_models"
)
_DOWNLOAD_TIMEOUT_S = 60.0
# The first launch of one of Warp's kernels fails where another thread launches it too.
_ONE_AT_A_TIME = Lock()


class PotentialError(PhononBenchError):
    """A potential that cannot be used here; the message says what to do about it."""


@dataclass(frozen=True)
class Download:
    """Where a checkpoint can be had, and the git object id that its bytes must have."""

    url: str
    git_blob: str


@dataclass(frozen=True)
class Source:
    """How one potential is found, identified and loaded.

    Attributes:
        summary: one line for ``phononbench potentials``.
        load: makes the torch-sim model from the checkpoint and the device. Its dtype may be float32; it is
            brought to float64 here.
        elements: symbols of the elements that it was made for, from the checkpoint; None if it takes any.
        checkpoint: path of the weights, raising :class:`PotentialError` if they cannot be there; None for a
            potential without weights.
        settings: identifies a potential without weights; hashed in place of a checkpoint.
        download: where ``phononbench potentials fetch`` gets the weights.
        threads: whether several threads may call the model at once; on a CPU it then runs on all cores.
    """

    summary: str
    load: Callable[[Path | None, torch.device], ModelInterface]
    elements: Callable[[Path | None], frozenset[str] | None]
    checkpoint: Callable[[], Path] | None = None
    settings: str = ""
    download: Download | None = None
    threads: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A potential identified but not loaded."""

    name: str
    source: Source
    path: Path | None
    sha256: str


@dataclass(frozen=True)
class Potential:
    """A loaded potential: ``model`` takes and gives float64."""

    name: str
    model: ModelInterface
    checkpoint_sha256: str
    elements: frozenset[str] | None
    dtype: str
    device: str

    def record(self) -> PotentialRecord:
        """What a document says of it."""
        from phononbench_flows.documents import PotentialRecord

        return PotentialRecord(
            name=self.name, checkpoint_sha256=self.checkpoint_sha256, dtype=self.dtype, device=self.device
        )


# ---------------------------------------------------------------------------------------------- built-in sources


def _symbols(numbers: range | list[int], without: tuple[str, ...] = ()) -> frozenset[str]:
    from ase.data import chemical_symbols

    return frozenset(chemical_symbols[z] for z in numbers) - set(without)


def _load_mattersim(path: Path | None, device: torch.device) -> ModelInterface:
    import torch
    from mattersim.forcefield import Potential as MatterSimPotential
    from mattersim.torchsim import TorchSimWrapper

    # Weights stay in float32 as published. The wrapper's dtype decides in which precision the graph is built, and
    # in float32 large cells keep edges from an atom to itself, whose forces are NaN.
    loaded = MatterSimPotential.from_checkpoint(load_path=str(path), device=str(device), load_training_state=False)
    return TorchSimWrapper(loaded, device=device, dtype=torch.float64)


def _mattersim_elements(_: Path | None) -> frozenset[str]:
    # MatterSim was trained on 89 elements: the first 94 without these five.
    return _symbols(range(1, 95), without=("Po", "At", "Rn", "Fr", "Ra"))


def _mattersim(size: str, git_blob: str) -> Source:
    filename = f"mattersim-v1.0.0-{size}.pth"
    return Source(
        summary=f"MatterSim v1.0.0, {size} parameters (MIT); the paper's potential is the 5M one",
        load=_load_mattersim,
        elements=_mattersim_elements,
        checkpoint=lambda: MATTERSIM_FOLDER.expanduser() / filename,
        download=Download(f"{MATTERSIM_URL}/{filename}", git_blob),
        threads=True,
    )


def _load_sevennet(path: Path | None, device: torch.device) -> ModelInterface:
    import torch
    from sevenn.torchsim import SevenNetModel

    # TorchScript's fuser compiles anew as the number of edges changes, and in a batched relaxation it often does:
    # 14 calls on batches of 1 to 6 small crystals took 68 s with it and 3 s without, on two CPU cores.
    torch.jit.set_fusion_strategy([("DYNAMIC", 0)])
    model = SevenNetModel(str(path), device=device, neighbor_list_fn=neighbour_list)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # only gradients by position are wanted
    return model


def neighbour_list(
    positions: torch.Tensor, cell: torch.Tensor, pbc: torch.Tensor, cutoff: float, system_idx: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """torch-sim's neighbour list, also for crystals denser than it allows for (5 Å^3 per atom at 5 Å)."""
    from nvalchemiops.neighbors.neighbor_utils import NeighborOverflowError
    from torch_sim.neighbors import torch_nl_linked_cell, torchsim_nl

    try:
        with _ONE_AT_A_TIME:
            return torchsim_nl(positions, cell, pbc, cutoff, system_idx)
    except NeighborOverflowError:
        return torch_nl_linked_cell(positions, cell, pbc, cutoff, system_idx)


def _sevennet_elements(path: Path | None) -> frozenset[str]:
    from sevenn.util import load_checkpoint

    return _symbols(list(load_checkpoint(str(path)).config["_type_map"]))


def _sevennet(keyword: str, summary: str) -> Source:
    def checkpoint() -> Path:
        if find_spec("sevenn") is None:
            raise PotentialError("SevenNet is not installed: install the extra `phononbench-flows[sevennet]` (GPL)")
        from sevenn.util import pretrained_name_to_path

        return Path(pretrained_name_to_path(keyword))

    return Source(
        summary=summary, load=_load_sevennet, elements=_sevennet_elements, checkpoint=checkpoint, threads=True
    )


BUILT_IN: dict[str, Source] = {
    "mattersim-v1-5m": _mattersim("5M", "7641430c8b1a4877eaed73c11920c6ad7f3846d6"),
    "mattersim-v1-1m": _mattersim("1M", "812737ca1933fb8860195a5376986fb82f697212"),
    "sevennet-0": _sevennet("7net-0", "SevenNet-0 (11 July 2024), weights come with the extra `sevennet` (GPL)"),
    "sevennet-l3i5": _sevennet("7net-l3i5", "SevenNet-l3i5, weights come with the extra `sevennet` (GPL)"),
}


# ------------------------------------------------------------------------------------------------- finding one


def names() -> list[str]:
    """Names that can be asked for: the built-in ones, then those that installed packages offer."""
    return [*BUILT_IN, *sorted(e.name for e in entry_points(group=ENTRY_POINT_GROUP) if e.name not in BUILT_IN)]


def find_source(name: str) -> Source:
    """The source behind a name, a path of a MatterSim checkpoint, or ``module:attribute``.

    Raises:
        PotentialError: there is no such potential.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    source: Any = None
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            source = entry.load()
    if source is None and Path(name).suffix == ".pth":
        return Source(
            summary=f"MatterSim checkpoint {name}",
            load=_load_mattersim,
            elements=_mattersim_elements,
            checkpoint=lambda: Path(name).expanduser().absolute(),
            threads=True,
        )
    if source is None and ":" in name:
        try:
            source = resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise PotentialError(f"potential {name!r} cannot be imported: {error}") from error
    if source is None:
        raise PotentialError(
            f"no potential {name!r}: use one of {', '.join(names())}, the path of a MatterSim checkpoint (.pth), "
            "or package.module:source"
        )
    if not isinstance(source, Source):
        raise PotentialError(f"potential {name!r} leads to a {type(source).__name__}, not to a potentials.Source")
    return source


def identify(name: str) -> Checkpoint:
    """Find a potential's checkpoint and hash it, without loading it.

    Raises:
        PotentialError: unknown, its weights are not here, or they are not the published ones.
    """
    source = find_source(name)
    if source.checkpoint is None:
        return Checkpoint(name, source, None, hashlib.sha256(source.settings.encode()).hexdigest())
    path = source.checkpoint()
    try:
        data = path.read_bytes()
    except OSError as error:
        how = (
            f"on a machine with network run `phononbench potentials fetch {name}`, or copy the file there"
            if source.download
            else "give the path of a checkpoint that exists"
        )
        raise PotentialError(f"the weights of {name} are not at {path}: {how}") from error
    if source.download and _git_blob(data) != source.download.git_blob:
        raise PotentialError(
            f"{path} is not the published checkpoint of {name} (damaged or half downloaded?): "
            f"delete it and run `phononbench potentials fetch {name}`"
        )
    return Checkpoint(name, source, path, hashlib.sha256(data).hexdigest())


def load(name: str, device: str = "auto") -> Potential:
    """Load a potential, once per process, name and device.

    Parameters:
        name: see the module's docstring.
        device: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        PotentialError: see :func:`identify`.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return _load(name, device)


@lru_cache(maxsize=4)
def _load(name: str, device: str) -> Potential:
    checkpoint = identify(name)
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0") not in {"", "0"}:
        raise PotentialError("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets a checkpoint run code: unset it")
    import torch

    if device == "cpu":
        _keep_freed_memory()
    model = checkpoint.source.load(checkpoint.path, torch.device(device))
    dtype = str(getattr(model, "_model_dtype", model.dtype)).removeprefix("torch.")
    if model.dtype != torch.float64:
        model = _in_float64(model)
    if device == "cpu" and checkpoint.source.threads and torch.get_num_threads() > 1:
        from phononbench_flows.engine.threaded import ThreadedModel

        model = ThreadedModel(model, torch.get_num_threads())
    return Potential(
        name=name,
        model=model,
        checkpoint_sha256=checkpoint.sha256,
        elements=checkpoint.source.elements(checkpoint.path),
        dtype=dtype,
        device=device,
    )


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


# -------------------------------------------------------------------------------------------------- fetching one


def _git_blob(data: bytes) -> str:
    """Object id that git gives to a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def fetch(name: str) -> Path:
    """Download a potential's weights to where they belong; the file appears there whole and checked, or not at all.

    Raises:
        PotentialError: nothing to download, no network, or the bytes are not the published ones.
    """
    source = find_source(name)
    if source.download is None or source.checkpoint is None:
        raise PotentialError(f"{name} has nothing to download")
    path = source.checkpoint()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(source.download.url, timeout=_DOWNLOAD_TIMEOUT_S) as response:  # noqa: S310 (a constant of ours)
            data = response.read()
    except (URLError, OSError) as error:
        raise PotentialError(f"{source.download.url} cannot be downloaded: {error}") from error
    if _git_blob(data) != source.download.git_blob:
        raise PotentialError(f"{source.download.url} did not send the published checkpoint; nothing was written")
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path


def readiness(name: str) -> str:
    """``ready``, or the sentence that says what is missing."""
    try:
        identify(name)
    except PotentialError as error:
        return str(error)
    return "ready"
