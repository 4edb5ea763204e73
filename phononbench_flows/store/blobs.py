"""Arrays that belong to documents, kept under the hash of their bytes."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from phononbench_flows.documents import BlobRef
from phononbench_flows.files import replacing, sync_folder
from phononbench_flows.store.collection import StoreError


class BlobError(StoreError):
    """A blob that is missing or damaged, or arrays that cannot be kept as one."""


def reference(data: bytes) -> BlobRef:
    """The reference of packed arrays."""
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of a compressed npz file; equal arrays of equal types give equal bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in sorted(arrays):
            if not name.isidentifier():
                raise BlobError(f"'{name}' is no name for an array.")
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3  # the same on every platform
            member.external_attr = 0o644 << 16
            data = io.BytesIO()
            try:
                np.save(data, np.asarray(arrays[name], order="C"), allow_pickle=False)
            except ValueError as error:
                raise BlobError(f"Array '{name}' cannot be stored: {error}.") from error
            bundle.writestr(member, data.getvalue())
    return target.getvalue()


class Blobs(ABC):
    """Bundles of arrays as compressed npz files that are named by the sha256 of their bytes.

    The same arrays make the same bytes, so storing them twice is harmless, whoever does it and however often.
    """

    lot_bytes = 0
    """Blobs of so many bytes are read together, beside the one that is asked for."""

    def put(self, arrays: Mapping[str, np.ndarray]) -> BlobRef:
        """Store arrays; they last when it returns.

        Args:
            arrays: arrays by name; the names are identifiers, the types numbers, booleans or text.

        Raises:
            BlobError: if an array has no plain type, or if the disk refuses it.
            StoreError: if the server does.
        """
        return self.put_bytes(packed(arrays))

    def put_bytes(self, data: bytes) -> BlobRef:
        """Store what :meth:`read` gave; as :meth:`put`."""
        ref = reference(data)
        self.put_all({ref.sha256: data})
        return ref

    def put_all(self, blobs: Mapping[str, bytes]) -> None:
        """Store packed arrays by the sha256 of their bytes; as :meth:`put`, with as few round trips as for one."""
        self._write(blobs)

    def get(self, ref: BlobRef) -> dict[str, np.ndarray]:
        """The arrays of a reference; raises as :meth:`read`."""
        return self.get_many([ref])(ref)

    def get_many(self, refs: Sequence[BlobRef]) -> Callable[[BlobRef], dict[str, np.ndarray]]:
        """Gives the arrays of one of these references; the next few are read together with it.

        What it gives raises as :meth:`read`.
        """
        read: dict[str, bytes] = {}

        def one(ref: BlobRef) -> dict[str, np.ndarray]:
            if ref.sha256 not in read:
                read.clear()
                read.update(self._read(self._lot(refs, ref)))
            with np.load(io.BytesIO(self._checked(ref, read.pop(ref.sha256, None))), allow_pickle=False) as bundle:
                return {name: bundle[name] for name in bundle.files}

        return one

    def _lot(self, refs: Sequence[BlobRef], first: BlobRef) -> list[BlobRef]:
        """The references from this one on that are read at once."""
        place = next((place for place, ref in enumerate(refs) if ref.sha256 == first.sha256), len(refs))
        sizes = accumulate(ref.size for ref in refs[place + 1 :])
        return [first, *(ref for ref, size in zip(refs[place + 1 :], sizes, strict=True) if size < self.lot_bytes)]

    def read(self, ref: BlobRef) -> bytes:
        """The bytes of a reference.

        Raises:
            BlobError: if they are missing or are not what was stored.
            StoreError: if the server cannot be asked.
        """
        return self._checked(ref, self._read([ref]).get(ref.sha256))

    def _checked(self, ref: BlobRef, data: bytes | None) -> bytes:
        if data is None:
            raise BlobError(f"{self._place(ref)} is missing.")
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise BlobError(
                f"{self._place(ref)} is damaged: its bytes ({len(data)}, stored were {ref.size}) have another sha256."
            )
        return data

    @abstractmethod
    def create_indexes(self) -> None:
        """Make the indices that are not there yet."""

    @abstractmethod
    def missing_indexes(self) -> list[str]:
        """The indices that are not there, by their fields."""

    @abstractmethod
    def _read(self, refs: Sequence[BlobRef]) -> dict[str, bytes]:
        """The bytes that lie under references, right or wrong, by their sha256; those that are there."""

    @abstractmethod
    def _write(self, blobs: Mapping[str, bytes]) -> None:
        """Put bytes under their sha256, in place of anything else that is there; they last when it returns."""

    @abstractmethod
    def _place(self, ref: BlobRef) -> str:
        """Where a reference leads to, for messages."""


class BlobStore(Blobs):
    """Blobs as files of a directory, on any file system that is there when they are asked for."""

    def __init__(self, root: str | Path) -> None:
        """Nothing is touched yet.

        Args:
            root: directory of the files, made when the first blob is stored.
        """
        self.root = Path(root)

    def path(self, ref: BlobRef) -> Path:
        """The file of a reference."""
        # A reference may come from a document that somebody else wrote: it must not lead out of the directory.
        if not re.fullmatch(r"[0-9a-f]{64}", ref.sha256):
            raise BlobError(f"'{ref.sha256}' is no sha256.")
        return self.root / ref.sha256[:2] / f"{ref.sha256}.npz"

    def create_indexes(self) -> None:
        """Nothing: files are found by their names."""

    def missing_indexes(self) -> list[str]:
        """Always empty: files are found by their names."""
        return []

    def _read(self, refs: Sequence[BlobRef]) -> dict[str, bytes]:
        found = ((ref.sha256, self._read_file(self.path(ref))) for ref in refs)
        return {name: data for name, data in found if data is not None}

    def _read_file(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BlobError(f"{path} cannot be read: {error}.") from error

    def _write(self, blobs: Mapping[str, bytes]) -> None:
        for name, data in blobs.items():
            path = self.path(BlobRef(sha256=name, size=len(data)))
            # What is there is read, not trusted: if it got damaged, it is written anew.
            if self._read_file(path) != data:
                self._write_file(path, data)

    def _write_file(self, path: Path, data: bytes) -> None:
        try:
            self._make_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise BlobError(f"{path} cannot be written: {error}.") from error

    def _place(self, ref: BlobRef) -> str:
        return str(self.path(ref))

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self.root)
