"""Structures and band structures in few bytes, for a page that holds thousands of them.

Crystals are kept as they can be saved from the page: coordinates to 2^-32 of the cell. Of frequencies there is what a
screen can show, 1/32767 of the highest one.
All numbers are little-endian, as every browser's are.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pymatgen.core import Element

from phononbench_flows.engine.bands import Bands
from phononbench_flows.results.band_structures import path_ticks
from phononbench_flows.stability import is_imaginary

BAND_POINTS = 160
"""About so many q-points of a band structure are kept."""


def squeezed(data: bytes) -> str:
    """Bytes as gzip in base64, which is safe anywhere in HTML; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def structure_bytes(plain: Mapping[str, Any] | None) -> bytes:
    """A crystal as bytes: the three lattice vectors (float64, Å), fractional coordinates (uint32), atomic numbers.

    Args:
        plain: pymatgen Structure as a dict.

    Returns:
        72 bytes and thirteen for each atom; nothing for a crystal that is disordered or holds no known elements.
    """
    numbers = _atomic_numbers(plain) if plain else []
    if not plain or not numbers:
        return b""
    lattice = np.array(plain["lattice"]["matrix"], dtype="<f8").tobytes()
    inside = np.array([site["abc"] for site in plain["sites"]]) % 1.0
    coordinates = (np.rint(inside * 2**32).astype(np.int64) % 2**32).astype("<u4").tobytes()
    return lattice + coordinates + bytes(numbers)


def _atomic_numbers(plain: Mapping[str, Any]) -> list[int]:
    species = [site["species"] for site in plain["sites"]]
    if any(len(kinds) != 1 or kinds[0].get("occu", 1) != 1 for kinds in species):
        return []
    numbers = [_number(kinds[0]["element"]) for kinds in species]
    return numbers if all(numbers) else []


@cache
def _number(symbol: str) -> int:
    return int(Element(symbol).Z) if Element.is_valid_symbol(symbol) else 0


@dataclass(frozen=True)
class CompactBands:
    """A band structure as bytes, and what is needed to read them.

    Attributes:
        ticks: distance and label of the high-symmetry points.
        lengths: number of q-points in each segment of the path.
        branches: number of branches.
        scale: frequency of one unit, in THz.
        lowest: lowest frequency, in THz.
        data: distances (float32, 1/Å), then branch by branch the steps from one frequency to the next (int16), the
            low bytes of all of them before the high ones, which compresses better.
    """

    ticks: list[tuple[float, str]]
    lengths: list[int]
    branches: int
    scale: float
    lowest: float
    data: bytes

    def header(self, threshold: float) -> dict[str, Any]:
        """All but the bytes, as JSON; with whether the lowest frequency is imaginary at a threshold in THz."""
        ticks = [[round(position, 5), label] for position, label in self.ticks]
        lengths, size = self.lengths, len(self.data)
        return {"ticks": ticks, "lengths": lengths, "branches": self.branches, "scale": self.scale, "size": size} | {
            "imaginary": bool(is_imaginary(self.lowest, threshold))
        }


def compact_bands(bands: Bands) -> CompactBands:
    """A band structure thinned out and rounded; the ends of its segments and its lowest frequency are kept."""
    chosen = _thinned(bands)
    distances = np.concatenate([d[c] for d, c in zip(bands.distances, chosen, strict=True)])
    frequencies = np.concatenate([f[c] for f, c in zip(bands.frequencies, chosen, strict=True)])
    scale = float(np.abs(frequencies).max()) / 32767 or 1.0
    steps = np.diff(np.rint(frequencies / scale).astype(np.int32).T, axis=1, prepend=0)
    planes = (
        steps.astype("<i2").ravel().view(np.uint8).reshape(-1, 2).T.tobytes()
    )  # steps may wrap around: so they do back
    return CompactBands(
        ticks=path_ticks(bands),
        lengths=[len(c) for c in chosen],
        branches=frequencies.shape[1],
        scale=scale,
        lowest=float(frequencies.min()),
        data=distances.astype("<f4").tobytes() + planes,
    )


def _thinned(bands: Bands) -> list[np.ndarray]:
    """Indices to keep in each segment."""
    stride = max(1, round(sum(map(len, bands.distances)) / BAND_POINTS))
    lowest = [float(f.min()) for f in bands.frequencies]
    chosen = []
    for segment, frequencies in enumerate(bands.frequencies):
        keep = {*range(0, len(frequencies), stride), len(frequencies) - 1}
        if lowest[segment] == min(lowest):
            keep.add(int(frequencies.min(axis=1).argmin()))
        chosen.append(np.array(sorted(keep)))
    return chosen


@dataclass(frozen=True)
class ElementLook:
    """How an element is drawn, and where it stands in the periodic table.

    Attributes:
        colour: Jmol's, as ``#rrggbb``.
        radius: covalent radius, Å.
        row: 1 to 7, and 9 and 10 for lanthanides and actinides.
        column: 1 to 18.
        metal: whether it is one.
    """

    number: int
    colour: str
    radius: float
    row: int
    column: int
    metal: bool


def element_looks() -> dict[str, ElementLook]:
    """Every element up to oganesson by its symbol."""
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    looks = {}
    for number, symbol in enumerate(chemical_symbols[1:119], start=1):
        element = Element(symbol)
        colour = jmol_colors[min(number, len(jmol_colors) - 1)]
        row, column = element.row, element.group
        if element.is_lanthanoid or element.is_actinoid:
            row, column = row + 3, number - (57 if element.is_lanthanoid else 89) + 3
        looks[symbol] = ElementLook(
            number,
            "#" + "".join(f"{round(255 * part):02x}" for part in colour),
            float(covalent_radii[number]),
            row,
            column,
            bool(element.is_metal),
        )
    return looks
