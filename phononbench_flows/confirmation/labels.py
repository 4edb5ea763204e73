"""Labels that others made: tables of labels or frequencies, PhononBench's released ones, phonopy files with forces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, field, replace
from io import StringIO
from lzma import LZMAError
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
import phonopy
from pymatgen.core import Structure
from pymatgen.io.phonopy import get_pmg_structure
from yaml import YAMLError
from yaml.constructor import ConstructorError

from phononbench_flows.confirmation.collect import judge
from phononbench_flows.confirmation.draw import ConfirmationError
from phononbench_flows.documents import ConfirmationDocument
from phononbench_flows.protocol import Protocol
from phononbench_flows.sets.identity import crystal_id
from phononbench_flows.stability import PUBLISHED, Stability, labelled
from phononbench_flows.structures import ReferenceSet, Rejection, parse, stored_structure
from phononbench_flows.structures.formats.phonopy_files import plain_content
from phononbench_flows.structures.formats.released import SAYS
from phononbench_flows.structures.raw import ReadLimits, RejectedError, TooLargeError
from phononbench_flows.structures.streams import open_regular, read_whole, split_compression, unpacked
from phononbench_flows.structures.text import as_text
from phononbench_flows.symmetry import symmetry

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

RELEASED = "phononbench"
"""In the place of a file: the labels of PhononBench's released data that crystals of a set came with."""

COLUMNS = ("id", "structure", "label", "frequency")
"""What a table may say of a crystal; the columns bear these names, or those that are given for them."""

_MOST = 2_000_000_000  # bytes of a file
_LOT = 256  # confirmations written at once


@dataclass(frozen=True)
class Labelling:
    """How labels are to be read.

    Attributes:
        name: whose they are.
        functional, code: by what they were computed, if known.
        columns: names of a table's columns, by what they are; see :data:`COLUMNS`.
        threshold: a frequency below it, in THz, is an instability where there is no label.
    """

    name: str
    functional: str | None = None
    code: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    threshold: float = PUBLISHED[0]


@dataclass(frozen=True)
class Imported:
    """How many labels found their crystal, how many did not, and how many say nothing that can be used."""

    known: int = 0
    without_crystal: int = 0
    unusable: int = 0


def import_labels(
    store: ResultsStore, mine: Mapping[str, str], files: Sequence[Path], how: Labelling, protocol: Protocol
) -> Imported:
    """Write a confirmation for each crystal of a set that has a label in these files; those of before are replaced.

    A crystal is found by its id, with or without its set's name, or by its structure as read.

    Args:
        mine: set and protocol.
        files: tables (.csv, also .gz), and phonopy files with force constants or forces, which are judged.
        protocol: by which phonopy files are judged, and structures compared.

    Raises:
        ConfirmationError: a file cannot be used.
    """
    crystals = _Crystals(store, mine, protocol)
    found, counts = dict[str, ConfirmationDocument](), Imported()
    for path in files:
        says = _phonopy(path, crystals, how, store, protocol) if _is_phonopy(path) else _rows(path, crystals, how)
        for confirmation, usable in says:
            if confirmation is None:
                counts = replace(
                    counts, without_crystal=counts.without_crystal + usable, unusable=counts.unusable + (not usable)
                )
            else:
                found[confirmation.key] = confirmation
    store.put_confirmations(*found.values())
    return replace(counts, known=len(found))


def import_released(store: ResultsStore, mine: Mapping[str, str]) -> Imported:
    """The labels of PhononBench's released data as confirmations: those of another potential, and not of DFT."""
    crystals = store.query({**mine, f"labels.{SAYS}": {"$exists": True}}, ["id", "labels"])
    found = [
        _confirmation(row["id"], mine["set"], Labelling(SAYS), _verdict(row["labels"][SAYS], ""), None)
        for row in crystals
    ]
    store.put_confirmations(*found)
    return Imported(known=len(found))


class _Crystals:
    """The crystals of a set, to be found by name or structure."""

    def __init__(self, store: ResultsStore, mine: Mapping[str, str], protocol: Protocol) -> None:
        self.set = mine["set"]
        self._store, self._protocol = store, protocol
        self._ids = {row["id"] for row in store.query(dict(mine), ["id"])}
        self._known: ReferenceSet | None = None

    def named(self, name: str) -> str | None:
        """Id of the crystal of this id or name."""
        return next((each for each in (name, crystal_id(name, self.set)) if each in self._ids), None)

    def like(self, structure: Structure) -> str | None:
        """Id of the crystal that was read as this one."""
        if self._known is None:
            self._known = ReferenceSet(self._protocol)
            for crystal in self._store.crystals(sorted(self._ids)):
                if crystal.structure is not None:
                    self._known.add(crystal.id, stored_structure(crystal.structure, crystal.id))
        return self._known.find(structure, symmetry(structure, self._protocol.relaxation.symprec).number)


_Said = Iterator[tuple[ConfirmationDocument | None, bool]]
"""Confirmations; None where there is no such crystal (True), or nothing usable is said (False)."""


def _rows(path: Path, crystals: _Crystals, how: Labelling) -> _Said:
    table = _table(path)
    columns = {what: how.columns.get(what, what) for what in COLUMNS}
    missing = [given for given in how.columns.values() if given not in table]
    if missing:
        raise ConfirmationError(f"{path} has no column {missing[0]!r}; it has {', '.join(map(str, table.columns))}")
    there = {what: name for what, name in columns.items() if name in table}
    if not {"id", "structure"} & there.keys() or not {"label", "frequency"} & there.keys():
        raise ConfirmationError(
            f"{path} needs a column `id` or `structure`, and one `label` or `frequency`: "
            "say which these are, such as --column id=material_id"
        )
    for row in table.to_dict("records"):
        said = {what: row[name] for what, name in there.items() if not pd.isna(row[name])}
        verdict, frequency = _said_of(said, there.get("label", ""), how.threshold)
        if verdict is None:
            yield None, False
            continue
        found = crystals.named(str(said["id"])) if "id" in said else _like(str(said.get("structure", "")), crystals)
        yield (None if found is None else _confirmation(found, crystals.set, how, verdict, frequency)), True


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(StringIO(_text(path)))
    except (ValueError, pd.errors.ParserError) as error:
        raise ConfirmationError(f"{path} is no table: {error}") from error


def _text(path: Path) -> str:
    """The text of a file, packed or not."""
    try:
        with open_regular(path) as stream:
            plain = unpacked(stream, split_compression(path.name)[1], path.stat().st_size, ReadLimits())
            return as_text(read_whole(plain, _MOST))
    except (OSError, EOFError, ValueError, LZMAError, TooLargeError, RejectedError) as error:
        raise ConfirmationError(f"{path} cannot be read: {error}") from error


def _said_of(said: Mapping[str, Any], column: str, threshold: float) -> tuple[Stability | None, float | None]:
    frequency = said.get("frequency")
    number = float(frequency) if isinstance(frequency, int | float) else None
    if "label" in said:
        return _verdict(said["label"], column), number
    return (None if number is None else labelled(number, threshold)), number


def _verdict(label: Any, column: str) -> Stability | None:
    """A label in words, or as yes and no of what its column is called: ``has_imag`` is another question."""
    text = str(label).strip().lower()
    if text in set(Stability):
        return Stability(text)
    if text not in {"true", "false", "1", "0", "yes", "no"}:
        return None
    asked_for_unstable = "imag" in column.lower() or "unstable" in column.lower()
    return Stability.STABLE if (text in {"true", "1", "yes"}) != asked_for_unstable else Stability.UNSTABLE


def _like(cif: str, crystals: _Crystals) -> str | None:
    parsed = parse("cif", cif.encode())
    return None if isinstance(parsed, Rejection) else crystals.like(parsed.structure)


def _confirmation(
    crystal: str, set_name: str, how: Labelling, verdict: Stability | None, frequency: float | None
) -> ConfirmationDocument:
    return ConfirmationDocument(
        key=f"{crystal}#{how.name}",
        id=crystal,
        set=set_name,
        status="known",
        source=how.name,
        functional=how.functional,
        code=how.code,
        stability=verdict,
        published=verdict,
        frequency=frequency,
    )


def _is_phonopy(path: Path) -> bool:
    return any(suffix in {".yaml", ".yml"} for suffix in path.suffixes)


def _phonopy(path: Path, crystals: _Crystals, how: Labelling, store: ResultsStore, protocol: Protocol) -> _Said:
    """The one crystal of a phonopy file, judged by its force constants."""
    try:
        plain_content(_text(path))  # phonopy's loader runs what this refuses, however it is spelt
    except ConstructorError as error:
        raise ConfirmationError(f"{path} holds code, and is not read") from error
    except (RejectedError, YAMLError, RecursionError) as error:
        raise ConfirmationError(f"{path} is no file of phonopy with forces: {error}") from error
    whole = path.absolute()
    try:
        # phonopy would take what the file lacks from files of the current folder, which are of who knows what crystal.
        with TemporaryDirectory(prefix="phononbench-") as empty, chdir(empty):
            phonon = phonopy.load(whole, log_level=0)
    except Exception as error:
        raise ConfirmationError(f"{path} is no file of phonopy with forces: {error}") from error
    if phonon.force_constants is None:
        yield None, False
        return
    found = crystals.like(get_pmg_structure(phonon.unitcell))
    if found is None:
        yield None, True
        return
    confirmation = _confirmation(found, crystals.set, how, None, None)
    judge(store, confirmation, phonon, protocol)
    yield confirmation, True
