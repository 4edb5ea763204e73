"""Logarithms of many matrices at once."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
import torch_sim.math as torch_sim_math

from phononbench_flows.engine.matrix_log import batched_logarithms, matrix_log


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-4, 0.1, 1.0])
def test_they_are_those_of_scipy(size):
    """Symmetric or not, eigenvalues equal, nearly equal or complex: what is relaxed has all of these."""
    random = np.random.default_rng(0)
    exponents = [np.zeros((3, 3)), np.eye(3), np.diag([1.0, 1.0, -1.0]), np.diag([1.0, 1.0 + 1e-12, 0.5])]
    exponents += [(m + m.T) / 2 for m in random.normal(size=(10, 3, 3))]
    exponents += [(m - m.T) / 2 for m in random.normal(size=(10, 3, 3))]
    exponents += list(random.normal(size=(20, 3, 3)) / 2)
    matrices = np.array([scipy.linalg.expm(size * each) for each in exponents])
    expected = np.array([scipy.linalg.logm(each) for each in matrices])
    found = matrix_log(torch.tensor(matrices)).numpy()
    np.testing.assert_allclose(found, expected.real, rtol=0, atol=1e-11)


def test_strains_as_large_as_torch_sim_allows():
    exponents = np.array([np.diag([2.0, -2.0, 0.0]), np.diag([2.0, 2.0, 2.0]), np.diag([-2.0, -2.0, -2.0])])
    matrices = np.array([scipy.linalg.expm(each) for each in exponents])
    np.testing.assert_allclose(matrix_log(torch.tensor(matrices)).numpy(), exponents, rtol=0, atol=1e-10)


def test_torch_sim_takes_its_own_again_afterwards():
    theirs = torch_sim_math.matrix_log_33
    with batched_logarithms():
        assert torch_sim_math.matrix_log_33 is not theirs
        found = torch_sim_math.matrix_log_33(torch.eye(3)[None] * 1.1, sim_dtype=torch.float32)
        assert found.dtype == torch.float32
    assert torch_sim_math.matrix_log_33 is theirs
    with pytest.raises(ZeroDivisionError), batched_logarithms():
        _ = 1 / 0
    assert torch_sim_math.matrix_log_33 is theirs
