"""Jobflow Makers for sets: steps for the crystals of some keys, and the flow of a chunk of crystals.

Their fields are plain JSON, since FireWorks' serialisation turns anything else into strings; crystals travel as
keys of the results store, never as arrays. The local run and the cluster run go through the same Makers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from jobflow import Flow, Maker, Response, job

from phononbench_flows import potentials
from phononbench_flows.flows import machine
from phononbench_flows.flows.step_runs import run_steps
from phononbench_flows.protocol import DEFAULT_PROTOCOL, PRESETS, Protocol
from phononbench_flows.steps import Tools, find_step, references
from phononbench_flows.store import open_store


def _default_protocol() -> dict[str, Any]:
    """The default protocol as plain JSON."""
    return PRESETS[DEFAULT_PROTOCOL].model_dump(mode="json")


@dataclass
class StoreMaker(Maker):
    """What all Makers for crystals of a results store have.

    Attributes:
        name: name of the job or the flow.
        protocol: a Protocol as plain JSON.
        store: specification of the results store as plain JSON, without secrets; see ``open_store``.
        potential: name or path of the potential; None for steps that need none.
        potential_settings: settings that its family offers.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_atoms: atoms per call of the potential; None to let the device decide.
    """

    name: str = "crystals of a store"
    protocol: dict[str, Any] = field(default_factory=_default_protocol)
    store: dict[str, Any] = field(default_factory=dict)
    potential: str | None = potentials.DEFAULT
    potential_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_atoms: int | None = None

    @property
    def computing(self) -> dict[str, Any]:
        """The fields of another Maker that computes in the same way."""
        return {each.name: getattr(self, each.name) for each in fields(StoreMaker) if each.name != "name"}

    def tools(self) -> Tools:
        """What steps compute with here, the potential loaded."""
        from phononbench_flows.engine.batch import Budget

        loaded = None
        if self.potential is not None:
            loaded = potentials.load(self.potential, machine.device(self.device), self.potential_settings)
        budget = Budget(self.batch_atoms) if self.batch_atoms else None
        return Tools(Protocol.model_validate(self.protocol), loaded, budget)


@dataclass
class StepsMaker(StoreMaker):
    """Consecutive steps of a calculation, for crystals of a results store.

    Attributes: those of :class:`StoreMaker`, and
        steps: the steps, each by name or as ``module:attribute``.
    """

    name: str = "steps"
    steps: list[str] = field(default_factory=list)

    @job
    def make(self, keys: list[str]) -> Response[list[str]]:
        """Take the crystals of these keys that wait for one of the steps through them; gives the keys that go on.

        Where time runs out, the same job computes the rest in another run.
        """
        tools = self.tools()
        with machine.watched():
            passed = run_steps(keys, [find_step(name) for name in self.steps], open_store(self.store), tools)
        if passed.complete:
            return Response(output=passed.keys)
        return Response(output=passed.keys, replace=self.make(keys))


@dataclass
class ChunkMaker(StoreMaker):
    """The flow of one chunk of crystals of a results store: one job, in which each crystal goes through all steps of
    the protocol without waiting for another.

    Attributes: those of :class:`StoreMaker`, and

        until: the step to end after; None to conclude.
    """

    name: str = "stability of a chunk"
    until: str | None = None

    def make(self, keys: list[str]) -> Flow:
        """The flow for the crystals of these keys; its output is the list of keys that have passed its last step.

        Raises:
            TypeError: for anything but a list of keys.
        """
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise TypeError("keys of crystals in a results store are needed; for a Structure there is StabilityMaker")
        steps = references(Protocol.model_validate(self.protocol))
        if self.until is not None:
            steps = steps[: steps.index(self.until) + 1]
        job = self.of_steps(steps).make(keys)
        return Flow([job], output=job.output, name=self.name)

    def of_steps(self, steps: list[str]) -> StepsMaker:
        """The Maker of a job of some consecutive steps."""
        return StepsMaker(name=self.name, steps=steps, **self.computing)
