"""What a parser gives: a crystal with notes of how it was understood."""

from __future__ import annotations

from dataclasses import dataclass

from pymatgen.core.structure import Structure


@dataclass(frozen=True)
class Parsed:
    """A crystal, and a sentence for each thing in its file that did not stand there as it was taken."""

    structure: Structure
    notes: tuple[str, ...] = ()
