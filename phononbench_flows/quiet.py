"""What libraries say on every run, and users can do nothing about."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

_OF_LIBRARIES = ("`torch.jit.script` is deprecated", "cd is deprecated")  # SevenNet's of torch, jobflow's of monty


def ignore_deprecations() -> None:
    """Leave out what libraries should change in their own code."""
    for message in _OF_LIBRARIES:
        warnings.filterwarnings("ignore", message, FutureWarning)


def import_warp_quietly() -> None:
    """Import torch-sim's neighbour lists without what Warp prints, from C, where there is no NVIDIA driver."""
    if "nvalchemiops" in sys.modules or _has_driver():
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import nvalchemiops  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so")
    except OSError:
        return False
    return True
