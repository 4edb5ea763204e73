"""Writes crystals of the elements, the end members of every hull, where a reference set has none.

    python benchmarks/elements.py elements.extxyz

Phases of lowest energy as the literature has them, with measured lattice constants: those of ASE's table of reference
states, and structures that it does not build from Donohue, The Structures of the Elements (Wiley, 1974). Every
potential relaxes them to its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols, reference_states
from ase.io import write
from ase.spacegroup import crystal

_BUILT = {"fcc", "bcc", "hcp", "diamond", "sc", "bct", "rhombohedral"}

_Site = tuple[float, float, float]

# Space group, cell (Å, degrees), and the sites of the asymmetric unit. Fluorine takes chlorine's packing of molecules.
_CELLS: dict[str, tuple[int, list[float], list[_Site]]] = {
    "C": (194, [2.461, 2.461, 6.708, 90, 90, 120], [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)]),
    "B": (166, [4.907, 4.907, 12.55, 90, 90, 120], [(0.119, -0.119, 0.8912), (0.1969, -0.1969, 0.0243)]),
    "Ga": (64, [4.523, 7.661, 4.524, 90, 90, 90], [(0, 0.1549, 0.081)]),
    "P": (64, [3.314, 10.478, 4.376, 90, 90, 90], [(0, 0.10168, 0.08056)]),
    "F": (64, [5.0, 3.3, 6.6, 90, 90, 90], [(0, 0.130, 0.087)]),
    "Cl": (64, [6.24, 4.48, 8.26, 90, 90, 90], [(0, 0.130, 0.100)]),
    "Br": (64, [6.67, 4.48, 8.72, 90, 90, 90], [(0, 0.135, 0.110)]),
    "I": (64, [7.265, 4.786, 9.791, 90, 90, 90], [(0, 0.15434, 0.11741)]),
    "Se": (152, [4.366, 4.366, 4.954, 90, 90, 120], [(0.2254, 0, 1 / 3)]),
    "Te": (152, [4.457, 4.457, 5.929, 90, 90, 120], [(0.2636, 0, 1 / 3)]),
    "U": (63, [2.854, 5.870, 4.955, 90, 90, 90], [(0, 0.1025, 0.25)]),
    "N": (205, [5.66, 5.66, 5.66, 90, 90, 90], [(0.054, 0.054, 0.054)]),
    "O": (12, [5.403, 3.429, 5.086, 90, 132.53, 90], [(0.0956, 0, 0.1653)]),
    "H": (194, [3.77, 3.77, 6.162, 90, 90, 120], [(1 / 3, 2 / 3, 0.19)]),
    "Hg": (166, [3.457, 3.457, 6.664, 90, 90, 120], [(0, 0, 0)]),
    "Sm": (166, [3.629, 3.629, 26.207, 90, 90, 120], [(0, 0, 0), (0, 0, 0.222)]),
    "Pa": (139, [3.925, 3.925, 3.238, 90, 90, 90], [(0, 0, 0)]),
    "Mn": (217, [8.911] * 3 + [90] * 3, [(0, 0, 0), (0.317,) * 3, (0.357, 0.357, 0.034), (0.089, 0.089, 0.282)]),
}
# Double hexagonal close packing: a and c in Å.
_DOUBLE = {"La": (3.774, 12.171), "Pr": (3.672, 11.833), "Nd": (3.658, 11.797), "Pm": (3.65, 11.65)}


def element(symbol: str) -> Atoms | None:
    """A crystal of an element; None where none is written here."""
    if symbol in _CELLS:
        group, cell, sites = _CELLS[symbol]
        return crystal([symbol] * len(sites), sites, spacegroup=group, cellpar=cell, primitive_cell=True)
    if symbol == "S":  # rings of eight
        sites = [(0.8554, 0.9526, 0.9516), (0.7844, 0.0301, 0.0763), (0.7069, 0.9795, 0.004), (0.7862, 0.9073, 0.129)]
        cell = [10.4646, 12.866, 24.486, 90, 90, 90]
        return crystal(["S"] * 4, sites, spacegroup=70, setting=2, cellpar=cell, primitive_cell=True)
    if symbol in _DOUBLE:
        a, c = _DOUBLE[symbol]
        layers = [(0, 0, 0), (1 / 3, 2 / 3, 0.25), (0, 0, 0.5), (2 / 3, 1 / 3, 0.75)]
        return Atoms([symbol] * 4, scaled_positions=layers, cell=[a, a, c, 90, 90, 120], pbc=True)
    state = reference_states[chemical_symbols.index(symbol)]
    if symbol == "Sn":
        return bulk("Sn", "diamond", a=6.489)
    return bulk(symbol) if state and state["symmetry"] in _BUILT else None


def main() -> None:
    """Write every element that can be written."""
    out = Path(sys.argv[1])
    found = {symbol: element(symbol) for symbol in chemical_symbols[1:95]}
    for symbol, atoms in found.items():
        if atoms is not None:
            atoms.info["name"] = symbol
    write(out, [atoms for atoms in found.values() if atoms is not None], format="extxyz")
    print(f"{out}: not written: {', '.join(symbol for symbol, atoms in found.items() if atoms is None)}")


if __name__ == "__main__":
    main()
