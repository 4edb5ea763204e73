"""What a parser gives: a crystal with notes of how it was understood, or an exception that carries why not."""

from __future__ import annotations

from dataclasses import dataclass

from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.readers import Rejection


@dataclass(frozen=True)
class Parsed:
    """A crystal, and a sentence for each thing in its file that did not stand there as it was taken."""

    structure: Structure
    notes: tuple[str, ...] = ()


class RejectedError(Exception):
    """Carries a rejection out of a parser."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)
