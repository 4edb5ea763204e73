"""The steps of a calculation, one file each; a new step is a new file here, or anywhere, as ``module:attribute``."""

from phononbench_flows.steps.order import (
    ALWAYS,
    StepError,
    before,
    costly_steps,
    find_step,
    installed_step,
    references,
    step_settings,
    steps_of,
)
from phononbench_flows.steps.step import FIRST, Arrays, Column, CrystalSize, Step, StepInput, Tools

__all__ = [
    "ALWAYS",
    "FIRST",
    "Arrays",
    "Column",
    "CrystalSize",
    "Step",
    "StepError",
    "StepInput",
    "Tools",
    "before",
    "costly_steps",
    "find_step",
    "installed_step",
    "references",
    "step_settings",
    "steps_of",
]
