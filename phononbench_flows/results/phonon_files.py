"""Phonons of one crystal as files that other programs open: emmet's document, ``phonopy-load``, ``band.yaml``.

Frequencies are in THz, imaginary ones negative; force constants in eV/Å^2; lengths in Å; q-points in reciprocal
lattice units of phonopy's primitive cell. The functions take what the engine gives, fresh or read back from where it
was kept, and know nothing of stores. emmet and phonopy are imported when they are used.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phononbench_flows.errors import PhononBenchError

if TYPE_CHECKING:
    from emmet.core.phonon import PhononBSDOSDoc
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from pymatgen.core import Structure

    from phononbench_flows.engine.bands import Bands
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.interpolation import Interpolation

CODE = "phononbench-flows"

ExactLooks = Mapping[str, np.ndarray]
"""What was found at exact q-points; see :func:`phononbench_flows.engine.corrected.looks_arrays`."""

# One matrix diagonalised twice, even by another version of phonopy, agrees to this share of its largest eigenvalue.
_SAME_SPECTRUM = 1e-6


class PhononFileError(PhononBenchError):
    """Phonons that cannot be written; the message is a sentence."""


@dataclass(frozen=True)
class PhononResult:
    """The phonons of one crystal with what a file says of them.

    Attributes:
        identifier: the crystal's id.
        constants, bands: force constants and the band structure that belongs to them.
        code: what computed the forces, such as the name of the potential.
        mesh: q-points along each reciprocal axis for a density of states; None for none.
        last_updated: when it was computed; None for now.
        exact_looks: the array of this name, where the bands pass through exact frequencies; None where they are
            phonopy's interpolation.
    """

    identifier: str
    constants: ForceConstants
    bands: Bands
    code: str = CODE
    mesh: tuple[int, int, int] | None = None
    last_updated: datetime | None = None
    exact_looks: ExactLooks | None = None


@dataclass(frozen=True)
class PhononFormat:
    """One kind of file: what its names end in, and the text for one crystal."""

    suffix: str
    text: Callable[[PhononResult], str]


def emmet_document(
    constants: ForceConstants,
    bands: Bands,
    *,
    identifier: str,
    code: str = CODE,
    mesh: tuple[int, int, int] | None = None,
    last_updated: datetime | None = None,
    exact_looks: ExactLooks | None = None,
) -> PhononBSDOSDoc:
    """The document of the Materials Project's software; ``doc.phonon_bandstructure.to_pmg`` is pymatgen's.

    ``structure`` is the cell that was computed, to which both matrices and the order of the compact force constants
    refer; the band structure has the primitive cell. The reciprocal lattice has the factor 2 pi, as pymatgen wants
    it, so that pymatgen's distances are 2 pi times ours. The document's own ``identifier`` admits only Materials
    Project ids and rewrites what looks like one, so the crystal's id is that of the band structure and of the
    calculation in ``calc_meta``.

    Parameters:
        identifier: the crystal's id.
        code: what computed the forces.
        mesh: q-points along each reciprocal axis for the density of states, without which there is none.
        last_updated: when it was computed; now without it.
        exact_looks: where the bands pass through exact frequencies; their force constants alone do not tell these.

    Raises:
        PhononFileError: the band structure has another number of branches than the force constants.
    """
    from emmet.core.base import CalcMeta
    from emmet.core.phonon import PhononBSDOSDoc, PhononComputationalSettings
    from emmet.core.utils import get_num_formula_units

    phonon = _phonon_of(constants, bands)
    interpolated = _interpolated(constants, exact_looks)
    structure = _structure(phonon.unitcell)
    formula_units = get_num_formula_units(dict(structure.composition))
    given: dict[str, Any] = {"last_updated": last_updated} if last_updated else {}
    if mesh is not None:
        given["phonon_dos"] = _emmet_dos(phonon, interpolated, mesh, identifier)
    return PhononBSDOSDoc.migrate_fields(
        structure=structure,
        phonon_bandstructure=_emmet_bands(phonon, interpolated, bands, identifier),
        phonon_method="phonopy",
        supercell_matrix=constants.supercell.tolist(),
        primitive_matrix=constants.primitive.tolist(),
        force_constants=constants.array.tolist(),
        volume_per_formula_unit=structure.volume / formula_units,
        code=code,
        post_process_settings=PhononComputationalSettings(kpath_scheme="seekpath"),
        calc_meta=[CalcMeta(identifier=identifier, name=code)],
        **given,
    )


def emmet_json(result: PhononResult) -> str:
    """The document as one line of JSON, for a file of its own or a line in a ``.jsonl``."""
    document = emmet_document(
        result.constants,
        result.bands,
        identifier=result.identifier,
        code=result.code,
        mesh=result.mesh,
        last_updated=result.last_updated,
        exact_looks=result.exact_looks,
    )
    return document.model_dump_json() + "\n"


def phonopy_params(constants: ForceConstants) -> str:
    """The text of a ``phonopy_params.yaml``: cells with masses, both matrices, symprec, force constants.

    ``phonopy.load(path)`` and ``phonopy-load path --no-fc-symmetry`` give our frequencies; without that option the
    program symmetrises the force constants once more. Neither reads the symmetry tolerance from the file: give
    ``symprec=`` or ``--tolerance`` where it is not 1e-5 Å. Where exact frequencies decide, these are the first force
    constants, whose interpolation is phonopy's own: it is ours at the q-points that the supercell holds.
    """
    return str(constants.phonopy().to_phonopy_yaml(settings={"force_constants": True}))


def band_yaml(
    constants: ForceConstants, bands: Bands, *, exact_looks: ExactLooks | None = None, eigenvectors: bool = True
) -> str:
    """The text of phonopy's ``band.yaml`` along our q-points.

    Besides what phonopy writes, the ends of the segments carry their names as ``label``, which pymatgen and
    phononwebsite look for. Eigenvectors are those of phonopy's dynamical matrix, of norm one.

    Parameters:
        exact_looks: where the bands pass through exact frequencies, by which the matrix between is corrected.

    Raises:
        PhononFileError: the band structure is not one of these force constants.
    """
    from phonopy.phonon.band_structure import BandStructure

    phonon = _phonon_of(constants, bands)
    band = BandStructure(
        bands.q,
        _matrix(phonon, _interpolated(constants, exact_looks)),
        with_eigenvectors=eigenvectors,
        path_connections=bands.connections,
        labels=bands.labels,
    )
    stored, computed = np.concatenate(bands.frequencies), np.concatenate(band.frequencies)
    # Compared as squares: the square root makes much of the rounding of the acoustic modes at Gamma.
    if np.abs(np.abs(stored) * stored - np.abs(computed) * computed).max() > _SAME_SPECTRUM * np.square(stored).max():
        raise PhononFileError("the frequencies of the band structure are not those of the force constants")
    header = {
        "calculator": CODE,  # of which phonopy's readers know nothing, and take the units for eV and Å
        "length_unit": "angstrom",
        "primitive_matrix": constants.primitive.tolist(),
        "supercell_matrix": constants.supercell.tolist(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "band.yaml"
        band.write_yaml(comment=header, filename=path)
        text = io.StringIO()
        with path.open(encoding="utf-8") as lines:
            text.writelines(_labelled(lines, bands))
    return text.getvalue()


def _band_text(result: PhononResult) -> str:
    return band_yaml(result.constants, result.bands, exact_looks=result.exact_looks)


PHONON_FORMATS: dict[str, PhononFormat] = {
    "emmet": PhononFormat(".emmet.json", emmet_json),
    "phonopy": PhononFormat(".phonopy.yaml", lambda result: phonopy_params(result.constants)),
    "band": PhononFormat(".band.yaml", _band_text),
}


def point_name(label: str) -> str:
    r"""A label of phonopy's as seekpath and pymatgen write it: ``$\Gamma$`` and ``$\mathrm{S_0}$`` as GAMMA and S_0."""
    plain = re.sub(r"\\mathrm|[${}]", "", label)
    return re.sub(r"\\([A-Za-z]+)", lambda found: found[1].upper(), plain)


def segment_names(bands: Bands) -> list[tuple[str, str]]:
    """Names of the points where each segment starts and ends.

    Phonopy lists a point once where the path goes on and twice where it jumps.
    """
    names = [point_name(label) for label in bands.labels]
    pairs, at = [], 0
    for connected in bands.connections:
        pairs.append((names[at], names[at + 1]))
        at += 1 if connected else 2
    return pairs


def _phonon_of(constants: ForceConstants, bands: Bands) -> Phonopy:
    phonon = constants.phonopy()
    branches, expected = bands.frequencies[0].shape[1], 3 * len(phonon.primitive)
    if branches != expected:
        raise PhononFileError(f"the band structure has {branches} branches, the force constants have {expected}")
    return phonon


def _interpolated(constants: ForceConstants, exact_looks: ExactLooks | None) -> Interpolation | None:
    """The interpolation that the bands are of; None for phonopy's own."""
    if exact_looks is None:
        return None
    from phononbench_flows.engine.corrected import through_looks

    return through_looks(constants, exact_looks)


def _matrix(phonon: Phonopy, interpolated: Interpolation | None) -> Any:
    """What gives phonopy the dynamical matrix of a q-point."""
    if interpolated is None:
        return phonon.dynamical_matrix
    from phononbench_flows.engine.corrected import PhonopyMatrix

    return PhonopyMatrix(phonon, interpolated)


def _frequencies(phonon: Phonopy, interpolated: Interpolation | None, points: np.ndarray) -> np.ndarray:
    """Frequencies (n, n_bands) in THz at q-points (n, 3)."""
    if interpolated is None:
        return np.array(phonon.run_qpoints(points).frequencies)
    return interpolated.frequencies(points)


def _structure(cell: PhonopyAtoms) -> Structure:
    from pymatgen.core import Structure

    return Structure(cell.cell, cell.symbols, cell.scaled_positions)


def _emmet_bands(phonon: Phonopy, interpolated: Interpolation | None, bands: Bands, identifier: str) -> Any:
    from emmet.core.band_theory import BSPathType
    from emmet.core.phonon import PhononBS

    q, frequencies = _pymatgen_path(phonon, interpolated, bands)
    structure = _structure(phonon.primitive)
    return PhononBS(
        identifier=identifier,
        structure=structure,
        reciprocal_lattice=structure.lattice.reciprocal_lattice.matrix.tolist(),
        qpoints=q.tolist(),
        frequencies=frequencies.T.tolist(),
        labels_dict=_labelled_points(bands),
        has_nac=False,
        # Seekpath's paper. Left open, emmet would look for a path of its own and rename our points.
        path_convention=BSPathType.hinuma,
        kpath=[name for name, _ in groupby(chain.from_iterable(segment_names(bands)))],
    )


def _labelled_points(bands: Bands) -> dict[str, list[float]]:
    points: dict[str, list[float]] = {}
    for (start, end), q in zip(segment_names(bands), bands.q, strict=True):
        points |= {start: q[0].tolist(), end: q[-1].tolist()}
    return points


def _pymatgen_path(phonon: Phonopy, interpolated: Interpolation | None, bands: Bands) -> tuple[np.ndarray, np.ndarray]:
    """All q-points (n, 3) and frequencies (n, n_bands) of the path below each other.

    Pymatgen takes two neighbours that have labels for a jump or the turn into the next segment. A segment of nothing
    but its two ends therefore gets its middle as well.
    """
    q, frequencies = [], []
    for points, values in zip(bands.q, bands.frequencies, strict=True):
        if len(points) == 2:
            middle = points.mean(axis=0, keepdims=True)
            q += [points[:1], middle, points[1:]]
            frequencies += [values[:1], _frequencies(phonon, interpolated, middle), values[1:]]
        else:
            q.append(points)
            frequencies.append(values)
    return np.concatenate(q), np.concatenate(frequencies)


def _emmet_dos(phonon: Phonopy, interpolated: Interpolation | None, mesh: tuple[int, int, int], identifier: str) -> Any:
    """Density of states (tetrahedra) of the cell that was computed, three states an atom, 1/THz."""
    from emmet.core.phonon import PhononDOS

    found = phonon.run_mesh(mesh, is_gamma_center=True)
    if interpolated is not None:  # phonopy makes a mesh's matrices all at once, and asks for none
        found.frequencies[:] = interpolated.frequencies(np.array(found.qpoints))
    dos = phonon.run_total_dos()
    # phonopy counts the primitive cell, but emmet divides thermal properties by the atoms of the document's structure
    cells = len(phonon.unitcell) / len(phonon.primitive)
    return PhononDOS(
        identifier=identifier,
        structure=_structure(phonon.unitcell),
        frequencies=np.asarray(dos.frequency_points).tolist(),
        densities=(cells * np.asarray(dos.dos)).tolist(),
    )


def _labelled(lines: Iterable[str], bands: Bands) -> Iterator[str]:
    """The lines of a ``band.yaml`` with a label at both ends of each segment."""
    labels: dict[int, str] = {}
    first = 0
    for (start, end), q in zip(segment_names(bands), bands.q, strict=True):
        labels |= {first: start, first + len(q) - 1: end}
        first += len(q)
    point = 0
    for line in lines:
        if line == "  band:\n":
            if point in labels:
                yield f"  label: '{labels[point]}'\n"
            point += 1
        yield line
