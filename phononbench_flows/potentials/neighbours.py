"""Neighbours of the atoms of many crystals at once."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The first launch of one of Warp's kernels fails where another thread launches it too.
_ONE_AT_A_TIME = Lock()


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
