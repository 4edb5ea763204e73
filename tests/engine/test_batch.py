"""What is a crystal's fault, what is the memory's, and what is the device's."""

from __future__ import annotations

import pytest
import torch
from toy_potentials import Toy

from phononbench_flows.engine.batch import Budget, as_failure, bisect_failures, limit_memory
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.relax import relax
from phononbench_flows.engine.trouble import Failure, MachineError
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import PRESETS

PAPER = PRESETS["paper"]


def raising(error: Exception, *, above: int = 0) -> Toy:
    """A potential that raises this for more atoms in a call than that."""

    def watch(state) -> None:
        if state.n_atoms > above:
            raise error

    return Toy(watch)


OF_THE_DEVICE = [
    RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ..."),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("HIP error: invalid device function"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasDgemm`"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
]
OF_THE_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("HIP out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("Failed to allocate 36 bytes on device 'cuda:0'"),  # Warp's
    MemoryError("no room"),
]
OF_THE_CRYSTAL = [
    ValueError("CUDA error is what this text is about"),
    RuntimeError("this potential cannot bear krypton"),
    KeyError("Kr"),
    AssertionError(),
]


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@pytest.mark.parametrize("error", OF_THE_DEVICE, ids=first_line)
def test_an_error_of_the_device_ends_the_run_and_is_nobodys_failure(error, fcc, cu3au):
    for compute, settings in ((relax, PAPER.relaxation), (force_constants, PAPER.force_constants)):
        told: list[object] = []
        with pytest.raises(MachineError) as ended:
            compute([fcc, cu3au], raising(error), settings, on_result=lambda *_, told=told: told.append(_))
        assert str(ended.value) == f"the device failed: {first_line(error)}"
        assert told == []


@pytest.mark.parametrize("error", OF_THE_MEMORY, ids=first_line)
def test_memory_that_runs_out_is_no_error_of_the_device(error, fcc):
    budget = Budget(128)  # supercells have 32 atoms
    results = force_constants([fcc] * 4, raising(error, above=40), PAPER.force_constants, budget=budget)
    assert [type(result) for result in results] == [ForceConstants] * 4
    assert 32 <= budget.max_atoms < 64
    (hopeless,) = relax([fcc], raising(error), PAPER.relaxation)
    assert (hopeless.reason, hopeless.trace) == (Reason.OUT_OF_MEMORY, "")


@pytest.mark.parametrize("error", OF_THE_MEMORY, ids=first_line)
def test_a_crystal_alone_is_computed_again_once_memory_was_given_back(error, fcc):
    calls: list[int] = []

    def watch(state) -> None:
        calls.append(state.n_atoms)
        if len(calls) == 1:
            raise error

    (result,) = force_constants([fcc], Toy(watch), PAPER.force_constants, budget=Budget(128))
    assert isinstance(result, ForceConstants)
    assert len(calls) == 2


@pytest.mark.parametrize("error", OF_THE_CRYSTAL, ids=first_line)
def test_anything_else_is_a_failure_of_the_crystal_with_its_traceback(error, fcc):
    (result,) = relax([fcc], raising(error), PAPER.relaxation)
    assert isinstance(result, Failure)
    assert result.reason == Reason.EXCEPTION
    assert result.detail.startswith(f"{type(error).__name__}: ")
    assert result.trace.startswith("Traceback")
    assert "test_batch.py" in result.trace


class Gpu:
    """What the engine asks torch of one GPU of 80 GiB."""

    total_memory = 80 << 30

    def __init__(self, monkeypatch):
        self.share = 1.0
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: self)
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: self.share)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self.set_share)

    def set_share(self, share, device):
        self.share = share


def test_processes_on_a_gpu_share_its_memory_and_leave_some_to_others(monkeypatch):
    gpu, device = Gpu(monkeypatch), torch.device("cuda")
    limit_memory(device)
    alone = Budget.for_device(device).max_atoms
    assert 0.5 < gpu.share < 1
    limit_memory(device, 4)
    assert gpu.share * 4 < 1
    limit_memory(device)  # as a potential is loaded
    assert gpu.share * 4 < 1
    assert Budget.for_device(device).max_atoms == pytest.approx(alone / 4, rel=1e-3)


def test_what_was_finished_before_the_device_broke_stays_finished():
    done: list[int] = []

    def compute(items: list[int]) -> None:
        for item in items:
            if item == 2:
                raise OF_THE_DEVICE[0]
            done.append(item)

    failed: list[int] = []
    with pytest.raises(MachineError):
        bisect_failures(
            [0, 1, 2, 3],
            compute,
            atoms=lambda _: 1,
            budget=Budget(10),
            unfinished=lambda item: item not in done,
            fail=lambda item, _: failed.append(item),
        )
    assert (done, failed) == ([0, 1], [])


def test_failures_of_one_kind_come_from_one_place():
    def caught(make: type[Exception], text: str, value: str = "") -> Failure:
        try:
            int(value) if value else _raise(make(text))
        except Exception as raised:  # noqa: BLE001
            return as_failure(raised)

    kind = caught(ValueError, "of one").kind
    assert caught(ValueError, "of another").kind == kind
    assert caught(TypeError, "of one").kind != kind
    assert caught(ValueError, "", "no number").kind != kind


def _raise(error: Exception) -> None:
    raise error
