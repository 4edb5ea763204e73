"""A Maker for one crystal in atomate2's conventions: a structure goes in, one document comes out.

Sets of crystals go through :class:`~phononbench_flows.flows.ChunkMaker`, which batches and keeps a results store; this
one stands beside the Makers of others, such as before a flow of DFT that only stable crystals are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobflow import Flow, Maker, Response, job
from pydantic import BaseModel, Field
from pymatgen.core import Structure

from phononbench_flows import potentials
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.flows import machine
from phononbench_flows.protocol import DEFAULT_PROTOCOL, Protocol, load_protocol
from phononbench_flows.stability import Look

if TYPE_CHECKING:
    from phononbench_flows.judging import JudgedCrystal


class StabilityDocument(BaseModel):
    """The output of a :class:`StabilityMaker`'s job; ``phonon`` lies in jobflow's store ``data``."""

    structure: Structure | None = Field(description="Relaxed crystal; as given where it was not relaxed.")
    is_stable: bool = Field(description="Whether it was judged, and is stable.")
    stability: str = Field(description="stable, unstable or undecided; rejected or failed if it was not judged.")
    why: str = Field(description="The evidence in a sentence, or why there is none.")
    minimum: Look | None = Field(description="Lowest frequency where the protocol looks (THz, imaginary as negative).")
    formula_pretty: str | None = Field(description="Reduced formula.")
    chemsys: str | None = Field(description="Element symbols joined by '-'.")
    elements: list[str] = Field(description="Element symbols, in alphabetical order.")
    nelements: int | None = Field(description="Number of elements.")
    nsites: int | None = Field(description="Atoms in the cell as given.")
    calculation: CalculationDocument = Field(description="All else that is known, as in a results store.")
    phonon: dict[str, Any] | None = Field(
        None, description="Phonons as emmet's PhononBSDOSDoc: band structure, force constants (eV/Å^2), both cells."
    )


@dataclass
class StabilityMaker(Maker):
    """Judge the dynamical stability of a crystal.

    Attributes:
        name: name of the flow and its job.
        potential: name or path of the potential.
        protocol: name of a preset, path of a YAML file, or a Protocol as plain JSON.
        potential_settings: settings that the potential's family offers.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_atoms: atoms per call of the potential; None to let the device decide.
        stop_unless_stable: whether the jobs that depend on the output are only run for a stable crystal.
    """

    name: str = "stability"
    potential: str = potentials.DEFAULT
    protocol: str | dict[str, Any] = DEFAULT_PROTOCOL
    potential_settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    batch_atoms: int | None = None
    stop_unless_stable: bool = True

    def make(self, structure: Structure) -> Flow:
        """The flow for a crystal, or for the output of another job; its output is a :class:`StabilityDocument`.

        Raises:
            ProtocolError: the protocol cannot be used.
        """
        # Where the job runs there may be no such file, or another working directory.
        protocol = load_protocol(self.protocol) if isinstance(self.protocol, str) else Protocol(**self.protocol)
        judging = judge_structure(
            structure,
            protocol=protocol.model_dump(mode="json"),
            potential=potentials.name_in_full(self.potential),
            potential_settings=self.potential_settings,
            device=self.device,
            batch_atoms=self.batch_atoms,
            stop_unless_stable=self.stop_unless_stable,
        )
        judging.name = self.name
        return Flow([judging], output=judging.output, name=self.name)


@job(data=["phonon"], output_schema=StabilityDocument)
def judge_structure(
    structure: Structure, *, protocol: dict[str, Any], stop_unless_stable: bool, **how: Any
) -> Response[StabilityDocument]:
    """Judge a crystal; what cannot be judged is not stable, and the output says why.

    Parameters:
        protocol: a Protocol as plain JSON.
        stop_unless_stable: whether the jobs that depend on the output are only run for a stable crystal.
        how: the other arguments of ``judge_many``.
    """
    from phononbench_flows.judging import judge

    with machine.watched():
        result = judge(structure, protocol=Protocol(**protocol), **how)
    return Response(output=_document(result), stop_children=stop_unless_stable and not result.is_stable)


def _document(result: JudgedCrystal) -> StabilityDocument:
    found = result.document
    return StabilityDocument(
        structure=result.structure,
        is_stable=result.is_stable,
        stability=result.stability,
        why=result.why,
        minimum=result.minimum,
        formula_pretty=found.formula_pretty,
        chemsys=found.chemsys,
        elements=found.elements,
        nelements=found.nelements,
        nsites=found.nsites,
        # A dict of a Structure would come back from a store of jobflow's as a Structure.
        calculation=found.model_copy(update={"relaxed_structure": None}),
        phonon=result.emmet().model_dump(mode="json") if result.was_judged else None,
    )
