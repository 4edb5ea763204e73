"""Jobflow Makers for sets: any step for the crystals of some keys, and the flow of a chunk of crystals.

Their fields are plain JSON, since FireWorks' serialisation turns anything else into strings; crystals travel as
keys of the results store, never as arrays. The local run and the cluster run go through the same Makers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobflow import Flow, Job, Maker, Response, job

from phononbench_flows import potentials
from phononbench_flows.engine.batch import Budget
from phononbench_flows.flows import machine
from phononbench_flows.flows.step_runs import run_step
from phononbench_flows.protocol import DEFAULT_PROTOCOL, PRESETS, Protocol
from phononbench_flows.steps import Tools, find_step, references
from phononbench_flows.store import open_store


def default_protocol() -> dict[str, Any]:
    """The default protocol as plain JSON."""
    return PRESETS[DEFAULT_PROTOCOL].model_dump(mode="json")


@dataclass
class StepMaker(Maker):
    """A step of a calculation, for crystals of a results store.

    Attributes:
        name: name of the job.
        step: the step, by name or as ``module:attribute``.
        protocol: a Protocol as plain JSON.
        store: specification of the results store as plain JSON, without secrets; see ``open_store``.
        potential: name or path of the potential; None for a step that needs none.
        potential_settings: settings that its family offers.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_atoms: atoms per call of the potential; None to let the device decide.
    """

    name: str = "step"
    step: str = "relaxation"
    protocol: dict[str, Any] = field(default_factory=default_protocol)
    store: dict[str, Any] = field(default_factory=dict)
    potential: str | None = None
    potential_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_atoms: int | None = None

    @job
    def make(self, keys: list[str]) -> Response[list[str]]:
        """Take the crystals of these keys that wait for the step through it; gives the keys that go on.

        Where time runs out, the same job computes the rest in another run.
        """
        tools = Tools(
            protocol=Protocol.model_validate(self.protocol),
            potential=self._load(),
            budget=Budget(self.batch_atoms) if self.batch_atoms else None,
        )
        with machine.watched():
            passed = run_step(keys, find_step(self.step), open_store(self.store), tools)
        if passed.complete:
            return Response(output=passed.keys)
        return Response(output=passed.keys, replace=self.make(keys))

    def _load(self) -> potentials.Potential | None:
        if self.potential is None:
            return None
        return potentials.load(self.potential, self.device, self.potential_settings)


@dataclass
class ChunkMaker(Maker):
    """The flow of one chunk of crystals of a results store: a job for each step of the protocol, in their order.

    Attributes: those of :class:`StepMaker`.
    """

    name: str = "stability of a chunk"
    protocol: dict[str, Any] = field(default_factory=default_protocol)
    store: dict[str, Any] = field(default_factory=dict)
    potential: str = potentials.DEFAULT
    potential_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_atoms: int | None = None

    def make(self, keys: list[str]) -> Flow:
        """The flow for the crystals of these keys; its output is the list of keys that were concluded.

        Raises:
            TypeError: for anything but a list of keys.
        """
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise TypeError("keys of crystals in a results store are needed; for a Structure there is StabilityMaker")
        jobs: list[Job | Flow] = []
        for reference in references(Protocol.model_validate(self.protocol)):
            jobs.append(self._step_maker(reference).make(jobs[-1].output if jobs else keys))
        return Flow(jobs, output=jobs[-1].output, name=self.name)

    def _step_maker(self, reference: str) -> StepMaker:
        step = find_step(reference)
        maker = StepMaker(name=step.name.replace("_", " "), step=reference, protocol=self.protocol, store=self.store)
        if step.resource == "potential":
            maker.potential, maker.potential_settings = self.potential, self.potential_settings
            maker.device, maker.batch_atoms = self.device, self.batch_atoms
        return maker
