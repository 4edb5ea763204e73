"""Records: rows of tables and dictionaries in which one value is a crystal. Which value it is must be clear."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Found
from phononbench_flows.structures.formats.dictionaries import TWICE, is_crystal
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, Rejection

_ID_COLUMNS = ("id", "material_id", "name", "identifier", "structure_id", "task_id", "jid")
# Where a table has several, the first of these is meant: what was made in the end goes before what it was made from.
_CRYSTAL_COLUMNS = (
    "cif",
    "structure",
    "poscar",
    "relaxed_cif",
    "relaxed_structure",
    "final_cif",
    "final_structure",
    "generated_cif",
    "generated_structure",
    "gen_cif",
    "gen_structure",
    "gen_str",
    "cif_string",
    "cif_str",
    "structure_dict",
    "atoms",
    "crystal",
)
_CIF = re.compile(r"^[ \t]*(data_|loop_|_cell[_.]|_atom_|_symmetry_)", re.MULTILINE | re.IGNORECASE)


def crystal_column(names: Sequence[str], first: Sequence[Any]) -> int | None:
    """Place of the column that holds crystals, by its name, or else by the first row; None if there is none.

    Raises:
        NoCrystalsError: several may be meant.
    """
    lower = [str(name).strip().lower() for name in names]
    for wanted in _CRYSTAL_COLUMNS:
        if lower.count(wanted) > 1:
            raise NoCrystalsError(f"It has several columns {wanted}: it is not clear which one holds the crystals.")
        if wanted in lower:
            return lower.index(wanted)
    found = [place for place, value in enumerate(first) if looks_like_crystal(value)]
    if len(found) > 1:
        several = ", ".join(str(names[place]) for place in found if place < len(names))
        raise NoCrystalsError(f"It is not clear which of its columns holds the crystals ({several}): name one `cif`.")
    return found[0] if found else None


def id_column(names: Sequence[str]) -> int | None:
    """Place of the column that holds names of crystals."""
    lower = [str(name).strip().lower() for name in names]
    return next((lower.index(wanted) for wanted in _ID_COLUMNS if wanted in lower), None)


def looks_like_crystal(value: Any) -> bool:
    """Whether a value is a crystal's dictionary or text, as far as can be told without parsing it."""
    if isinstance(value, str):
        text = unescaped(value)
        if text.startswith("{"):
            return bool(re.search(r"['\"](sites|positions|lattice_vectors|lattice_mat|frac_coords)['\"]", text))
        found = format_of_text(text)
        return bool(found) and (found != "cif" or "_cell" in text.lower())
    return is_crystal(value)


def unescaped(cell: str) -> str:
    r"""The text of a cell: line ends written as the two characters ``\n`` are line ends."""
    text = cell.strip(" \t\r\n")
    if "\n" not in text and "\\n" in text and not text.startswith("{"):
        if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
            text = text[1:-1]
        text = text.replace("\\r", "").replace("\\n", "\n").replace("\\t", "\t").replace("\\'", "'").replace('\\"', '"')
        return text.rstrip(" \t\r\n")
    return text


_NUMBERS = r"[ \t]*[-+.\d][-+.\deEdD]*[ \t]+[-+.\d][-+.\deEdD]*[ \t]+[-+.\d]"
_POSCAR = re.compile(rf"\A[^\n]*\n[ \t]*[-+.\d][^\n]*\n{_NUMBERS}[^\n]*\n{_NUMBERS}[^\n]*\n{_NUMBERS}")


_FRAME = re.compile(r"\A\d+[ \t]*\n[^\n]*lattice\s*=", re.IGNORECASE)
# Lengths and angles, at the beginning or after a prompt, and a line that is no vector as it would be in a POSCAR.
_GEN_STR = re.compile(rf"(?:\A|:[ \t]*\n)\s*{_NUMBERS}[^\n]*\n{_NUMBERS}[^\n]*(?:\n[ \t]*[^\s\d.+-]|\s*\Z)")


def format_of_text(text: str) -> str:
    """Raw format of a crystal's text; nothing if it looks like none."""
    if text.startswith("{"):
        return "json" if re.match(r'\{\s*("|\})', text) else "python"
    if _POSCAR.match(text):
        return "poscar"
    if _FRAME.match(text):
        return "extxyz"
    if _CIF.search(text):
        return "cif"
    return "gen_str" if _GEN_STR.search(text) else ""


def raw_crystal(found: Found, key: int | str, value: Any, name: str = "") -> RawCrystal:
    """The crystal in a value of a record, or why there is none."""
    if isinstance(value, str):
        text = unescaped(value)
        if not text:
            return found.bad_part(key, Rejection(Reason.UNPARSABLE, "It has no structure."), name=name)
        # What looks like nothing is left to the parser of POSCARs, which says what is missing.
        return found.part(key, format_of_text(text) or "poscar", text.encode("utf-8", "replace"), name)
    if is_crystal(value):
        return found.part(key, "json", json.dumps(value).encode(), name)
    detail = "It has no structure." if value is None else "It is no crystal that is known here."
    return found.bad_part(key, Rejection(Reason.UNPARSABLE, detail), name=name)


def value_of(record: Mapping[str, Any]) -> Any:
    """The crystal in a dictionary with further keys, or None."""
    names, values = list(record), list(record.values())
    place = crystal_column(names, values)
    return None if place is None else values[place]


def name_of(record: Mapping[str, Any]) -> str:
    """The name of a record's crystal, if it says one."""
    place = id_column(list(record))
    value = None if place is None else list(record.values())[place]
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def raw_of_record(found: Found, key: int | str, record: Any, name: str = "") -> RawCrystal:
    """The crystal in a record, which may be the crystal itself."""
    if isinstance(record, Mapping) and not is_crystal(record):
        if TWICE in record:
            detail = f"The key {record[TWICE]!r} is given more than once."
            return found.bad_part(key, Rejection(Reason.CONTRADICTORY, detail), name=name)
        try:
            value = value_of(record)
        except NoCrystalsError as error:
            return found.bad_part(key, Rejection(Reason.AMBIGUOUS, str(error)), name=name)
        return raw_crystal(found, key, value, name or name_of(record))
    if isinstance(record, str) and not looks_like_crystal(record):
        return found.bad_part(key, Rejection(Reason.UNPARSABLE, "It is no crystal that is known here."), name=name)
    named = name or (name_of(record) if isinstance(record, Mapping) else "")
    return raw_crystal(found, key, record, named)


def is_record(value: Any) -> bool:
    """Whether a value is a dictionary that has a crystal under a key whose name says so."""
    if not isinstance(value, Mapping):
        return False
    place = crystal_column(list(value), [])
    return place is not None and looks_like_crystal(list(value.values())[place])


def holds_crystal(value: Any) -> bool:
    """Whether a value is a crystal, or a record with one."""
    return looks_like_crystal(value) or is_record(value)
