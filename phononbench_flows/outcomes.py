"""What can become of a crystal: what became of it, how far it came, and why.

Kept apart from the documents: parsers start often, and need nothing else of them.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What became of a crystal. Only ``pending`` is not final.

    ``gone`` is one whose file is no longer there or has another content now: it is told, and counts no more.
    """

    PENDING = "pending"
    STABLE = "stable"
    UNSTABLE = "unstable"
    UNDECIDED = "undecided"
    FAILED = "failed"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    KNOWN = "known"
    GONE = "gone"


COMPUTED = (Status.STABLE, Status.UNSTABLE, Status.UNDECIDED, Status.FAILED)
"""Those of crystals that were computed, to whatever end."""

COUNTED = {"status": {"$ne": Status.GONE.value}}
"""MongoDB filter of the crystals that count: all but those that are gone."""

READ, SCREENED = "read", "screened"
"""How far a crystal came before its first step; after that its stage is the name of the last step it completed."""


def is_unsettled(status: str, stage: str) -> bool:
    """Whether a crystal was read, and it is still open if it repeats another one."""
    return status == Status.PENDING and stage == READ


class Reason(StrEnum):
    """Why a crystal was rejected or failed. The document's ``detail`` says it in a sentence."""

    # rejected while reading
    UNREADABLE_FILE = "unreadable_file"
    UNSUPPORTED_FILE = "unsupported_file"
    UNSAFE_ARCHIVE_MEMBER = "unsafe_archive_member"
    FILE_TOO_LARGE = "file_too_large"
    UNPARSABLE = "unparsable"
    PARSER_TIMEOUT = "parser_timeout"
    PARSER_CRASH = "parser_crash"
    AMBIGUOUS = "ambiguous"
    CONTRADICTORY = "contradictory"
    # rejected by screening
    DISORDERED = "disordered"
    BAD_NUMBERS = "bad_numbers"
    BAD_CELL = "bad_cell"
    ATOMS_TOO_CLOSE = "atoms_too_close"
    UNSUPPORTED_ELEMENT = "unsupported_element"
    TOO_MANY_ATOMS = "too_many_atoms"
    VOLUME_OUT_OF_RANGE = "volume_out_of_range"
    # failed while computing
    NOT_CONVERGED = "not_converged"
    FORCES_EXPLODED = "forces_exploded"
    NOT_FINITE = "not_finite"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED_WORKER = "killed_worker"
    INPUT_CHANGED = "input_changed"
    EXCEPTION = "exception"
