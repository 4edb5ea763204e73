"""The documents that every crystal leaves as, whatever became of it.

One :class:`CrystalDocument` per crystal says where it came from; one :class:`CalculationDocument` per crystal, protocol
and potential says what was computed for it. Frequencies are in THz, imaginary ones negative; lengths
in Å, energies in eV, forces in eV/Å, stresses in eV/Å^3, times in seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from phononbench_flows.outcomes import READ, Reason, Status
from phononbench_flows.stability import EXACT, Assessment, Evidence, Look, Stability, decisive, explain

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


def _now() -> datetime:
    return datetime.now(UTC)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", use_enum_values=True, validate_assignment=True)


class BlobRef(_Document):
    """Where a compressed array bundle lies in the blob store."""

    sha256: str = Field(description="Sha256 of the stored bytes; also their name in the blob store.")
    size: int = Field(description="Size of the stored bytes.")


class PotentialRecord(_Document):
    """The potential that computed."""

    name: str = Field(description="Name that the potential was asked for by.")
    checkpoint_sha256: str = Field(
        description="Sha256 of the checkpoint file, and of its head where it has several; of the settings without one."
    )
    dtype: str | None = Field(
        None, description="Precision of the potential's own arithmetic; the state is always float64. None until it ran."
    )
    device: str | None = Field(None, description="Device that it ran on; none until it ran.")
    settings: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="Its settings that differ from their defaults; they change speed or memory, not the physics.",
    )
    form: str | None = Field(
        None,
        description="Form of the network that ran last: `plain`, or the setting of a faster one that was found to give "
        "the same; none where there was nothing to choose from.",
    )


class Symmetry(_Document):
    """Symmetry of a crystal; the fields are those of emmet-core's ``SymmetryData``, whose import takes seconds."""

    crystal_system: (
        Literal["Triclinic", "Monoclinic", "Orthorhombic", "Tetragonal", "Trigonal", "Hexagonal", "Cubic"] | None
    ) = Field(None, description="Crystal system.")
    symbol: str | None = Field(None, description="International symbol of the space group.")
    hall: str | None = Field(None, description="Hall symbol of the space group.")
    number: int | None = Field(None, description="International number of the space group.")
    point_group: str | None = Field(None, description="Symbol of the point group.")
    symprec: float | None = Field(None, description="Distance at which positions count as equal, in Å.")
    angle_tolerance: float | None = Field(None, description="Tolerance of angles in degrees; none: from symprec.")
    version: str | None = Field(None, description="Version of spglib.")


class RelaxationRecord(_Document):
    """How the relaxation went."""

    steps: int = Field(description="Optimizer steps over all rounds.")
    rounds: int = Field(description="Rounds begun, each with the symmetry found at its start.")
    energy_per_atom: float = Field(description="Energy after relaxation, in eV per atom.")
    max_force: float = Field(
        description="Largest force on an atom that the symmetry allows, after the last refinement, in eV/Å."
    )
    max_stress: float = Field(
        description="Largest absolute component of the stress that the symmetry allows, in eV/Å^3."
    )
    volume_change: float = Field(description="Relaxed volume over the initial one, less one.")
    refined: bool = Field(description="Whether the final cell was refined to its space group.")
    same_distance: float | None = Field(
        None,
        description="Relaxed crystals whose sites and lattice vectors are this close are the same, in Å, by the "
        "protocol; none in documents that are older.",
    )


class PhononRecord(_Document):
    """The phonon calculation and what was read from it."""

    supercell: list[int] = Field(description="Repeats of the relaxed cell, shape (3,).")
    supercell_natoms: int = Field(description="Atoms in the supercell.")
    primitive_natoms: int = Field(description="Atoms in phonopy's primitive cell.")
    n_displacements: int = Field(description="Displaced supercells computed.")
    max_drift: float = Field(description="Largest mean force that was removed from a supercell, in eV/Å.")
    gamma_optical: float | None = Field(
        None, description="Lowest frequency at Gamma without the three acoustic modes, in THz; none for one atom."
    )
    n_imaginary: int | None = Field(
        None, description="Modes below the threshold where the protocol looks, over all q-points and branches."
    )
    max_frequency: float | None = Field(None, description="Highest frequency on the path, in THz.")


class FollowedRecord(_Document):
    """How an unstable crystal was displaced along its modes."""

    settings: dict[str, int] = Field(description="How far it was to be followed.")
    sha256: str = Field(description="Content hash of the relaxed crystal that was displaced.")
    children: list[str] = Field(default_factory=list, description="Ids of the crystals that were made of it.")
    left_out: list[str] = Field(default_factory=list, description="What was not followed and why, a sentence each.")
    evaluations: int = Field(0, description="Atoms that went through the potential to make them.")
    seconds: float = Field(0.0, description="Its share of the time that took, in s.")


class FamilyRecord(_Document):
    """What an unstable generated crystal leads to: the crystals made of it, of these, and so on."""

    outcome: Literal["stable", "undecided", "unstable", "failed", "none", "pending"] = Field(
        description="`stable` if some descendant of lower energy is; else the best that can be said of any."
    )
    descendants: list[str] = Field(
        default_factory=list, description="Statuses that occur among those of lower energy, each once."
    )
    n_descendants: int = Field(0, description="Crystals made, over all generations.")
    stable: str | None = Field(None, description="Id of the stable descendant of the lowest energy.")
    energy_gained: float | None = Field(None, description="Energy that it lies below, in eV per atom.")
    rmsd: float | None = Field(
        None, description="Root mean square distance of its atoms from where they were, the cells made alike, in Å."
    )
    path: list[str] = Field(default_factory=list, description="Space groups on the way to it, the first its own.")
    generations: int = Field(0, description="Generations to it, or made in vain.")
    in_set: str | None = Field(None, description="Id of the crystal of the set that the stable descendant is.")
    known_as: str | None = Field(None, description="Name of the crystal of the reference set that it repeats.")
    seconds: float = Field(0.0, description="Time that all of them took, in s.")


class Provenance(_Document):
    """Where and with what a crystal was computed."""

    host: str = Field(description="Name of the machine.")
    pid: int = Field(description="Process id of the worker.")
    versions: dict[str, str] = Field(description="Versions of the packages that decide the numbers.")
    job_uuid: str | None = Field(None, description="Uuid of the jobflow job that wrote last.")
    gpu: str | None = Field(None, description="Name of the GPU; none on a CPU.")
    fw_id: int | None = Field(None, description="FireWorks' id of the firework; none outside FireWorks.")
    launch_id: int | None = Field(None, description="FireWorks' id of the launch; none outside FireWorks.")


class Mode(_Document):
    """A mode of a crystal, along which another was made from it."""

    q: list[float] = Field(description="q-point, in reciprocal lattice units of the primitive cell, shape (3,).")
    frequency: float = Field(description="Frequency of the mode in the parent, in THz, imaginary as negative.")
    amplitude: float = Field(description="Largest displacement of an atom along it, in Å.")
    degeneracy: int = Field(1, description="Modes of the q-point that symmetry makes of it.")
    energy: float | None = Field(
        None, description="Energy at that amplitude less the parent's, in eV per atom, if it was computed."
    )


class Strain(_Document):
    """A strain under which a crystal is unstable, and along which another was made from it."""

    tensor: list[list[float]] = Field(description="Strain, cartesian, without unit, shape (3, 3).")
    modulus: float = Field(description="Eigenvalue of the elastic tensor that it belongs to, in GPa.")
    energy: float | None = Field(
        None, description="Energy under the strain, with atoms that move with the cell, less the parent's, in eV/atom."
    )


class Origin(_Document):
    """Where a crystal came from: something that was read, or another crystal and a mode of it."""

    source: str | None = Field(None, description="File, archive member or row, as given; none where nothing was read.")
    sha256: str | None = Field(
        None,
        description="Sha256 of the source's bytes, none where they could not be read; of a child, the content hash of "
        "its parent's relaxed crystal.",
    )
    parent: str | None = Field(None, description="Id of the crystal that it was made from.")
    mode: Mode | None = Field(None, description="The parent's mode that it was displaced along.")
    strain: Strain | None = Field(None, description="The strain that made it of the parent.")
    root: str | None = Field(None, description="Id of the generated crystal that its line begins with.")
    generation: int | None = Field(None, description="1 for a child of a generated crystal, and so on.")


class _Crystal(_Document):
    """What is true of a crystal whatever is computed for it."""

    id: str = Field(pattern=ID_PATTERN, description="Id of the crystal: the set's and the crystal's name.")
    set: str = Field(pattern=ID_PATTERN, description="Name of the set that the crystal came with.")
    origin: Origin = Field(description="Where it came from.")
    condition: dict[str, str | float | int | bool] = Field(
        default_factory=dict, description="What the generator was asked for, as given with the set."
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="What others say of it, by who says it: `phononbench` is the label in what that project released, "
        "`dft` what a better method says (`phononbench confirm`).",
    )
    content_hash: str | None = Field(None, description="Hash of species, cell and coordinates as read.")
    nsites: int | None = Field(None, description="Atoms in the cell as given.")
    elements: list[str] = Field(default_factory=list, description="Element symbols, in alphabetical order.")
    nelements: int | None = Field(None, description="Number of elements.")
    formula_pretty: str | None = Field(None, description="Reduced formula.")
    chemsys: str | None = Field(None, description="Element symbols joined by '-'.")
    created_at: datetime = Field(default_factory=_now, description="When first written (UTC).")
    updated_at: datetime = Field(default_factory=_now, description="When last written (UTC).")


class CrystalDocument(_Crystal):
    """A crystal: where it came from and what was read. All that is computed for it shares this document."""

    structure: dict[str, Any] | None = Field(
        None, description="Crystal as read: pymatgen Structure as a dict (Å); none where it could not be read."
    )
    notes: list[str] = Field(
        default_factory=list,
        description="A sentence for each thing that did not stand in the file as it was taken, as coordinates of few "
        "digits that were put on a special position.",
    )

    @property
    def key(self) -> str:
        """Primary key: the id."""
        return self.id


class CalculationDocument(_Crystal):
    """What was computed for a crystal under a protocol with a potential, and what became of it.

    The crystal's own facts stand here too (all but its structure and notes), so that every question has one collection
    to ask.
    """

    key: str = Field(description="Primary key: '<id>@<protocol_id>'.")
    protocol_id: str = Field(description="Hash of the protocol and of the potential's checkpoint.")
    protocol_name: str = Field(description="Name of the protocol, for people.")
    potential: PotentialRecord
    steps: list[str] = Field(description="Steps of the protocol, in order: names, or `module:attribute`.")

    stage: str = Field(READ, description="Last step completed; `read` or `screened` before the first.")
    status: Status = Field(Status.PENDING, description="What became of the crystal.")
    reason: Reason | None = Field(None, description="Code of why it was rejected or failed.")
    detail: str | None = Field(None, description="The reason in a sentence.")
    gone: str | None = Field(None, description="Why it counts no more, in a sentence, if it is gone.")
    duplicate_of: str | None = Field(None, description="Id of the crystal of the set that it repeats.")
    known_as: str | None = Field(None, description="Name of the crystal of the reference set that it repeats.")
    same_as: str | None = Field(
        None, description="Id of the first crystal of the set whose relaxed crystal is the same; none for the first."
    )
    compared_with: str | None = Field(
        None,
        description="Hash of the ids of the set's relaxed crystals of this formula, when `same_as` was found; none "
        "where there is one alone.",
    )

    symmetry_initial: Symmetry | None = Field(None, description="Symmetry as given, at the relaxation's symprec.")
    symmetry_relaxed: Symmetry | None = Field(None, description="Symmetry after relaxation, at the same symprec.")
    relaxed_structure: dict[str, Any] | None = Field(None, description="Relaxed: pymatgen Structure as a dict (Å).")

    relaxation: RelaxationRecord | None = None
    phonon: PhononRecord | None = None
    evidence: Evidence = Field(default_factory=Evidence, description="What is known of its frequencies.")
    minimum: Look | None = Field(
        None,
        description="Lowest frequency that fixed thresholds are held against: where the protocol looks, or on the path "
        "if exact frequencies decide.",
    )
    assessments: list[Assessment] = Field(
        default_factory=list,
        description="The deciding one first: by exact frequencies if the protocol judges by them. Then one for each "
        "threshold of the protocol.",
    )
    results: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="What further steps found, by the step's name."
    )
    arrays: dict[str, BlobRef] = Field(
        default_factory=dict,
        description="Where arrays are kept: `force_constants` with their cells, `band_structure` (q-points, distances "
        "and frequencies on the path), and those of further steps: `exact_looks` (dynamical matrices), `displaced` "
        "(forces of displaced supercells).",
    )

    followed: FollowedRecord | None = Field(None, description="How it was displaced along its modes, if it was.")
    family: FamilyRecord | None = Field(None, description="What it leads to, of a generated crystal that was followed.")

    attempts: int = Field(
        0, description="Times that a worker began a step of this crystal and has not lived to end it."
    )
    begun_by: str | None = Field(
        None, description="Mark of the worker's run that has it in work: the launch, and whether the run has a witness."
    )
    excused: int = Field(0, description="Those of the attempts that nobody saw a worker end by itself in.")
    device_errors: int = Field(0, description="Times that the device failed while a step of this crystal was in work.")
    timings: dict[str, float] = Field(default_factory=dict, description="Seconds by step, a batch's shared out.")
    provenance: Provenance | None = Field(None, description="Of the step that wrote last.")
    provenance_by_step: dict[str, Provenance] = Field(
        default_factory=dict, description="Of each step that was passed or failed; none in documents that are older."
    )

    @property
    def why(self) -> str | None:
        """The verdict and its evidence in a sentence or two; None for a crystal that was not judged."""
        return explain(self.evidence, self.assessments[0]) if self.assessments else None

    @property
    def lowest(self) -> Look | None:
        """The lowest frequency that its verdict rests on; None for a crystal that was not judged, or looked at nowhere.

        Where exact frequencies decide, it is the lowest of those, though ``minimum`` be lower.
        """
        if not self.assessments:
            return None
        return decisive(self.evidence, self.assessments[0]) or self.evidence.looks.get(EXACT)

    @property
    def is_judged_otherwise(self) -> bool:
        """Whether it was judged in another way than the published rule does, on the path."""
        return bool(self.assessments) and self.assessments[0].where != "path"


class Draw(_Document):
    """How a crystal came to be confirmed: drawn at random within strata."""

    seed: int = Field(description="Of the order in which crystals of a stratum are drawn.")
    stratum: str = Field(description="Name of the stratum that it was drawn from.")
    strata: dict[str, str] = Field(description="All strata by name: the MongoDB filter of each, as JSON.")


class ConfirmationDocument(_Document):
    """What a better method says of a crystal, or will say once it is computed."""

    key: str = Field(description="Primary key: the calculation's, or the crystal's id, and '#' with whose it is.")
    id: str = Field(pattern=ID_PATTERN, description="Id of the crystal.")
    set: str = Field(pattern=ID_PATTERN, description="Name of its set.")
    protocol_id: str = Field(
        "", description="Protocol and potential whose relaxed crystal was computed; empty for labels of others."
    )
    status: Literal["drawn", "handed_out", "known", "unusable"] = Field(
        description="`known` once there is an answer; `unusable` if it cannot be judged."
    )
    detail: str | None = Field(None, description="Why it is unusable, in a sentence.")
    source: str = Field(description="Maker of the flow by its dotted path, or name of the labels that were read.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The Maker's settings.")
    functional: str | None = Field(None, description="Exchange and correlation, as far as somebody said it.")
    code: str | None = Field(None, description="Program that computed the forces, if known.")
    uuid: str | None = Field(None, description="Uuid of the jobflow job whose output it is.")
    draw: Draw | None = Field(None, description="How it was drawn; none for labels of others.")
    stability: Stability | None = Field(None, description="By the rule of the crystal's protocol, or as labelled.")
    published: Stability | None = Field(None, description="By the published rule, or as labelled.")
    frequency: float | None = Field(None, description="Lowest frequency on the path, or as labelled, in THz.")
    evidence: Evidence | None = Field(None, description="What its force constants say.")
    arrays: dict[str, BlobRef] = Field(default_factory=dict, description="Where its `force_constants` are kept.")
    created_at: datetime = Field(default_factory=_now, description="When first written (UTC).")
    updated_at: datetime = Field(default_factory=_now, description="When last written (UTC).")


class SetDocument(_Document):
    """What the tables need to know of a set beyond its crystals. All but the name may be unknown."""

    set: str = Field(pattern=ID_PATTERN, description="Name of the set; its key.")
    model: str | None = Field(None, description="Generative model that made it.")
    training_set: str | None = Field(None, description="What the model was trained on, such as MP-20.")
    architecture: str | None = Field(None, description="Kind of model, such as diffusion.")
    parameters: int | None = Field(None, ge=0, description="Number of parameters of the model.")
    condition: dict[str, str | float | int | bool] = Field(
        default_factory=dict, description="What the generator was asked for, such as band_gap (eV)."
    )
    n_generated: int | None = Field(
        None, ge=0, description="Crystals generated, where more were generated than were handed in."
    )
    generation_seconds: float | None = Field(None, ge=0, description="Wall time of the generation, in seconds.")
    generation_hardware: str | None = Field(None, description="What it ran on, such as '1x A100 80 GB'.")
    updated_at: datetime = Field(default_factory=_now, description="When last written (UTC).")


def calculation_key(crystal_id: str, protocol_id: str) -> str:
    """Primary key of a calculation: of a crystal under a protocol."""
    return f"{crystal_id}@{protocol_id}"
