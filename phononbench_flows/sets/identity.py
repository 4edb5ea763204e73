"""By what a crystal is known again: its id, and the hash of what was read."""

from __future__ import annotations

import hashlib

from phononbench_flows.structures import RawCrystal


def crystal_id(label: str, set_name: str) -> str:
    """Id of the crystal of that label in a set."""
    return f"{set_name}-{label}"


def source_sha256(raw: RawCrystal) -> str | None:
    """Hash of a crystal's source; None if there was nothing to read."""
    return hashlib.sha256(raw.data).hexdigest() if raw.data else None


def storable(text: str) -> str:
    """Text that every store takes: lone surrogates become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
