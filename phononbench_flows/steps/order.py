"""Which steps a protocol has, and in which order: found by name, sorted by what each comes after."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel, ValidationError

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.protocol import Protocol
from phononbench_flows.steps.step import FIRST, Step

ENTRY_POINT_GROUP = "phononbench_flows.steps"
ALWAYS = ("relaxation", "force_constants", "spectrum")
"""The steps of every protocol."""


class StepError(PhononBenchError):
    """A step that there is not, or steps that do not follow one another."""


def references(protocol: Protocol) -> list[str]:
    """How the steps of a protocol are named, in the order in which they are passed.

    Raises:
        StepError: see :func:`steps_of`.
    """
    # A further step comes right after the one that it names, before those of every protocol.
    return [reference for reference, _ in _ordered((*protocol.further_steps, *ALWAYS))]


def steps_of(protocol: Protocol) -> list[Step]:
    """The steps of a protocol, in the order in which they are passed.

    Raises:
        StepError: a step that cannot be found, settings that it does not take, or steps in no order.
    """
    steps = [find_step(name) for name in references(protocol)]
    for reference in protocol.further_steps:
        step_settings(find_step(reference), protocol)
    return steps


def costly_steps(protocol: Protocol) -> list[Step]:
    """The steps of a protocol that call the potential, from which the cost of a crystal is estimated.

    Raises:
        StepError: see :func:`steps_of`.
    """
    return [step for step in steps_of(protocol) if step.resource == "potential"]


def installed_step(name: str) -> Step:
    """The step that a document names, of this package or of one that is installed here with an entry point.

    A document may come from anybody: what it names as ``module:attribute`` is not imported for its sake.

    Raises:
        StepError: there is no such step here, or its name is that of code.
    """
    if ":" in name:
        raise StepError(f"the step {name!r} is code that a document names, which is not imported for its sake")
    return find_step(name)


@cache
def find_step(reference: str) -> Step:
    """The step of a name, of an installed package's entry point, or of ``module:attribute``.

    Raises:
        StepError: there is no such step here.
    """
    found: Any = None
    try:
        if ":" in reference:
            found = resolve_name(reference)
        elif reference.isidentifier() and find_spec(f"phononbench_flows.steps.{reference}"):
            found = getattr(import_module(f"phononbench_flows.steps.{reference}"), "STEP", None)
        else:
            for entry in entry_points(group=ENTRY_POINT_GROUP, name=reference):
                found = entry.load()
    except (ImportError, AttributeError, ValueError) as error:
        raise StepError(f"the step {reference!r} cannot be imported here: {error}") from error
    if not isinstance(found, Step):
        raise StepError(f"there is no step {reference!r} here")
    return found


def step_settings(step: Step, protocol: Protocol) -> Any:
    """The settings of a step under a protocol: its part of the protocol, or its model with what the protocol gives.

    Raises:
        StepError: settings that the step does not take.
    """
    for reference, given in protocol.further_steps.items():
        if find_step(reference) is step:
            model = step.settings or _NoSettings
            try:
                return model.model_validate(given)
            except ValidationError as error:
                problem = error.errors()[0]
                place = ".".join(map(str, problem["loc"]))
                raise StepError(f"settings of the step {reference!r}: {place}: {problem['msg']}") from error
    return getattr(protocol, step.name)


class _NoSettings(BaseModel):
    model_config = {"extra": "forbid"}


@cache
def _ordered(names: Sequence[str]) -> tuple[tuple[str, Step], ...]:
    """Names with their steps, each after the one that it names; those after the same one in the order given."""
    waiting = [(name, find_step(name)) for name in names]
    if twice := {step.name for _, step in waiting if sum(other.name == step.name for _, other in waiting) > 1}:
        raise StepError(f"two steps are called {min(twice)!r}")
    ordered: list[tuple[str, Step]] = []
    there = {FIRST}
    while waiting:
        following = next(((name, step) for name, step in waiting if step.after in there), None)
        if following is None:
            name, step = waiting[0]
            raise StepError(f"the step {name!r} comes after {step.after!r}, which the protocol does not have")
        waiting.remove(following)
        ordered.append(following)
        there.add(following[1].name)
    return tuple(ordered)


def before(step: Step, steps: Sequence[Step]) -> str:
    """The stage of the crystals that wait for a step: what they have passed last."""
    place = [each.name for each in steps].index(step.name)
    return steps[place - 1].name if place else FIRST
