"""phonopy's yaml files: the unit cell in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Format, Found, whole_file
from phononbench_flows.structures.formats.numbers import element
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError
from phononbench_flows.structures.text import as_text

_HEAD = 100_000
_IS_PHONOPY = re.compile(r"^(phonopy|unit_cell|primitive_cell):", re.MULTILINE)


def read_phonopy(found: Found) -> Iterator[RawCrystal]:
    """The crystal in a file. What is no output of phonopy, such as the metadata of a set, holds none."""
    named = found.name.rsplit("/", 1)[-1].lower().startswith("phonopy") or found.is_packed
    if not named and not _IS_PHONOPY.search(as_text(found.head(_HEAD))):
        raise NoCrystalsError("It is no yaml of phonopy.")
    yield from whole_file("phonopy")(found)


def parse_phonopy(text: str) -> Structure:
    """The unit cell in a phonopy yaml.

    Raises:
        RejectedError: there is none that can be used.
    """
    if len(re.findall(r"^unit_cell:", text, re.MULTILINE)) > 1:
        raise RejectedError(Reason.AMBIGUOUS, "The file gives unit_cell more than once.")
    content = plain_content(text)
    if not isinstance(content, dict):
        raise RejectedError(Reason.UNPARSABLE, "The file holds no keys and values.")
    cell = content.get("unit_cell")
    if not isinstance(cell, dict):
        raise RejectedError(Reason.UNPARSABLE, "The file has no unit_cell.")
    unit = (content.get("physical_unit") or {}).get("length", "angstrom")
    points = cell["points"]
    if any("mixture" in point for point in points):
        raise RejectedError(Reason.DISORDERED, "A site is a mixture of elements.")
    symbols = [element(str(point["symbol"])) for point in points]
    matrix = np.array(cell["lattice"], dtype=float) * _length(unit)
    return Structure(matrix, symbols, [point["coordinates"] for point in points])


def plain_content(text: str) -> object:
    """The content. phonopy's own reader uses PyYAML's full loader, which runs code that a file asks for.

    Raises:
        RejectedError: it refers to its own parts.
        yaml.YAMLError: it is no YAML, or asks for more than keys and plain values.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # An alias in an alias grows without end; phonopy writes none.
    if re.search(r"[\s,:\[{-]\*\S", text):
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise RejectedError(Reason.UNPARSABLE, "The file refers to its own parts (yaml aliases).")
    return yaml.load(text, Loader=loader)  # noqa: S506


def _length(unit: object) -> float:
    from ase.units import Bohr

    scales = {"angstrom": 1.0, "au": float(Bohr)}
    if unit not in scales:
        raise RejectedError(Reason.UNPARSABLE, f"The unit of length {unit!r} is not known.")
    return scales[str(unit)]


FORMATS = (Format("yaml", (".yaml", ".yml"), read_phonopy, parsers={"phonopy": parse_phonopy}),)
