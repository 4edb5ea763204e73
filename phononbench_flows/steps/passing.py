"""Taking crystals through steps: results become documents, and the last step's documents are assessed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.trouble import Failure, Found, MachineError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.stability import assess, thresholded
from phononbench_flows.steps.order import before, steps_of
from phononbench_flows.steps.step import Arrays, Step, StepInput, Together, Tools

logger = logging.getLogger(__name__)

Write = Callable[[CalculationDocument, Mapping[str, Arrays]], None]
"""Takes a document that has passed a step or failed in it, and the arrays to keep with it, by name."""

# What a crystal may be the reason of, or a broken device: one that gives nonsense raises nothing.
_PERHAPS_THE_MACHINES = {Reason.EXCEPTION, Reason.NOT_FINITE, Reason.FORCES_EXPLODED, Reason.OUT_OF_MEMORY}

_logged: set[str] = set()  # kinds of errors whose traceback this process has told


def pass_steps(crystals: Iterable[StepInput | None], steps: Sequence[Step], tools: Tools, write: Write) -> None:
    """Take crystals through some steps, each from where it stands; nobody waits for another.

    Crystals come in as there is room. Whoever has passed a step begins the next one while others are still at the
    first, and a batch is filled with whatever waits. Each document is written to, and given to ``write``, as it passes
    a step.

    Parameters:
        crystals: ``None`` among them says that for now none is to be begun; not where none is under way.
        steps: consecutive steps of the protocol.

    Raises:
        MachineError: a crystal ended in what a broken machine may cause as well, and a healthy crystal does too.
            Nothing is written of either.
    """
    from threadpoolctl import threadpool_limits

    flow = _Flow(list(steps), tools, write)
    arriving = iter(crystals)
    # Matrices are small: more threads cost 1.6 times the processor time of all that is not the potential, for no gain.
    with threadpool_limits(1, user_api="blas"):
        while flow.take(arriving):
            flow.advance()


class _Flow:
    """Crystals on their way through steps."""

    def __init__(self, steps: list[Step], tools: Tools, write: Write) -> None:
        from phononbench_flows.engine.batch import Budget, delivering
        from phononbench_flows.engine.dialogues import Talk

        model = tools.model if tools.potential is not None else None
        budget = tools.budget or (Budget(1) if model is None else Budget.for_device(model.device))
        self._steps, self._tools, self._write = steps, tools, write
        every = steps_of(tools.protocol)
        self._last, self._after = every[-1], {before(step, every): step for step in steps}
        self._deliver = delivering(self._record)
        self._talk = Talk(model, budget)
        self._together = {step.name: step.together(tools, budget) for step in steps if step.together}
        self._ready: deque[tuple[StepInput, Step]] = deque()
        self._is_over = False

    def take(self, arriving: Iterator[StepInput | None]) -> bool:
        """Begin what finds room; whether anybody is under way."""
        self._begin_ready()
        while not self._ready and not self._is_over:
            try:
                crystal = next(arriving)
            except StopIteration:
                self._is_over = True
                break
            if crystal is None:
                break
            self._ready.append((crystal, self._after[str(crystal.document.stage)]))
            self._begin_ready()
        return bool(self._ready or self._talk.n_atoms or any(each.n_crystals for each in self._together.values()))

    def advance(self) -> None:
        """One call of the potential for each kind of work whose batch is worth it."""
        moving = [each for each in self._together.values() if each.n_crystals]
        # Full batches go first that bring crystals nearer to their end, as long as new ones can fill up the others.
        if self._is_over or all(step.together for _, step in self._ready):
            for each in moving:
                each.advance()
        # Few cells wait for more, unless those that would bring them are few as well.
        if self._talk.is_full or self._talk.n_atoms >= sum(each.n_atoms for each in moving):
            self._talk.compute_batch()

    def _begin_ready(self) -> None:
        """Begin those that find room, in their order."""
        waiting, self._ready = self._ready, deque()
        is_full = self._talk.is_full  # to count what waits takes time, and many may be ready
        while waiting:
            crystal, step = waiting.popleft()
            together = self._together.get(step.name)
            if is_full if together is None else not together.has_room(crystal.document.nsites or 1):
                self._ready.append((crystal, step))
                continue
            tell = partial(self._ended, crystal, step)
            begin = partial(step.compute, crystal, self._tools)
            self._talk.begin(begin, tell if together is None else partial(self._join, together, tell))
            is_full = self._talk.is_full

    def _join(
        self, together: Together, tell: Callable[[Found[Any] | Failure], None], found: Found[Any] | Failure
    ) -> None:
        if isinstance(found, Failure):
            tell(found)
        else:
            together.add(found.result, tell)

    def _ended(self, crystal: StepInput, step: Step, found: Found[Any] | Failure) -> None:
        self._deliver(crystal.document, step, found)
        if crystal.document.status == Status.PENDING and step is not self._steps[-1]:
            self._ready.append((crystal, self._steps[self._steps.index(step) + 1]))

    def _record(self, document: CalculationDocument, step: Step, found: Found[Any] | Failure) -> None:
        arrays: Mapping[str, Arrays] = {}
        if isinstance(found, Failure):
            _fail(document, found, step, self._tools)
        else:
            arrays = step.record(document, found, self._tools.protocol)
            document.timings = document.timings | {step.name: found.seconds}
            document.stage = step.name
            if step is self._last or step.settles(document):
                conclude(document, self._tools.protocol)
        self._write(document, arrays)


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
