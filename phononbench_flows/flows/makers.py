"""Jobflow Makers: relaxation, force constants, spectrum and verdict, and the flow of a chunk of crystals.

Their fields are plain JSON, since FireWorks' serialisation turns anything else into strings; crystals travel as
keys of the results store, never as arrays. The local run and the cluster run go through the same Makers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobflow import Flow, Job, Maker, Response, job

from phononbench_flows import potentials
from phononbench_flows.engine.batch import Budget
from phononbench_flows.flows.stages import Passed, force_constants_stage, relax_stage, spectrum_stage
from phononbench_flows.protocol import PRESETS, Protocol
from phononbench_flows.store import open_store


def _paper() -> dict[str, Any]:
    return PRESETS["paper"].model_dump(mode="json")


@dataclass
class _StageMaker(Maker):
    """What every stage has to know.

    Attributes:
        name: name of the job.
        protocol: a Protocol as plain JSON.
        store: specification of the results store as plain JSON, without secrets; see ``open_store``.
    """

    name: str = "stage"
    protocol: dict[str, Any] = field(default_factory=_paper)
    store: dict[str, Any] = field(default_factory=dict)

    def _protocol(self) -> Protocol:
        return Protocol.model_validate(self.protocol)

    def _answer(self, keys: list[str], passed: Passed) -> Response[list[str]]:
        """The keys that go on; where time ran out, once the same job has computed the rest in another run."""
        if passed.complete:
            return Response(output=passed.keys)
        return Response(output=passed.keys, replace=self.make(keys))


@dataclass
class _PotentialMaker(_StageMaker):
    """A stage that calls the potential.

    Attributes:
        potential: name or path of the potential.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_atoms: atoms per call of the potential; None to let the device decide.
    """

    potential: str = potentials.DEFAULT
    device: str = "auto"
    batch_atoms: int | None = None

    def _budget(self) -> Budget | None:
        return Budget(self.batch_atoms) if self.batch_atoms else None


@dataclass
class RelaxMaker(_PotentialMaker):
    """Relax crystals to rest and refine them to the symmetry they kept."""

    name: str = "relax"

    @job
    def make(self, keys: list[str]) -> Response[list[str]]:
        """Relax the crystals of these keys that wait for it; gives the keys that go on."""
        potential = potentials.load(self.potential, self.device)
        passed = relax_stage(keys, open_store(self.store), potential, self._protocol(), self._budget())
        return self._answer(keys, passed)


@dataclass
class ForceConstantsMaker(_PotentialMaker):
    """Displace, collect forces, and solve for force constants."""

    name: str = "force constants"

    @job
    def make(self, keys: list[str]) -> Response[list[str]]:
        """Force constants of the crystals of these keys that are relaxed; gives the keys that go on."""
        potential = potentials.load(self.potential, self.device)
        passed = force_constants_stage(keys, open_store(self.store), potential, self._protocol(), self._budget())
        return self._answer(keys, passed)


@dataclass
class SpectrumMaker(_StageMaker):
    """Frequencies and verdict from stored force constants; needs no potential and no GPU."""

    name: str = "spectrum"

    @job
    def make(self, keys: list[str]) -> Response[list[str]]:
        """Judge the crystals of these keys that have force constants; gives the keys judged."""
        return self._answer(keys, spectrum_stage(keys, open_store(self.store), self._protocol()))


@dataclass
class StabilityFlowMaker(Maker):
    """The flow of one chunk of crystals: relaxation, force constants, spectrum and verdict."""

    name: str = "stability"
    relax: RelaxMaker = field(default_factory=RelaxMaker)
    force_constants: ForceConstantsMaker = field(default_factory=ForceConstantsMaker)
    spectrum: SpectrumMaker = field(default_factory=SpectrumMaker)

    @classmethod
    def configured(
        cls,
        *,
        store: dict[str, Any],
        protocol: Protocol,
        potential: str,
        device: str = "auto",
        batch_atoms: int | None = None,
    ) -> StabilityFlowMaker:
        """The flow with the same store, protocol and potential in each of its jobs."""
        common: dict[str, Any] = {"store": store, "protocol": protocol.model_dump(mode="json")}
        computing = common | {"potential": potential, "device": device, "batch_atoms": batch_atoms}
        return cls(
            relax=RelaxMaker(**computing),
            force_constants=ForceConstantsMaker(**computing),
            spectrum=SpectrumMaker(**common),
        )

    def make(self, keys: list[str]) -> Flow:
        """The flow for the crystals of these keys; its output is the list of keys judged."""
        relax: Job = self.relax.make(keys)
        force_constants: Job = self.force_constants.make(relax.output)
        spectrum: Job = self.spectrum.make(force_constants.output)
        return Flow([relax, force_constants, spectrum], output=spectrum.output, name=self.name)
