"""Taking crystals through a step: results become documents, and the last step's documents are assessed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.trouble import Failure, MachineError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.stability import assess, thresholded
from phononbench_flows.steps.order import steps_of
from phononbench_flows.steps.step import Arrays, Step, StepInput, Timed, Tools

logger = logging.getLogger(__name__)

Write = Callable[[CalculationDocument, Mapping[str, Arrays]], None]
"""Takes a document that has passed a step or failed in it, and the arrays to keep with it, by name."""

# What a crystal may be the reason of, or a broken device: one that gives nonsense raises nothing.
_PERHAPS_THE_MACHINES = {Reason.EXCEPTION, Reason.NOT_FINITE, Reason.FORCES_EXPLODED, Reason.OUT_OF_MEMORY}

_logged: set[str] = set()  # kinds of errors whose traceback this process has told


def pass_step(step: Step, crystals: Sequence[StepInput], tools: Tools, write: Write) -> None:
    """Compute a step of these crystals; each document is written to, and given to ``write``, as soon as it is done.

    Raises:
        MachineError: a crystal ended in what a broken machine may cause as well, and a healthy crystal does too.
            Nothing is written of either.
    """
    last = step is steps_of(tools.protocol)[-1]

    def deliver(index: int, result: Timed | Failure) -> None:
        document = crystals[index].document
        arrays: Mapping[str, Arrays] = {}
        if isinstance(result, Failure):
            _fail(document, result, step, tools)
        else:
            arrays = step.record(document, result, tools.protocol)
            document.timings = document.timings | {step.name: result.seconds}
            document.stage = step.name
            if last or step.settles(document):
                conclude(document, tools.protocol)
        write(document, arrays)

    step.compute(crystals, tools, deliver)


def conclude(document: CalculationDocument, protocol: Protocol) -> None:
    """Assess the evidence of a crystal that has passed all steps; its status is what the first assessment says."""
    document.assessments = assess(document.evidence, protocol.judgement)
    document.minimum = thresholded(document.evidence, protocol.judgement)
    document.status = Status(document.assessments[0].stability)


def _fail(document: CalculationDocument, failure: Failure, step: Step, tools: Tools) -> None:
    if failure.reason in _PERHAPS_THE_MACHINES:
        _tell_once(document.id, failure)
        require_sound_machine(step, tools, f"{document.id} failed ({failure.detail})")
    document.status, document.reason, document.detail = Status.FAILED, Reason(failure.reason), failure.detail


def _tell_once(crystal_id: str, failure: Failure) -> None:
    """Log the traceback of an error, the first of its kind: what raised, and where."""
    if failure.trace and failure.kind not in _logged:
        _logged.add(failure.kind)
        logger.error("%s: %s\n%s", crystal_id, failure.detail, failure.trace)


def require_sound_machine(step: Step, tools: Tools, why: str) -> None:
    """A crystal whose computing raised may be to blame, or the machine: a healthy crystal tells.

    Raises:
        MachineError: the healthy crystal fails too.
    """
    try:
        step.probe(tools)
    except Exception as error:
        raise MachineError(
            f"this machine cannot compute: {why}, and a healthy crystal fails too ({type(error).__name__}: {error})"
        ) from error
