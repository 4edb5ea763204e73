"""The weights of a potential: whether they are here, which they are, and fetching them."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from phononbench_flows.files import replacing
from phononbench_flows.potentials import registry
from phononbench_flows.potentials.settings import checked
from phononbench_flows.potentials.source import PotentialError, Source, is_installed

if TYPE_CHECKING:
    from phononbench_flows.documents import PotentialRecord

_DOWNLOAD_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Checkpoint:
    """A potential identified but not loaded."""

    name: str
    source: Source
    path: Path | None
    sha256: str

    def elements(self) -> frozenset[str] | None:
        """Symbols of the elements that it takes, None for any; to ask some checkpoints takes seconds."""
        return self.source.elements(self.path)

    def record(self, settings: Mapping[str, Any] | None = None) -> PotentialRecord:
        """What a document says of the potential before it has computed.

        Raises:
            PotentialError: it has no such settings.
        """
        from phononbench_flows.documents import PotentialRecord

        return PotentialRecord(
            name=self.name, checkpoint_sha256=self.sha256, settings=checked(self.name, self.source, settings)
        )


def identify(name: str) -> Checkpoint:
    """Find a potential's checkpoint and hash it, without loading it.

    Raises:
        PotentialError: unknown, not installed, its weights are not here, or they are not the published ones.
    """
    source = registry.find_source(name)
    require_package(name, source)
    settings = source.settings.encode()
    if source.checkpoint is None:
        return Checkpoint(name, source, None, hashlib.sha256(settings).hexdigest())
    path = require_weights(name, source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PotentialError(f"the weights of {name} cannot be read: {error}") from error
    if source.download and _git_blob(data) != source.download.git_blob:
        raise PotentialError(
            f"{path} is not the published checkpoint of {name} (damaged or half downloaded?): "
            f"delete it and run `phononbench potentials fetch {name}`"
        )
    return Checkpoint(name, source, path, hashlib.sha256(data + settings).hexdigest())


def require_weights(name: str, source: Source) -> Path:
    """Path of the weights of a potential that has some.

    Raises:
        PotentialError: there is no regular file; a pipe or device may have no end.
    """
    path = source.checkpoint() if source.checkpoint else Path()
    if path.is_file():
        return path
    if path.exists():
        raise PotentialError(f"the weights of {name} cannot be {path}: it is not a regular file")
    how = (
        f"on a machine with network run `phononbench potentials fetch {name}`, or copy the file there"
        if source.download
        else source.obtain
    )
    raise PotentialError(f"the weights of {name} are not at {path}: {how}")


def require_package(name: str, source: Source) -> None:
    """Make sure that the package of a potential is installed, without importing it.

    Raises:
        PotentialError: it is not; the message has the command that installs it.
    """
    if source.package and not is_installed(source.package):
        raise PotentialError(
            f"{name} needs the package {source.package}, which is not installed: "
            f"`pip install 'phononbench-flows[{source.extra}]'`, or `uv sync --extra {source.extra}` in a checkout"
        )


def _git_blob(data: bytes) -> str:
    """Object id that git gives to a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def readiness(name: str) -> str:
    """``ready``, or the sentence that says what is missing."""
    try:
        identify(name)
    except PotentialError as error:
        return str(error)
    return "ready"


def fetch(name: str) -> Path:
    """Download a potential's weights to where they belong; the file appears there whole and checked, or not at all.

    Raises:
        PotentialError: nothing to download, no network, or the bytes are not the published ones.
    """
    source = registry.find_source(name)
    if source.download is None or source.checkpoint is None:
        instead = f": {source.obtain}" if source.checkpoint else ""
        raise PotentialError(f"{name} has nothing to download{instead}")
    path = source.checkpoint()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(source.download.url, timeout=_DOWNLOAD_TIMEOUT_S) as response:  # noqa: S310 (a constant of ours)
            data = response.read()
    except (URLError, OSError) as error:
        raise PotentialError(f"{source.download.url} cannot be downloaded: {error}") from error
    if _git_blob(data) != source.download.git_blob:
        raise PotentialError(f"{source.download.url} did not send the published checkpoint; nothing was written")
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path
