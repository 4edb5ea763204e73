"""A crystal is failed only where a healthy one succeeds: what a broken machine may cause ends the worker instead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from screened import blank, crystal_set

from phononbench_flows.engine.trouble import Failure, MachineError
from phononbench_flows.outcomes import SCREENED, Reason, Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.steps import StepInput, Tools
from phononbench_flows.steps.passing import pass_steps
from phononbench_flows.steps.relaxation import STEP


def failing(reason: Reason, probe) -> Status:
    """Status of a crystal that fails for this reason."""
    written = []
    step = replace(STEP, probe=probe, together=None, compute=lambda crystal, tools: Failure(reason, "it is so"))
    document = blank(crystal_set(), "0")
    document.stage = SCREENED
    crystal = StepInput(document, lambda: None, lambda name: {})
    tools = Tools(protocol=PRESETS["paper"], potential=None, budget=None)
    pass_steps([crystal], [step], tools, lambda document, arrays: written.append(document.status))
    (status,) = written
    return status


def broken(tools):
    raise RuntimeError("forces that are not finite")


@pytest.mark.parametrize("reason", [Reason.EXCEPTION, Reason.NOT_FINITE, Reason.FORCES_EXPLODED, Reason.OUT_OF_MEMORY])
def test_what_a_broken_machine_may_cause_is_laid_to_it(reason):
    assert failing(reason, lambda tools: None) == Status.FAILED
    with pytest.raises(MachineError, match="a healthy crystal fails too"):
        failing(reason, broken)


def test_what_only_a_crystal_can_cause_is_its_own():
    assert failing(Reason.NOT_CONVERGED, broken) == Status.FAILED
