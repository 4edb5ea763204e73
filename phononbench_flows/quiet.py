"""What libraries say on every run, and users can do nothing about."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_OF_LIBRARIES = ("`torch.jit.script` is deprecated", "cd is deprecated")  # SevenNet's of torch, jobflow's of monty


def hush_libraries() -> None:
    """Leave out what libraries should change in their own code, and what Warp prints, from C, where there is no NVIDIA
    driver. It is torch-sim's neighbour lists that start Warp, as they are imported, by whomever.
    """
    for message in _OF_LIBRARIES:
        warnings.filterwarnings("ignore", message, FutureWarning)
    if "nvalchemiops" not in sys.modules and not any(isinstance(each, _StartsWarp) for each in sys.meta_path):
        sys.meta_path.insert(0, _StartsWarp())


class _StartsWarp(MetaPathFinder):
    """Finds the one package, and imports it in silence."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "nvalchemiops" or _has_driver():
            return None
        sys.meta_path.remove(self)  # for the others to find it, and since once is enough
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            setattr(spec.loader, "exec_module", partial(_silently, spec.loader.exec_module))  # noqa: B010 (a method)
        return spec


def _silently(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        execute(module)
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
