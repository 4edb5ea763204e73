"""Labels: names of crystals that are safe in ids. Two names never have one label, whatever else is read with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace

from phononbench_flows.structures.raw import RawCrystal

MAX_LABEL = 80

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# A name that looks as if a label had been made of it may meet that label.
_MADE = re.compile(r"--|\.\.|-[0-9a-f]{8}$")


def label_of(name: str) -> str:
    """The name as part of an id: without ``.cif``, with ``--`` for each ``/``.

    All other endings stay, so that ``x.cif`` and ``x.vasp`` are two. A name that holds more than letters, digits,
    ``.``, ``_`` and ``-``, or is too long, is changed and gets a digest of itself.
    """
    stem = name[:-4] if name.lower().endswith(".cif") else name
    label = stem.replace("/", "--")
    if _PLAIN.fullmatch(label) and len(label) <= MAX_LABEL and not _MADE.search(stem):
        return label
    changed = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]", "_", label))
    return _with_suffix(re.sub(r"^[^A-Za-z0-9]+", "", changed) or "crystal", _digest(name))


def with_unique_labels(raws: Iterator[RawCrystal]) -> Iterator[RawCrystal]:
    """Tell those apart that have the same name in several inputs, or in several rows: the first keeps its label."""
    seen: set[str] = set()
    for raw in raws:
        label, tries = raw.label, 0
        while label in seen:
            digest = _digest(raw.source)
            label = _with_suffix(raw.label, f"{digest}-{tries}" if tries else digest)
            tries += 1
        seen.add(label)
        yield replace(raw, label=label)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def _with_suffix(label: str, suffix: str) -> str:
    return f"{label[: MAX_LABEL - 1 - len(suffix)]}-{suffix}"
