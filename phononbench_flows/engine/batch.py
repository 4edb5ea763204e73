"""Batches in which one bad crystal harms no other.

Everything that the engine catches, it catches here: an exception bisects the batch until the guilty item is
alone, an exhausted memory halves the batches from then on, and a system whose forces are not finite is shown as
such while its neighbours go on. An error of the device is nobody's failure: it ends the run.
"""

from __future__ import annotations

import gc
import logging
import re
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch_sim.models.interface import ModelInterface

from phononbench_flows.bounded import bounded
from phononbench_flows.engine.trouble import DeviceError, Failure, RunEndingError, UndeliverableError
from phononbench_flows.outcomes import Reason

if TYPE_CHECKING:
    import torch_sim as ts

logger = logging.getLogger(__name__)

# Enough to keep every core busy to the end of a call; a finished crystal is written the sooner the smaller this is.
_CPU_ATOMS_PER_CORE = 256
# Where a GPU starts; too large a batch costs one failed call and is halved. SevenNet-0 takes 5.8 MiB an atom.
_GPU_ATOMS_PER_GIB = 128
# Of a GPU's memory: what torch keeps for later, others cannot have, and Warp's neighbour lists are not torch's.
_GPU_SHARE = 0.9


# What CUDA, ROCm and their libraries say when the device is at fault, and every later call would fail as well.
_DEVICE_ERROR = re.compile(
    r"CUDA error|CUDA driver error|HIP error|device-side assert|CUDA-capable device|No CUDA GPUs are available|"
    r"CUBLAS_STATUS|CUDNN_STATUS|cuDNN error|CUSOLVER_STATUS|CUSPARSE_STATUS|NCCL error|Xid|uncorrectable ECC error"
)


def delivering[**P](on_result: Callable[P, None]) -> Callable[P, None]:
    """The same callback, whose exceptions end the run instead of passing for a crystal's failure."""

    def deliver(*result: P.args, **named: P.kwargs) -> None:
        try:
            on_result(*result, **named)
        except RunEndingError:
            raise
        except Exception as error:
            raise UndeliverableError(f"a result could not be delivered: {error}") from error

    return deliver


class Budget:
    """How many atoms go into one call of the model. Shrinks when memory runs out, and stays shrunk."""

    def __init__(self, max_atoms: int) -> None:
        if max_atoms < 1:
            raise ValueError(f"a batch needs at least one atom, not {max_atoms}")
        self.max_atoms = max_atoms

    @classmethod
    def for_device(cls, device: torch.device) -> Budget:
        """A starting budget for this device."""
        if device.type != "cuda":
            return cls(_CPU_ATOMS_PER_CORE * torch.get_num_threads())
        gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        return cls(max(1, int(gib * torch.cuda.get_per_process_memory_fraction(device) * _GPU_ATOMS_PER_GIB)))

    def shrink(self, atoms: int) -> None:
        """Memory did not suffice for that many atoms."""
        self.max_atoms = max(1, min(self.max_atoms, atoms // 2))
        logger.warning("out of memory with %d atoms in a batch; at most %d from now on", atoms, self.max_atoms)

    def fill[T](self, items: Sequence[T], atoms: Callable[[T], int]) -> list[T]:
        """As many of the first items as are within the budget; a first one that exceeds it goes alone."""
        return next(bounded(items, atoms, self.max_atoms))


def limit_memory(device: torch.device, processes: int = 1) -> None:
    """Leave some of a GPU's memory to what is not torch's, and to the other processes that compute on it."""
    if device.type == "cuda":
        share = min(_GPU_SHARE / processes, torch.cuda.get_per_process_memory_fraction(device))
        torch.cuda.set_per_process_memory_fraction(share, device)


def bisect_failures[T](
    items: list[T],
    compute: Callable[[list[T]], None],
    *,
    atoms: Callable[[T], int],
    budget: Budget,
    unfinished: Callable[[T], bool],
    fail: Callable[[T, Failure], None],
) -> None:
    """Compute a batch; if that raises, compute what is unfinished in halves, down to the guilty item.

    Parameters:
        items: the batch.
        compute: computes some of the items and records what it finishes.
        atoms: number of atoms of an item.
        budget: shrinks when memory runs out.
        unfinished: whether an item still has no result.
        fail: records that an item failed.

    Raises:
        DeviceError: the device is at fault.
    """
    failure = _attempt(items, compute)
    if failure is None:
        return
    rest = [item for item in items if unfinished(item)]
    if failure.reason == Reason.OUT_OF_MEMORY:
        budget.shrink(sum(map(atoms, items)))
        _release_memory()
        if len(items) == 1 and rest:  # what torch had kept may have been in the way of another allocator
            failure = _attempt(rest, compute)
            if failure is None:
                return
    if len(items) == 1:
        for item in rest:
            fail(item, failure)
        return
    middle = max(1, len(rest) // 2)
    for half in (rest[:middle], rest[middle:]):
        if half:
            bisect_failures(half, compute, atoms=atoms, budget=budget, unfinished=unfinished, fail=fail)


def _attempt[T](items: list[T], compute: Callable[[list[T]], None]) -> Failure | None:
    """What went wrong with a batch; without its traceback, which holds the tensors of the failed call."""
    try:
        compute(items)
    except RunEndingError:
        raise
    except Exception as error:
        if _is_device_error(error):
            raise DeviceError(f"the device failed: {_first_line(error)}") from error
        logger.debug("batch of %d failed", len(items), exc_info=error)
        return as_failure(error)
    return None


def as_failure(error: Exception) -> Failure:
    """An exception as a reason and a sentence."""
    if is_out_of_memory(error):
        return Failure(Reason.OUT_OF_MEMORY, f"out of memory with this crystal alone: {_first_line(error)}")
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return Failure(
        Reason.EXCEPTION,
        f"{type(error).__name__}: {_first_line(error)}",
        trace="".join(traceback.format_exception(error)),
        kind=" ".join([type(error).__name__, *(f"{frame.filename}:{frame.lineno}" for frame in last)]),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:500]


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch's, or that of another allocator."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Allocators outside torch's own (the CPU's, Warp's, CUDA libraries') say it in words only.
    text = str(error).lower()
    words = ("out of memory", "can't allocate memory", "failed to allocate", "status_alloc_failed")
    return isinstance(error, RuntimeError) and any(each in text for each in words)


def _is_device_error(error: Exception) -> bool:
    """Whether the device is at fault; memory that runs out is not, though CUDA says it in an error too."""
    if is_out_of_memory(error):
        return False
    accelerator = getattr(torch, "AcceleratorError", None)  # of torch since 2.8
    return (accelerator is not None and isinstance(error, accelerator)) or (
        isinstance(error, RuntimeError) and _DEVICE_ERROR.search(str(error)) is not None
    )


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class FiniteOutputModel(ModelInterface):
    """A model whose answer is always finite; ``bad`` says for which systems of the last call it was not.

    Without it one NaN ends the whole batch: torch-sim's Frechet filter and its symmetry constraint raise.
    """

    def __init__(self, model: ModelInterface) -> None:
        super().__init__()
        self.model = model
        self._device, self._dtype = model.device, model.dtype
        self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces
        self.bad = torch.zeros(0, dtype=torch.bool)

    def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Energy (n_systems,) in eV, forces (n_atoms, 3) in eV/Å, stress (n_systems, 3, 3) in eV/Å^3."""
        output = dict(self.model(state, **kwargs))
        bad_atoms = ~torch.isfinite(output["forces"]).all(dim=1)
        bad = torch.zeros(state.n_systems, dtype=torch.bool, device=bad_atoms.device)
        bad = bad.index_put((state.system_idx[bad_atoms],), torch.ones((), dtype=torch.bool, device=bad.device))
        bad = bad | ~torch.isfinite(output["energy"])
        if "stress" in output:
            bad = bad | ~torch.isfinite(output["stress"]).all(dim=(1, 2))
        self.bad = bad
        return {key: torch.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0) for key, value in output.items()}
