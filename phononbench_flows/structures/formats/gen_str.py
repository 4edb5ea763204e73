"""The text of language models, as CrystalTextLLM writes it: lengths, angles, and for each atom its element and place.

Lengths are in Å, angles in degrees, places fractional::

    4.1 4.1 4.1
    90 90 90
    Cs
    0.00 0.00 0.00
    Cl
    0.50 0.50 0.50

The prompt may stand before it, as the model's decoder gives it; it ends with a colon.
"""

from __future__ import annotations

import re

from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.dictionaries import structure_of
from phononbench_flows.structures.formats.numbers import is_number, number
from phononbench_flows.structures.raw import RejectedError

_CHARGED = re.compile(r"([A-Z][a-z]?)[\d.]*[+-]")


def parse_gen_str(text: str) -> Structure:
    """The crystal in such a text.

    Raises:
        RejectedError: it does not determine one.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    prompt = next((place for place, line in enumerate(lines, 1) if line.endswith(":")), 0)
    cell, atoms = lines[prompt : prompt + 2], lines[prompt + 2 :]
    if not atoms or len(atoms) % 2:
        raise RejectedError(Reason.UNPARSABLE, "The text breaks off: an atom has an element and three coordinates.")
    return structure_of(
        {
            "lengths": _vector(cell[0]),
            "angles": _vector(cell[1]),
            "species": [_symbol(line) for line in atoms[::2]],
            "frac_coords": [_vector(line) for line in atoms[1::2]],
        }
    )


def _vector(line: str) -> list[float]:
    words = line.split()
    if len(words) != 3:
        raise RejectedError(Reason.UNPARSABLE, f"{line!r} should be three numbers.")
    return [number(word) for word in words]


def _symbol(line: str) -> str:
    if is_number(line.split(maxsplit=1)[0]):
        raise RejectedError(Reason.UNPARSABLE, f"{line!r} should be an element.")
    charged = _CHARGED.fullmatch(line)
    return charged[1] if charged else line
