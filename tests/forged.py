"""Bundles as a forger would make them: other members, and a manifest that agrees with them."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from phononbench_flows.results.bundle import DOCUMENTS, MANIFEST


def rewritten(path: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of a bundle with other members, and a manifest that agrees with them, as a forger would make it."""
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    manifest = json.loads(members.pop(MANIFEST))
    change(members)
    manifest["files"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
    }
    with zipfile.ZipFile(out, "w") as bundle:
        for name, data in (members | {MANIFEST: json.dumps(manifest).encode()}).items():
            bundle.writestr(name, data)
    return out


def documents_of(members: dict[str, bytes], name: str = DOCUMENTS) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(members[name]).splitlines()]


def with_documents(members: dict[str, bytes], documents: list[dict], name: str = DOCUMENTS) -> None:
    members[name] = gzip.compress("".join(json.dumps(each) + "\n" for each in documents).encode())
