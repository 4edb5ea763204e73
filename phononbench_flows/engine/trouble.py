"""What is found for a crystal, what can go wrong with one, and what with the machine that computes it.

Apart from the batches in which it happens, since whoever only hands out work or counts it needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason


@dataclass(frozen=True)
class Failure:
    """Why there is no result in this place.

    Attributes:
        reason: its code.
        detail: the reason in a sentence.
        trace: traceback of the exception that it was; empty if it was none.
        kind: the same for exceptions of one type from one place.
    """

    reason: Reason
    detail: str
    trace: str = field(default="", compare=False, repr=False)
    kind: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Found[R]:
    """What was found for a crystal, its share of the wall time (s), and atoms that the potential computed for it."""

    result: R
    seconds: float
    evaluations: int


class RunEndingError(PhononBenchError):
    """Trouble that is no crystal's: nothing is recorded for those under way, and the run ends."""


class MachineError(RunEndingError):
    """The device, or the machine, cannot compute; on another one, or later, it goes well."""


class DeviceError(MachineError):
    """A call of the device failed, and no later one can succeed in this process; a crystal of the call may be why."""


class UndeliverableError(RunEndingError):
    """Whoever waits for results cannot take one: a full disk, say."""
