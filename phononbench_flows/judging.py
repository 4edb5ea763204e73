"""Crystals judged in this process, without a store: what ``from phononbench_flows import judge`` leads to.

The same steps as for sets; results stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin
from phononbench_flows.engine.bands import Bands
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL, Protocol, load_protocol
from phononbench_flows.sets.identity import source_sha256
from phononbench_flows.sets.ingest import CrystalSet, calculation, rejected, screened
from phononbench_flows.stability import Look, Stability, published
from phononbench_flows.steps import Arrays, StepInput, Tools, steps_of
from phononbench_flows.steps.passing import pass_steps
from phononbench_flows.structures import Parsed, RawCrystal, Rejection, clean, parse, read_inputs, stored_structure

if TYPE_CHECKING:
    from ase import Atoms
    from emmet.core.phonon import PhononBSDOSDoc
    from matplotlib.figure import Figure
    from phonopy import Phonopy

    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.results.phonon_files import PhononResult

    Crystal = Structure | Atoms | str | Path

_SET = "judged"


class NotJudgedError(PhononBenchError):
    """Something is asked of a crystal that was not computed so far."""


@dataclass(frozen=True)
class Given:
    """A crystal to judge: its name, where it came from, its structure or why there is none, and notes on reading it."""

    name: str
    structure: Structure | Rejection
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class JudgedCrystal:
    """What became of one crystal.

    Attributes:
        document: everything that is known of it; the fields are those of a results store.
        crystal: the crystal as it was given.
        arrays: arrays that the steps left, by name: ``force_constants``, ``band_structure``, ``exact_looks``.
        descendants: of one that was followed along its modes, all crystals that were made of it, and of these.
    """

    document: CalculationDocument
    crystal: CrystalDocument
    arrays: Mapping[str, Arrays] = field(default_factory=dict, repr=False)
    descendants: Sequence[JudgedCrystal] = field(default=(), repr=False)

    @property
    def becomes(self) -> JudgedCrystal | None:
        """The stable crystal of the lowest energy that it leads to, if it was followed and leads to one."""
        wanted = self.document.family.stable if self.document.family else None
        return next((each for each in self.descendants if each.document.id == wanted), None)

    @property
    def stability(self) -> str:
        """``stable``, ``unstable`` or ``undecided``; ``rejected`` or ``failed`` for one that was not judged."""
        return self.document.status

    @property
    def is_stable(self) -> bool:
        """Whether it was judged, and is stable."""
        return self.document.status == Status.STABLE

    @property
    def was_judged(self) -> bool:
        """Whether it is known to be stable, unstable or undecided."""
        return self.document.status in [each.value for each in Stability]

    @property
    def has_phonons(self) -> bool:
        """Whether its phonons were computed; not if a few forces proved it unstable before."""
        return "band_structure" in self.arrays

    @property
    def why(self) -> str:
        """The evidence in a sentence, or why there is none."""
        return self.document.why or f"{self.document.status} ({self.document.reason}): {self.document.detail}"

    @property
    def published(self) -> dict[float, Stability]:
        """What the published rule says of it, by its thresholds in THz; empty if the path was not looked at."""
        return published(self.document.evidence)

    @property
    def minimum(self) -> Look | None:
        """The lowest frequency (THz, imaginary as negative) where the protocol looks; None if it was not computed."""
        return self.document.lowest

    @property
    def structure(self) -> Structure | None:
        """The relaxed crystal; as it was given where it was not relaxed; None where it could not be read."""
        found = self.document.relaxed_structure or self.crystal.structure
        return None if found is None else stored_structure(found, self.document.id)

    @property
    def bands(self) -> Bands:
        """The band structure.

        Raises:
            NotJudgedError: there is none.
        """
        return Bands.from_arrays(self._arrays("band_structure"))

    @property
    def force_constants(self) -> ForceConstants:
        """Force constants, with the cells that they belong to.

        Raises:
            NotJudgedError: there are none.
        """
        from phononbench_flows.engine.force_constants import ForceConstants

        return ForceConstants.from_arrays(self._arrays("force_constants"))

    @property
    def phonons(self) -> PhononResult:
        """What the formats of ``results.phonon_files`` are written from.

        Raises:
            NotJudgedError: there are no phonons.
        """
        from phononbench_flows.results.phonon_files import PhononResult

        return PhononResult(
            self.document.id,
            self.force_constants,
            self.bands,
            self.document.potential.name,
            exact_looks=self.arrays.get("exact_looks"),
        )

    def phonopy(self) -> Phonopy:
        """A Phonopy object with the force constants, from which everything else can be had.

        Raises:
            NotJudgedError: there are none.
        """
        return self.force_constants.phonopy()

    def emmet(self) -> PhononBSDOSDoc:
        """The phonons as emmet's document, whose band structure ``to_pmg`` turns into pymatgen's.

        Raises:
            NotJudgedError: there are none.
        """
        from phononbench_flows.results.phonon_files import emmet_document

        found = self.phonons
        return emmet_document(
            found.constants,
            found.bands,
            identifier=found.identifier,
            code=found.code,
            exact_looks=found.exact_looks,
        )

    def plot(self) -> Figure:
        """The band structure as a matplotlib figure; imaginary frequencies are red and negative.

        Raises:
            NotJudgedError: there is none.
        """
        from phononbench_flows.results.band_structures import band_structure_figure

        return band_structure_figure(self.bands, self._title, self.document.assessments[0].threshold)

    def save(self, folder: Path | str) -> list[Path]:
        """Write what there is: the crystal as CIF, phonopy's and emmet's files, and the picture of the bands.

        Parameters:
            folder: made if it is not there.
        """
        from phononbench_flows.results.export import write_cif
        from phononbench_flows.results.phonon_files import PHONON_FORMATS

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        if self.structure is not None:
            written.append(folder / f"{self.document.id}.cif")
            write_cif(self.structure, written[-1])
        if self.has_phonons:
            for form in PHONON_FORMATS.values():
                written.append(folder / f"{self.document.id}{form.suffix}")
                written[-1].write_text(form.text(self.phonons), encoding="utf-8")
            written.append(folder / f"{self.document.id}.png")
            self.plot().savefig(written[-1], dpi=160)
        return written

    def as_dict(self) -> dict[str, Any]:
        """All that is known, as plain JSON: stability, why, and the documents of calculation and crystal."""
        return {
            "source": self.crystal.origin.source,
            "stability": self.stability,
            "why": self.why,
            "published": {f"{threshold:g}": stability.value for threshold, stability in self.published.items()},
            "minimum": self.minimum.model_dump(mode="json") if self.minimum else None,
            "calculation": self.document.model_dump(mode="json"),
            "crystal": self.crystal.model_dump(mode="json"),
        }

    @property
    def _title(self) -> str:
        return f"{self.document.formula_pretty or self.document.id}  {self.document.status}"

    def _arrays(self, name: str) -> Arrays:
        if name not in self.arrays:
            raise NotJudgedError(f"{self.document.id} has no {name.replace('_', ' ')}: {self.why}")
        return self.arrays[name]

    def _repr_html_(self) -> str:
        """A small card for notebooks."""
        from phononbench_flows.results.card import card

        return card(self.document, self.why, self.plot() if self.has_phonons else None)


def judge(crystal: Crystal, **how: Any) -> JudgedCrystal:
    """Judge one crystal: a pymatgen Structure, ASE Atoms, or the path of a file with one crystal.

    >>> result = judge(structure, potential="sevennet-0")
    >>> result.stability, result.why, result.minimum.frequency

    What cannot be used or computed is no exception, but a result that says so: its ``stability`` is ``rejected`` or
    ``failed``. The keyword arguments are those of :func:`judge_many`.

    Raises:
        InputError: there is no such file.
        PotentialError, ProtocolError: the potential or the protocol cannot be used.
        MachineError: the machine cannot compute.
    """
    return judge_many([crystal], **how)[0]


def judge_many(
    crystals: Iterable[Crystal],
    *,
    potential: str = DEFAULT,
    protocol: str | Protocol = DEFAULT_PROTOCOL,
    device: str = "auto",
    batch_atoms: int | None = None,
    potential_settings: Mapping[str, Any] | None = None,
    follow: bool = False,
) -> list[JudgedCrystal]:
    """Judge crystals together, in batches; a result in each place, in their order.

    Nothing is left on disk. For sets that may not be lost to a killed process there is ``judge_folder``.

    Parameters:
        crystals: pymatgen Structures, ASE Atoms, or paths of files with one crystal each.
        potential: name, path of a checkpoint, or ``package.module:source``.
        protocol: a Protocol, the name of a preset, or the path of a YAML file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_atoms: atoms per call of the potential; None to let the device decide.
        potential_settings: settings that the potential's family offers.
        follow: whether unstable crystals are followed along their modes; what they become are ``descendants``.

    Raises:
        InputError: there is no such file.
        PotentialError, ProtocolError: the potential or the protocol cannot be used.
        MachineError: the machine cannot compute.
    """
    chosen = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    judged = judge_given(
        [_given(crystal, number) for number, crystal in enumerate(crystals, start=1)],
        protocol=chosen,
        potential=potential,
        device=device,
        batch_atoms=batch_atoms,
        potential_settings=potential_settings,
    )
    if not follow:
        return judged
    from phononbench_flows.follow import follow_judged

    return follow_judged(
        judged,
        protocol=chosen,
        potential=potential,
        device=device,
        batch_atoms=batch_atoms,
        potential_settings=potential_settings,
    )


def judge_given(
    crystals: Sequence[Given],
    *,
    protocol: Protocol,
    potential: str = DEFAULT,
    device: str = "auto",
    batch_atoms: int | None = None,
    potential_settings: Mapping[str, Any] | None = None,
    on_passed: Callable[[CalculationDocument], None] = lambda _: None,
) -> list[JudgedCrystal]:
    """Judge crystals that were read before; see :func:`judge_many`.

    Parameters:
        on_passed: called with a crystal's document whenever it has passed a step, or failed in it.
    """
    from phononbench_flows import potentials
    from phononbench_flows.engine.batch import Budget

    loaded = potentials.load(potential, device, potential_settings)
    judged_set = CrystalSet(_SET, {}, protocol, loaded.record(), lambda: loaded.elements)
    tools = Tools(protocol, loaded, Budget(batch_atoms) if batch_atoms else None)
    pairs = [_documents(each, judged_set) for each in crystals]
    kept: list[dict[str, Arrays]] = [{} for _ in pairs]
    places = {document.key: place for place, (_, document) in enumerate(pairs)}

    def write(document: CalculationDocument, arrays: Mapping[str, Arrays]) -> None:
        kept[places[document.key]].update(arrays)
        on_passed(document)

    waiting = [
        StepInput(document, _reader(crystal), kept[place].__getitem__)
        for place, (crystal, document) in enumerate(pairs)
        if document.status == Status.PENDING
    ]
    pass_steps(waiting, steps_of(protocol), tools, write)
    return [JudgedCrystal(document, crystal, kept[place]) for place, (crystal, document) in enumerate(pairs)]


def _reader(crystal: CrystalDocument) -> Callable[[], Structure]:
    return lambda: stored_structure(crystal.structure, crystal.id)


def _documents(given: Given, crystals: CrystalSet) -> tuple[CrystalDocument, CalculationDocument]:
    crystal = CrystalDocument(id=given.name, set=_SET, origin=given.origin)
    if isinstance(given.structure, Rejection):
        return crystal, rejected(calculation(crystal, crystals), given.structure)
    crystal.notes = list(given.notes)
    return crystal, screened(crystal, given.structure, crystals)


def _given(crystal: Crystal, number: int) -> Given:
    """What is handed in, under a name that no other of its call has."""
    if isinstance(crystal, str | Path):
        return _from_file(Path(crystal), number)
    if not isinstance(crystal, Structure):
        from ase import Atoms
        from pymatgen.io.ase import AseAtomsAdaptor

        if not isinstance(crystal, Atoms):
            raise TypeError(f"a pymatgen Structure, ASE Atoms or a path is needed, not a {type(crystal).__name__}")
        if not crystal.pbc.all():
            return Given(f"{number}", Rejection(Reason.BAD_CELL, "It is not periodic in all three directions."))
        crystal = AseAtomsAdaptor.get_structure(crystal)
    return Given(f"{number}", clean(crystal))


def _from_file(path: Path, number: int) -> Given:
    raws = list(read_inputs([path]))
    if len(raws) != 1:
        return Given(f"{number}", Rejection(Reason.AMBIGUOUS, f"{path} holds {len(raws)} crystals, not one."))
    read = given(raws[0], raws[0].rejection or parse(raws[0].format, raws[0].data))
    return replace(read, name=f"{number}-{read.name}")


def given(raw: RawCrystal, parsed: Parsed | Rejection) -> Given:
    """A crystal that was read and parsed."""
    origin = Origin(source=raw.source, sha256=source_sha256(raw))
    if isinstance(parsed, Rejection):
        return Given(raw.label, parsed, origin)
    return Given(raw.label, parsed.structure, origin, parsed.notes)
