"""CHGNet (BSD); its weights come with its package. torch-sim has no model for it, so this file does."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from phononbench_flows.potentials.source import (
    Family,
    Source,
    elements_of_mptrj,
    given_file,
    package_file,
    without_heads,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch_sim.models.interface import ModelInterface

# CHGNet's converter switches the garbage collector off and on again; two at once would leave it off.
_ONE_AT_A_TIME = Lock()


def _load(path: Path | None, device: torch.device) -> ModelInterface:
    import torch
    import torch_sim as ts
    from ase import units
    from chgnet.model import CHGNet
    from torch_sim.models.interface import ModelInterface

    # CHGNet's own loader would let the file run code.
    saved = torch.load(str(path), map_location="cpu", weights_only=True)["model"]
    with redirect_stdout(StringIO()):  # it says how many parameters it has
        network = CHGNet.from_dict(saved, mlp_out_bias=False).to(device).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # only gradients by position and strain are wanted

    class ChgnetModel(ModelInterface):
        """Energies (eV), forces (eV/Å) and stresses (eV/Å^3) of many crystals, by CHGNet's own graphs."""

        def __init__(self) -> None:
            super().__init__()
            # The graph is made from the state in float64; the network computes in float32.
            self._device, self._dtype, self._model_dtype = device, torch.float64, torch.float32
            self._compute_stress = self._compute_forces = True
            self.network = network

        def forward(self, state: ts.SimState, **_: object) -> dict[str, torch.Tensor]:
            with _ONE_AT_A_TIME:
                graphs = [network.graph_converter(s).to(device) for s in ts.io.state_to_structures(state)]
            output = network(graphs, task="efs")
            atoms = state.n_atoms_per_system if network.is_intensive else 1
            return {
                "energy": (output["e"].detach() * atoms).to(torch.float64),
                "forces": torch.cat(output["f"]).detach().to(torch.float64),
                "stress": torch.stack(list(output["s"])).detach().to(torch.float64) * units.GPa,
            }

    return ChgnetModel()


def _source(summary: str, checkpoint: Callable[[], Path]) -> Source:
    return Source(
        summary=summary,
        load=_load,
        elements=elements_of_mptrj,
        checkpoint=checkpoint,
        threads=True,
        package="chgnet",
        extra="chgnet",
        cutoff=lambda model: model.network.graph_converter.atom_graph_cutoff,
    )


def _shipped(summary: str, file: str) -> Source:
    source = _source(
        f"{summary} (BSD), weights come with the extra `chgnet`", package_file("chgnet", f"pretrained/{file}")
    )
    return replace(source, obtain="they come with CHGNet: `pip install --force-reinstall --no-deps chgnet`")


def _from_file(path: Path, head: str) -> Source:
    without_heads("chgnet", path, head)
    return _source(f"CHGNet checkpoint {path}", given_file(path))


FAMILY = Family(
    extra="chgnet",
    distribution="chgnet",
    sources={
        "chgnet-0.3.0": _shipped("CHGNet 0.3.0", "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"),
        "chgnet-r2scan": _shipped("CHGNet for r2SCAN", "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar"),
    },
    from_file=_from_file,
)
