"""Jobflow Makers for sets: steps for the crystals of some keys, and the flow of a chunk of crystals.

Their fields are plain JSON, since FireWorks' serialisation turns anything else into strings; crystals travel as
keys of the results store, never as arrays. The local run and the cluster run go through the same Makers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobflow import Flow, Maker, Response, job

from phononbench_flows import potentials
from phononbench_flows.flows import machine
from phononbench_flows.flows.step_runs import run_steps
from phononbench_flows.protocol import DEFAULT_PROTOCOL, PRESETS, Protocol
from phononbench_flows.steps import Tools, find_step, references
from phononbench_flows.store import open_store


def default_protocol() -> dict[str, Any]:
    """The default protocol as plain JSON."""
    return PRESETS[DEFAULT_PROTOCOL].model_dump(mode="json")


@dataclass
class StepsMaker(Maker):
    """Consecutive steps of a calculation, for crystals of a results store.

    Attributes:
        name: name of the job.
        steps: the steps, each by name or as ``module:attribute``.
        protocol: a Protocol as plain JSON.
        store: specification of the results store as plain JSON, without secrets; see ``open_store``.
        potential: name or path of the potential; None for steps that need none.
        potential_settings: settings that its family offers.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_atoms: atoms per call of the potential; None to let the device decide.
    """

    name: str = "steps"
    steps: list[str] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=default_protocol)
    store: dict[str, Any] = field(default_factory=dict)
    potential: str | None = None
    potential_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_atoms: int | None = None

    @job
    def make(self, keys: list[str]) -> Response[list[str]]:
        """Take the crystals of these keys that wait for one of the steps through them; gives the keys that go on.

        Where time runs out, the same job computes the rest in another run.
        """
        from phononbench_flows.engine.batch import Budget

        tools = Tools(
            protocol=Protocol.model_validate(self.protocol),
            potential=self._load(),
            budget=Budget(self.batch_atoms) if self.batch_atoms else None,
        )
        with machine.watched():
            passed = run_steps(keys, [find_step(name) for name in self.steps], open_store(self.store), tools)
        if passed.complete:
            return Response(output=passed.keys)
        return Response(output=passed.keys, replace=self.make(keys))

    def _load(self) -> potentials.Potential | None:
        if self.potential is None:
            return None
        return potentials.load(self.potential, machine.device(self.device), self.potential_settings)


@dataclass
class ChunkMaker(Maker):
    """The flow of one chunk of crystals of a results store: one job, in which each crystal goes through all steps of
    the protocol without waiting for another.

    Attributes: those of :class:`StepsMaker`, and

        until: the step to end after; None to conclude.
    """

    name: str = "stability of a chunk"
    protocol: dict[str, Any] = field(default_factory=default_protocol)
    store: dict[str, Any] = field(default_factory=dict)
    potential: str = potentials.DEFAULT
    potential_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_atoms: int | None = None
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
        fields = {name: value for name, value in vars(self).items() if name not in {"name", "until"}}
        return StepsMaker(name=self.name, steps=steps, **fields)
