"""Arrays that belong to documents, kept under the hash of their bytes."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from phononbench_flows.documents import BlobRef
from phononbench_flows.files import replacing, sync_folder
from phononbench_flows.store.collection import StoreError


class BlobError(StoreError):
    """A blob that is missing or damaged, or arrays that cannot be kept as one."""


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
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

    def put(self, arrays: Mapping[str, np.ndarray]) -> BlobRef:
        """Store arrays; they last when it returns.

        Args:
            arrays: arrays by name; the names are identifiers, the types numbers, booleans or text.

        Raises:
            BlobError: if an array has no plain type, or if the disk refuses it.
            StoreError: if the server does.
        """
        return self.put_bytes(_pack(arrays))

    def put_bytes(self, data: bytes) -> BlobRef:
        """Store what :meth:`read` gave; as :meth:`put`."""
        ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        # What is there is read, not trusted: if it got damaged, it is written anew.
        if self._read(ref) != data:
            self._write(ref, data)
        return ref

    def get(self, ref: BlobRef) -> dict[str, np.ndarray]:
        """The arrays of a reference; raises as :meth:`read`."""
        with np.load(io.BytesIO(self.read(ref)), allow_pickle=False) as bundle:
            return {name: bundle[name] for name in bundle.files}

    def read(self, ref: BlobRef) -> bytes:
        """The bytes of a reference.

        Raises:
            BlobError: if they are missing or are not what was stored.
            StoreError: if the server cannot be asked.
        """
        data = self._read(ref)
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
    def _read(self, ref: BlobRef) -> bytes | None:
        """The bytes that lie under a reference, right or wrong; None if there are none."""

    @abstractmethod
    def _write(self, ref: BlobRef, data: bytes) -> None:
        """Put bytes under a reference, in place of what is there; they last when it returns."""

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

    def _read(self, ref: BlobRef) -> bytes | None:
        path = self.path(ref)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BlobError(f"{path} cannot be read: {error}.") from error

    def _write(self, ref: BlobRef, data: bytes) -> None:
        path = self.path(ref)
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
