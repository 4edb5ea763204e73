"""A model at its best: the faster of its forms, found by measuring both on a batch of the run.

Some families have the same network in faster code: kernels of cuEquivariance, or ``torch.compile``. Whether that is
faster depends on the card and on the crystals, and making it takes a minute. So a run begins with the plain model. Once
that has computed for a while, each form that can be had here computes a batch beside it: it is used if its answers are
the same and it takes less time. One that cannot be made, answers otherwise, or breaks later, is not used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import is_out_of_memory
from phononbench_flows.potentials.settings import AUTO, MEASURE
from phononbench_flows.potentials.source import Setting, Source, is_installed

if TYPE_CHECKING:
    import torch_sim as ts

logger = logging.getLogger(__name__)

PLAIN = "plain"
PATIENCE = 20.0
"""Seconds of a run before anything is measured: few crystals are done before a network is compiled."""

_TOLERANCES = {"forces": 1e-4, "energy": 1e-4, "stress": 1e-5}  # eV/Å, eV per atom, eV/Å^3
_FASTER = 0.9  # of the plain model's time, at most: less is noise
_TIMES = 3  # calls that are timed; the best counts


def forms(source: Source, settings: Mapping[str, Setting], device: str, how: Setting) -> list[str]:
    """Settings that accelerate a potential and can be tried here; none where the user has chosen one.

    Parameters:
        settings: those that were given.
        how: the setting ``accelerate``: ``auto`` measures on a GPU alone, ``measure`` anywhere.
    """
    on_gpu = device.startswith("cuda")
    offered = {key: option for key, option in source.options.items() if option.accelerates}
    if any(key in settings for key in offered) or not (how == MEASURE or (how == AUTO and on_gpu)):
        return []
    return [
        key
        for key, option in offered.items()
        if (on_gpu or not option.gpu) and (not option.package or is_installed(option.package))
    ]


class FastestForm(ModelInterface):
    """The plain model, until another of its forms has shown on a batch that it is as right, and faster.

    Attributes:
        form: ``plain``, or the setting that gives the form that computes now.
        measured: seconds that the forms took for the batch, or why one is not used.
        patience: seconds of a run before that is measured.
    """

    def __init__(
        self, plain: ModelInterface, others: Mapping[str, Callable[[], ModelInterface]], patience: float = PATIENCE
    ) -> None:
        super().__init__()
        self.form = PLAIN
        self.measured: dict[str, float | str] = {}
        self.concurrent_calls = getattr(plain, "concurrent_calls", 1)
        self._device, self._dtype = plain.device, plain.dtype
        self._compute_stress, self._compute_forces = plain.compute_stress, plain.compute_forces
        self._plain, self._used, self._others = plain, plain, dict(others)
        self.patience, self._began, self._largest = patience, 0.0, 0
        self._choosing = Lock()

    def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the plain model gives, within the tolerances."""
        if self._others and self._choosing.acquire(blocking=False):
            try:
                if self._is_time(state):
                    return self._choose(state, **kwargs)
            finally:
                self._choosing.release()
        used = self._used
        try:
            return used(state, **kwargs)
        except Exception as error:
            if used is self._plain or is_out_of_memory(error):
                raise
            logger.warning("%s failed, the plain model goes on: %s", self.form, error)
            self.measured[self.form] = _said(error)
            self.form, self._used = PLAIN, self._plain
        return self._plain(state, **kwargs)  # which fails too if the device is broken

    def _is_time(self, state: ts.SimState) -> bool:
        """Whether the run is long enough to be worth it, and this a usual batch and not a last small one."""
        self._began = self._began or time.monotonic()
        self._largest = max(self._largest, state.n_atoms)
        return time.monotonic() - self._began >= self.patience and 2 * state.n_atoms >= self._largest

    def _choose(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        wanted, best = _timed(self._plain, state, **kwargs)
        self.measured[PLAIN] = best
        best *= _FASTER
        for form, load in self._others.items():
            try:
                model = load()
                found, seconds = _timed(model, state, **kwargs)
            except Exception as error:  # noqa: BLE001 (whatever compilers and kernels raise)
                if is_out_of_memory(error):  # it needs more than the plain model: not for these batches
                    torch.cuda.empty_cache()
                logger.warning("%s is not used: %s", form, error)
                self.measured[form] = _said(error)
                continue
            apart = _apart(found, wanted, state)
            self.measured[form] = apart or seconds
            if apart:
                logger.warning("%s is not used: %s", form, apart)
            elif seconds < best:
                best, self.form, self._used = seconds, form, model
        self._others = {}
        return wanted


def _timed(model: ModelInterface, state: ts.SimState, **kwargs: Any) -> tuple[dict[str, torch.Tensor], float]:
    """What a model gives, and the seconds that it takes once it is warm."""
    output = dict(model(state, **kwargs))
    model(state, **kwargs)["energy"].cpu()
    seconds = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        model(state, **kwargs)["energy"].cpu()  # a GPU is done only when a number has come back
        seconds.append(time.perf_counter() - began)
    return output, min(seconds)


def _apart(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], state: ts.SimState) -> str:
    """How answers differ by more than they may, in words; empty if they do not."""
    for key, tolerance in _TOLERANCES.items():
        if key not in wanted:
            continue
        known = torch.isfinite(wanted[key])  # a crystal that the plain model cannot compute tells nothing
        difference = (found[key] - wanted[key]).abs()
        if key == "energy":
            difference = difference / state.n_atoms_per_system
        largest = float(difference[known].max()) if known.any() else 0.0
        if not largest <= tolerance:  # NaN is not
            return f"its {key} differ by {largest:.2g} from the plain model's"
    return ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
