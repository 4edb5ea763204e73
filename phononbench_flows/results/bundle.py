"""One evaluated set as a file that anybody can check and load: ``pack``, ``verify`` and ``unpack``.

A bundle is a zip archive, its members not compressed a second time, in this order:

* ``documents.jsonl.gz``: what was computed for every crystal, by id, with its potential and the versions;
* ``crystals.jsonl.gz``: the crystals as they were read, in the same order, with the hashes of their inputs;
* ``relaxed.extxyz.gz``: the relaxed crystals, for other programs;
* ``protocol.yaml`` and ``set.json``: how it was judged, and what is known of the set;
* ``blobs/``: band structures, and force constants if wanted, named by the sha256 of their bytes;
* ``report/``: the report, if wanted;
* ``manifest.json``: the size and sha256 of all of these, and how many crystals became what.

The same content makes the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import batched
from pathlib import Path
from typing import Any, Self, TextIO

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from phononbench_flows.documents import (
    BlobRef,
    CalculationDocument,
    CrystalDocument,
    PotentialRecord,
    SetDocument,
    calculation_key,
)
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.files import replacing
from phononbench_flows.outcomes import COUNTED, Status
from phononbench_flows.protocol import PRESETS, Protocol
from phononbench_flows.results.export import json_line, write_extxyz
from phononbench_flows.sets.relaxed import compare_relaxed
from phononbench_flows.stability import assess, thresholded
from phononbench_flows.statistics import Funnel, funnel
from phononbench_flows.steps import ALWAYS
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import StoredStructureError, stored_structure

FORMAT = 2
"""Version of the layout. It grows when an older program could no longer check a bundle."""

DOCUMENTS, CRYSTALS, RELAXED = "documents.jsonl.gz", "crystals.jsonl.gz", "relaxed.extxyz.gz"
PROTOCOL, SET = "protocol.yaml", "set.json"
MANIFEST = "manifest.json"
_REQUIRED = (DOCUMENTS, CRYSTALS, RELAXED, PROTOCOL, SET, MANIFEST)
_OF_FORCES = {"force_constants", "displaced"}  # arrays that are left out if force constants are
_OTHERS = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}\.npz|report/([a-z]+/)?[A-Za-z][A-Za-z0-9_-]*\.[a-z]+")
_LOT = 256  # documents written at once
_TIMES = {"created_at", "updated_at"}  # of either document for itself
_MAX_LINE = 100_000_000  # bytes; a longer line is no document
# What zipfile raises for an archive that somebody changed.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
_ASSESSED = (Status.STABLE.value, Status.UNSTABLE.value, Status.UNDECIDED.value)


class BundleError(PhononBenchError):
    """A set that cannot be packed, or a bundle that is not what it was; the message names the file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Part):
    """A member of the archive: its size in bytes, and its sha256."""

    size: int
    sha256: str


class Manifest(_Part):
    """What a bundle says of itself."""

    format: int
    set: str
    protocol_id: str
    protocol_hash: str
    potential: str
    checkpoint_sha256: str
    versions: list[dict[str, str]]
    counts: dict[str, int]
    force_constants: bool
    files: dict[str, Entry]


@dataclass
class _Seen:
    """What the documents of a set say, gathered as they pass."""

    protocol: Protocol
    force_constants: bool
    rows: list[dict[str, str | None]] = field(default_factory=list)
    blobs: dict[str, BlobRef] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)
    potential: PotentialRecord | None = None

    def add(self, document: CalculationDocument) -> None:
        self.rows.append({"status": document.status, "stage": document.stage, "same_as": document.same_as})
        self.potential = self.potential or document.potential
        for name, ref in document.arrays.items():
            if name not in _OF_FORCES or self.force_constants:
                self.blobs[_blob_name(ref)] = ref
        for each in filter(None, (document.provenance, *document.provenance_by_step.values())):
            self.versions.add(json.dumps(each.versions, sort_keys=True))

    def manifest(self, about: SetDocument, files: Mapping[str, Entry]) -> Manifest:
        """The manifest of these documents.

        Raises:
            BundleError: there are none, or some are not finished.
        """
        counts = funnel(self.rows, about.n_generated)
        if self.potential is None:
            raise BundleError(f"there are no crystals of set {about.set!r}")
        if counts.pending or not counts.adds_up:
            raise BundleError(f"{counts.pending} crystals of set {about.set!r} are not finished")
        return Manifest(
            format=FORMAT,
            set=about.set,
            protocol_id=self.protocol.id_with(self.potential.checkpoint_sha256),
            protocol_hash=self.protocol.hash,
            potential=self.potential.name,
            checkpoint_sha256=self.potential.checkpoint_sha256,
            versions=[json.loads(text) for text in sorted(self.versions)],
            counts=asdict(counts),
            force_constants=self.force_constants,
            files=dict(files),
        )


def _blob_name(ref: BlobRef) -> str:
    return f"blobs/{ref.sha256[:2]}/{ref.sha256}.npz"


# -- packing ---------------------------------------------------------------------------------------------------


def pack(
    store: ResultsStore,
    set_name: str,
    out: Path,
    *,
    protocol: Protocol | None = None,
    potential: str | None = None,
    force_constants: bool = False,
    report: Path | None = None,
) -> Manifest:
    """Write the bundle of a set whose crystals are all finished.

    Args:
        store: where the set is.
        set_name: name of the set.
        out: the file, replaced if it is there.
        protocol, potential: how it was judged; needed if that is no preset, or if it was judged in several ways.
        force_constants: whether to put them in.
        report: folder of a report to put in.

    Raises:
        BundleError: no such set, a crystal that is not finished, that is not there, or that is another one by now,
            or a protocol that is not known.
        StoreError: what is in the store cannot be read.
    """
    protocol_id, chosen = judged_by(store, set_name, protocol, potential)
    about = store.get_set(set_name) or SetDocument(set=set_name)
    seen = _Seen(chosen, force_constants)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".pack-", dir=out.parent) as folder,
        replacing(out) as path,
        _Archive(path) as archive,
    ):
        _add_documents(archive, _with_crystals(_documents(store, set_name, protocol_id), store), seen, Path(folder))
        archive.add(PROTOCOL, io.BytesIO(chosen.to_yaml().encode()))
        archive.add(SET, io.BytesIO(_set_text(about).encode()))
        for name, ref in sorted(seen.blobs.items()):
            archive.add(name, io.BytesIO(store.blobs.read(ref)))
        for file in sorted(report.rglob("*")) if report else ():
            if file.is_file():
                with file.open("rb") as stream:
                    archive.add(f"report/{file.relative_to(report or file).as_posix()}", stream)
        manifest = seen.manifest(about, archive.files)
        archive.add(MANIFEST, io.BytesIO(_manifest_text(manifest).encode()))
    return manifest


def judged_by(
    store: ResultsStore, set_name: str, protocol: Protocol | None, potential: str | None = None
) -> tuple[str, Protocol]:
    """Id of the protocol that a set was judged by, and the protocol, under the name that the documents give it.

    Raises:
        BundleError: as for :func:`pack`.
    """
    wanted = ["protocol_id", "protocol_name", "potential"]
    found: dict[str, Protocol | None] = {}
    for protocol_id in store.distinct("protocol_id", {"set": set_name}):
        row = next(store.query({"set": set_name, "protocol_id": protocol_id}, wanted, limit=1))
        if potential is not None and row["potential"]["name"] != potential:
            continue
        known = [protocol] if protocol else list(PRESETS.values())
        matching = [each for each in known if each.id_with(row["potential"]["checkpoint_sha256"]) == protocol_id]
        if matching or not protocol:
            named = matching[0].model_copy(update={"name": row["protocol_name"]}) if matching else None
            found[protocol_id] = named
    if not found:
        how = " by this protocol" if protocol else ""
        how += f" with the potential {potential!r}" if potential else ""
        raise BundleError(f"there are no crystals of set {set_name!r} judged{how}")
    if len(found) > 1:
        ways = ", ".join(found)
        raise BundleError(f"set {set_name!r} was judged in several ways ({ways}): name the protocol or the potential")
    [(protocol_id, chosen)] = found.items()
    if chosen is None:
        raise BundleError(f"set {set_name!r} was judged by a protocol ({protocol_id}) that is no preset: give its file")
    return protocol_id, chosen


def _documents(store: ResultsStore, set_name: str, protocol_id: str) -> Iterator[CalculationDocument]:
    """The calculations of a set, each saying which relaxed crystal it is the same as."""
    mine = {"set": set_name, "protocol_id": protocol_id}
    same_as = compare_relaxed(store, mine)
    for document in store.documents(mine | COUNTED, sort={"id": 1}):
        document.same_as = same_as.get(document.key, document.same_as)
        yield document


_Pair = tuple[CalculationDocument, CrystalDocument]


def _with_crystals(documents: Iterator[CalculationDocument], store: ResultsStore) -> Iterator[_Pair]:
    for lot in batched(documents, _LOT):
        crystals = {crystal.id: crystal for crystal in store.crystals([document.id for document in lot])}
        for document in lot:
            if document.id not in crystals:
                raise BundleError(f"the store lacks the crystal {document.id}")
            if (name := _difference(document, crystals[document.id])) is not None:
                # It was read again since, for another protocol.
                raise BundleError(f"the crystal {document.id} has changed its {name!r} since {document.key} was made")
            yield document, crystals[document.id]


def _add_documents(archive: _Archive, pairs: Iterator[_Pair], seen: _Seen, folder: Path) -> None:
    """The files that hold every crystal, written in one go through the documents."""
    paths = {name: folder / name for name in (DOCUMENTS, CRYSTALS, RELAXED)}
    with (
        _gzipped(paths[DOCUMENTS]) as lines,
        _gzipped(paths[CRYSTALS]) as crystal_lines,
        _gzipped(paths[RELAXED]) as frames,
    ):
        for document, crystal in pairs:
            seen.add(document)
            lines.write(json_line(document))
            crystal_lines.write(json_line(crystal))
            if document.relaxed_structure is not None:
                write_extxyz(frames, [(document, stored_structure(document.relaxed_structure, document.id))])
    for name, path in paths.items():
        with path.open("rb") as stream:
            archive.add(name, stream)
        path.unlink()


@contextmanager
def _gzipped(path: Path) -> Iterator[TextIO]:
    """A text file that is compressed to the same bytes whenever and wherever that is done."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
    ):
        yield text


def _set_text(about: SetDocument) -> str:
    # When it was written says nothing of the set; the same content makes the same bytes.
    return about.model_dump_json(exclude={"updated_at"}, indent=1) + "\n"


def _manifest_text(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=1) + "\n"


class _Archive:
    """Writes members one after the other, and remembers their size and hash."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w")
        self.files: dict[str, Entry] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def add(self, name: str, stream: io.BufferedIOBase) -> None:
        """Add what a stream holds; it has to be seekable."""
        member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        member.create_system = 3  # the same on every platform
        member.external_attr = 0o644 << 16
        member.file_size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self.files[name] = Entry(size=member.file_size, sha256=digest)
        stream.seek(0)
        with self._zip.open(member, "w") as target:
            shutil.copyfileobj(stream, target, 1 << 20)


# -- verifying -------------------------------------------------------------------------------------------------


def verify(path: Path) -> Manifest:
    """Check every byte of a bundle, and that what it says holds together.

    That is: the archive is what :func:`pack` makes of these members; each has the manifest's size and hash; every
    document belongs to the set, to the protocol and to the potential, and has the verdict that its frequency has by the
    protocol; every crystal is there, is that of its document, and is numbers and symbols alone; every blob is there,
    and none beside; and generated = rejected + duplicate + known + failed + undecided + judged.

    Raises:
        BundleError: it is not so; the message names the file.
    """
    with _opened(path) as bundle:
        manifest = _checked_members(bundle)
        seen = _Seen(_protocol(bundle, manifest), manifest.force_constants)
        last = ""
        for document, crystal in _pairs(bundle):
            if document.id <= last:
                raise BundleError(f"{DOCUMENTS}: {document.id} is not in its place, or there twice")
            _check_document(document, manifest, seen.protocol)
            _check_crystal(document, crystal)
            _check_structures(document, crystal)
            seen.add(document)
            last = document.id
        _check_whole(bundle, manifest, seen)
        _check_archive(bundle, path)
    return manifest


def look_into(path: Path) -> None:
    """Make sure that a file is a bundle by the names of its members, which takes no time.

    Raises:
        BundleError: it is none.
    """
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A bundle whose members' names are safe, each once.

    Raises:
        BundleError: it is no such thing, or a damage shows while it is read.
    """
    if path.exists() and not path.is_file():  # a pipe or device may have no end
        raise BundleError(f"{path.name} is no bundle: it is not a regular file")
    try:
        bundle = zipfile.ZipFile(path)
    except (OSError, *_DAMAGE) as error:
        raise BundleError(f"{path.name} is no bundle: {error}") from error
    with bundle:
        names = bundle.namelist()
        for name in names:
            if name not in _REQUIRED and not _OTHERS.fullmatch(name):
                raise BundleError(f"{path.name}: {name!r} has no place in a bundle")
        if len(set(names)) < len(names):
            raise BundleError(f"{path.name}: a member is there twice")
        for name in _REQUIRED:
            if name not in names:
                raise BundleError(f"{path.name}: {name} is missing")
        yield bundle


def _read(bundle: zipfile.ZipFile, name: str) -> bytes:
    try:
        return bundle.read(name)
    except _DAMAGE as error:
        raise BundleError(f"{name} is damaged: {error}") from error


def _checked_members(bundle: zipfile.ZipFile) -> Manifest:
    """The manifest, once every member is known to be what it says."""
    try:
        manifest = Manifest.model_validate_json(_read(bundle, MANIFEST))
    except ValidationError as error:
        raise BundleError(f"{MANIFEST} is no manifest: {error}") from error
    if manifest.format != FORMAT:
        raise BundleError(f"{MANIFEST} has format {manifest.format}; this program knows {FORMAT}")
    names = [*manifest.files, MANIFEST]
    if missing := sorted(set(names) ^ set(bundle.namelist())):
        raise BundleError(f"{missing[0]} is in the manifest or in the archive, but not in both")
    for name, entry in manifest.files.items():
        data = _read(bundle, name)
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(f"{name} is not the file that was packed: its bytes have another sha256")
        if name.startswith("blobs/") and name != _blob_name(BlobRef(sha256=entry.sha256, size=entry.size)):
            raise BundleError(f"{name} is not named by its sha256")
    return manifest


def _protocol(bundle: zipfile.ZipFile, manifest: Manifest) -> Protocol:
    try:
        protocol = Protocol.model_validate(yaml.safe_load(_read(bundle, PROTOCOL)))
    except (yaml.YAMLError, ValidationError) as error:
        raise BundleError(f"{PROTOCOL} is no protocol: {error}") from error
    if protocol.hash != manifest.protocol_hash or protocol.id_with(manifest.checkpoint_sha256) != manifest.protocol_id:
        raise BundleError(f"{PROTOCOL} with the potential's checkpoint is not the protocol {manifest.protocol_id}")
    return protocol


def _pairs(bundle: zipfile.ZipFile) -> Iterator[_Pair]:
    """The documents and their crystals, read one at a time."""
    documents = _lines(bundle, DOCUMENTS, CalculationDocument)
    crystals = _lines(bundle, CRYSTALS, CrystalDocument)
    try:
        yield from zip(documents, crystals, strict=True)
    except ValueError as error:
        raise BundleError(f"{CRYSTALS} does not hold one crystal for each of {DOCUMENTS}") from error


def _lines[Model: BaseModel](bundle: zipfile.ZipFile, name: str, model: type[Model]) -> Iterator[Model]:
    with bundle.open(name) as raw, gzip.GzipFile(fileobj=raw) as lines:
        number = 0
        while line := _line(lines, name):
            number += 1
            try:
                document = model.model_validate_json(line)
            except ValidationError as error:
                raise BundleError(f"{name}, line {number}, is no {model.__name__}: {error}") from error
            yield document


def _line(lines: gzip.GzipFile, name: str) -> bytes:
    try:
        line = lines.readline(_MAX_LINE)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{name} is damaged: {error}") from error
    if len(line) == _MAX_LINE:
        raise BundleError(f"{name} holds a line that is too long for a document")
    return line


def _check_crystal(document: CalculationDocument, crystal: CrystalDocument) -> None:
    """Whether the crystal is that of the calculation."""
    if (name := _difference(document, crystal)) is not None:
        raise BundleError(f"{CRYSTALS}: {crystal.id} and {DOCUMENTS}: {document.id} differ in {name!r}")


def _check_structures(document: CalculationDocument, crystal: CrystalDocument) -> None:
    """Whether both crystals are numbers and symbols, and nothing else."""
    for name, plain in ((CRYSTALS, crystal.structure), (DOCUMENTS, document.relaxed_structure)):
        try:
            if plain is not None:
                stored_structure(plain, document.id)
        except StoredStructureError as error:
            raise BundleError(f"{name}: {error}") from error


def _difference(document: CalculationDocument, crystal: CrystalDocument) -> str | None:
    """A field in which both of them say something of the crystal, and not the same; None if there is none."""
    shared = sorted(set(CrystalDocument.model_fields) & set(CalculationDocument.model_fields) - _TIMES)
    return next((name for name in shared if getattr(document, name) != getattr(crystal, name)), None)


def _check_document(document: CalculationDocument, manifest: Manifest, protocol: Protocol) -> None:
    here = f"{DOCUMENTS}: {document.id}"
    if document.set != manifest.set:
        raise BundleError(f"{here} is of set {document.set!r}")
    expected = protocol.id_with(document.potential.checkpoint_sha256)
    if document.protocol_id != expected or document.protocol_id != manifest.protocol_id:
        raise BundleError(f"{here} names protocol {document.protocol_id}; its protocol and potential are {expected}")
    # Compared as names: what a bundle names is not imported.
    if sorted(document.steps) != sorted([*protocol.further_steps, *ALWAYS]):
        raise BundleError(f"{here} names other steps than its protocol")
    if document.key != calculation_key(document.id, document.protocol_id):
        raise BundleError(f"{here} has the key {document.key!r}")
    if document.status in _ASSESSED and not _follows(document, protocol):
        raise BundleError(f"{here} has a verdict that does not follow from its evidence")


def _follows(document: CalculationDocument, protocol: Protocol) -> bool:
    """Whether the assessments of a crystal are those that its evidence gives under the protocol."""
    try:
        expected = assess(document.evidence, protocol.judgement)
    except ValueError:  # a frequency that is no number
        return False
    agrees = document.assessments == expected and document.minimum == thresholded(document.evidence, protocol.judgement)
    return agrees and str(document.status) == expected[0].stability


def _check_whole(bundle: zipfile.ZipFile, manifest: Manifest, seen: _Seen) -> None:
    """The manifest is what the documents say, no more and no less."""
    try:
        about = SetDocument.model_validate_json(_read(bundle, SET))
    except ValidationError as error:
        raise BundleError(f"{SET} does not describe a set: {error}") from error
    blobs = {name for name in manifest.files if name.startswith("blobs/")}
    if missing := sorted(blobs ^ set(seen.blobs)):
        raise BundleError(f"{missing[0]} is in the documents or in the archive, but not in both")
    expected = seen.manifest(about, manifest.files)
    for name in Manifest.model_fields:
        if getattr(expected, name) != getattr(manifest, name):
            raise BundleError(f"{MANIFEST}: '{name}' is not what the documents say")
    if not Funnel(**manifest.counts).adds_up:
        raise BundleError(f"{MANIFEST}: the counts do not add up")


def _check_archive(bundle: zipfile.ZipFile, path: Path) -> None:
    """No byte outside the members differs from what packing them gives."""
    with tempfile.TemporaryDirectory(prefix="phononbench-verify-") as folder:
        again = Path(folder) / "bundle"
        with _Archive(again) as archive:
            for name in bundle.namelist():
                archive.add(name, io.BytesIO(_read(bundle, name)))
        with again.open("rb") as first, path.open("rb") as second:
            same = hashlib.file_digest(first, "sha256").digest() == hashlib.file_digest(second, "sha256").digest()
    if not same:
        raise BundleError(f"{path.name}: bytes between the files are not those that packing them gives")


# -- unpacking -------------------------------------------------------------------------------------------------


def unpack(path: Path, store: ResultsStore) -> Manifest:
    """Check a bundle, and put its documents, arrays and metadata into a store. Done twice, it changes nothing.

    Raises:
        BundleError: the bundle fails :func:`verify`, or the store knows one of its crystals or the set otherwise;
            nothing has been written then.
        StoreError: the store refuses.
    """
    manifest = verify(path)
    with _opened(path) as bundle:
        about = SetDocument.model_validate_json(_read(bundle, SET))
        there = store.get_set(about.set)
        if there is not None and _set_text(there) != _set_text(about):
            raise BundleError(f"the store describes set {about.set!r} otherwise")
        missing: set[str] = set()
        for lot in batched(_pairs(bundle), _LOT):
            missing |= _missing(lot, store)
        for name in manifest.files:
            if name.startswith("blobs/"):
                store.blobs.put_bytes(_read(bundle, name))
        for lot in batched((pair for pair in _pairs(bundle) if pair[0].key in missing), _LOT):
            store.put_crystals(*(crystal for _, crystal in lot))
            store.put(*(document for document, _ in lot))
        if there is None:
            store.put_set(about)
    return manifest


def _missing(pairs: Sequence[_Pair], store: ResultsStore) -> set[str]:
    """Keys of the documents that the store does not have."""
    there = {found.key: found for found in store.documents({"key": {"$in": [document.key for document, _ in pairs]}})}
    crystals = {found.key: found for found in store.crystals([crystal.id for _, crystal in pairs])}
    for document, crystal in pairs:
        _refuse_other(document, there.get(document.key))
        _refuse_other(crystal, crystals.get(crystal.key))
    return {document.key for document, _ in pairs} - set(there)


def _refuse_other(packed: CalculationDocument | CrystalDocument, found: Any) -> None:
    # The store says itself when it was written.
    if found is not None and found.model_copy(update={"updated_at": packed.updated_at}) != packed:
        raise BundleError(f"the store has {packed.key} already, and it is another document")
