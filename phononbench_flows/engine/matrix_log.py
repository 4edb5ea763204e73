"""The logarithm of many 3 x 3 matrices in one call of the device.

torch-sim's ``matrix_log_33`` looks at eigenvalues, and goes to scipy matrix by matrix wherever two of them are nearly
equal or complex: with hundreds of crystals a step of FIRE waits for it. The integral of 1/(1 + t (A - 1)) over t from 0
to 1, times A - 1, is the logarithm of A (Higham, Functions of Matrices, SIAM 2008, section 11.4); Gauss' quadrature of
it takes one solution of linear equations for all matrices and points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import torch_sim.math as torch_sim_math

_POINTS = 24  # the error is below 1e-13 for strains of up to e^2, where torch-sim clamps them


def matrix_log(matrices: torch.Tensor) -> torch.Tensor:
    """Logarithms of matrices (n, 3, 3) without eigenvalues on the negative real axis, in their precision."""
    t, w = _quadrature(matrices.dtype, matrices.device)
    identity = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    rest = matrices - identity
    return (w * torch.linalg.solve(identity + t * rest, rest.expand(_POINTS, *rest.shape))).sum(dim=0)


@cache
def _quadrature(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights on [0, 1], (_POINTS, 1, 1, 1), once for each device: every step of every batch needs them."""
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    t, w = (torch.as_tensor(each, dtype=dtype, device=device) for each in ((nodes + 1) / 2, weights / 2))
    return t[:, None, None, None], w[:, None, None, None]


@contextmanager
def batched_logarithms() -> Iterator[None]:
    """Let torch-sim's optimizers take their logarithms from here while the block lasts."""
    theirs = torch_sim_math.matrix_log_33

    def ours(
        matrix: torch.Tensor,
        sim_dtype: torch.dtype = torch.float64,
        fallback_warning: bool = False,  # noqa: ARG001 -- torch-sim's signature
    ) -> torch.Tensor:
        return matrix_log(matrix.to(torch.float64)).to(sim_dtype)

    torch_sim_math.matrix_log_33 = ours
    try:
        yield
    finally:
        torch_sim_math.matrix_log_33 = theirs
