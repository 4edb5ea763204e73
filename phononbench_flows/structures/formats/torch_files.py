"""``.pt`` of CDVAE, DiffCSP, FlowMM and their heirs: tensors of many crystals. Nothing in them is executed."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import limited
from phononbench_flows.structures.formats.base import Format, Found, Level
from phononbench_flows.structures.formats.dictionaries import ARRAY_CELLS, ARRAY_SPECIES, is_crystal
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError, Rejection

_PARAMETERS = ("lengths", "angles")
_CELLS = (*ARRAY_CELLS, *_PARAMETERS)
_CONTRADICTORY = "Its tensors are not for one number of atoms, crystals and tries."
_NONE = "It holds no crystal that is known here: no tensors frac_coords, atom_types, num_atoms, lengths and angles."
_REFUSED = (
    "It holds more than tensors, such as objects of torch_geometric or arrays of numpy, which can run code when it is "
    "read. Where it was made, save its tensors alone, such as torch.save({key: data[key] for key in ('frac_coords', "
    "'atom_types', 'num_atoms', 'lengths', 'angles')}, 'tensors.pt'), or write the crystals as CIF, extxyz or JSON."
)


def read_tensors(found: Found) -> Iterator[RawCrystal]:
    """Each crystal of the tensors ``frac_coords``, ``atom_types``, ``num_atoms``, ``lengths`` and ``angles``."""
    yield from limited.read_apart(_crystals, found, imports=("torch",))


def _crystals(found: Found, content: Path | bytes) -> Iterator[RawCrystal]:
    for number, crystal in enumerate(crystals_in(_loaded(content)), 1):
        if isinstance(crystal, Rejection):
            yield found.bad_part(number, crystal, "json")
        else:
            yield found.part(number, "json", json.dumps(_plain(crystal)).encode())


def _loaded(content: Path | bytes) -> Any:
    import pickle

    import torch

    try:
        # The generators put their command line beside the tensors; argparse's own class does nothing.
        with torch.serialization.safe_globals([Namespace]):
            source = content if isinstance(content, Path) else io.BytesIO(content)
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RejectedError(Reason.UNSUPPORTED_FILE, _REFUSED) from error


def _plain(value: Any) -> Any:
    """Tensors as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value if isinstance(value, int | float | str) else None


# -- which atoms are of which crystal ---------------------------------------------------------------------------


def crystals_in(loaded: Any) -> Iterator[Mapping[str, Any] | Rejection]:
    """The crystals of a file's content: in tensors that hold all of them, or listed one by one or lot by lot.

    Raises:
        NoCrystalsError: there is none.
        RejectedError: tensors do not say which atoms are of which crystal. Of a list that costs the entry alone.
    """
    if isinstance(loaded, Mapping) and "frac_coords" in loaded:
        yield from _split(_tensors_of(loaded))
    elif is_crystal(loaded):
        yield loaded
    elif _holds_crystals(loaded):
        for each in loaded:
            try:
                yield from crystals_in(each)
            except RejectedError as error:
                yield error.rejection
            except NoCrystalsError as error:
                yield Rejection(Reason.UNPARSABLE, str(error))
    else:
        raise NoCrystalsError(_NONE)


def _holds_crystals(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_crystals, value))
    return isinstance(value, Mapping) and ("frac_coords" in value or is_crystal(value))


def _tensors_of(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors that tell crystals; the species under one name."""
    given = {key: value for key, value in loaded.items() if value is not None}
    species = next((key for key in ARRAY_SPECIES if key in given), None)
    if species is None or not (given.keys() & set(ARRAY_CELLS) or given.keys() >= set(_PARAMETERS)):
        raise NoCrystalsError(_NONE)
    others = ("frac_coords", *_CELLS, "num_atoms")
    return {"atom_types": given[species]} | {key: given[key] for key in others if key in given}


def _split(tensors: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Crystals of tensors, or of lists of them, by the dimensions that lead those of one crystal.

    Cells have one over the crystals, and one before it over the tries where there are several. Atoms either follow
    each other through all crystals, or have the same dimensions: in lists, or filled up with zeros to one number.
    """
    cells, atoms = _leading(tensors)
    if cells == 2 and atoms in {1, 2}:
        for each in _along_first(tensors):
            yield from _split(each)
    elif cells == atoms == 1:
        yield from map(_without_filling, _along_first(tensors))
    elif cells == 1 and atoms == 0:
        yield from _cut(tensors)
    elif cells == atoms == 0:
        yield tensors
    else:
        raise RejectedError(Reason.CONTRADICTORY, _CONTRADICTORY)


def _leading(tensors: Mapping[str, Any]) -> tuple[int, int]:
    """How many dimensions lead those of one crystal: of its cell, and of its atoms."""
    atoms = _depth(tensors["frac_coords"]) - 2
    species = _depth(tensors["atom_types"]) - 1
    cells = {_depth(tensors[key]) - _own_dimensions(key, tensors[key]) for key in _CELLS if key in tensors}
    counts = _depth(tensors.get("num_atoms", 0))
    if species == atoms + 1:
        raise RejectedError(Reason.AMBIGUOUS, "Its atom_types are no atomic numbers, one for each atom.")
    if species != atoms or len(cells) > 1 or counts > max(*cells, 1):
        raise RejectedError(Reason.CONTRADICTORY, _CONTRADICTORY)
    return cells.pop(), atoms


def _own_dimensions(key: str, cell: Any) -> int:
    while _depth(cell) > 1 and len(cell):
        cell = cell[0]
    return 2 if key in ARRAY_CELLS and len(cell) == 3 else 1  # 6 are lengths and angles, 9 the three vectors


def _depth(value: Any) -> int:
    if hasattr(value, "ndim"):
        return int(value.ndim)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list | tuple) else 0


def _along_first(tensors: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    numbers = {len(each) if _depth(each) else 0 for each in tensors.values()}
    if len(numbers) > 1:
        raise RejectedError(Reason.CONTRADICTORY, _CONTRADICTORY)
    for number in range(numbers.pop()):
        yield {key: each[number] for key, each in tensors.items()}


def _without_filling(crystal: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a crystal alone; what is no filling is left for the number of atoms to contradict."""
    count = int(crystal.get("num_atoms", len(crystal["atom_types"])))
    if count < 0 or any(number != 0 for number in crystal["atom_types"][count:]):
        return crystal
    return {**crystal, **{key: crystal[key][:count] for key in ("atom_types", "frac_coords")}}


def _cut(tensors: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Crystals whose atoms follow each other."""
    cells = {key: tensors[key] for key in _CELLS if key in tensors}
    atoms = {key: tensors[key] for key in ("atom_types", "frac_coords")}
    counts = np.ravel(np.asarray(tensors.get("num_atoms", [])))
    if not len(counts) and {len(each) for each in cells.values()} == {1}:
        counts = np.array([len(atoms["atom_types"])])
    if not len(counts):
        raise NoCrystalsError("It does not say how many atoms each crystal has: there is no tensor num_atoms.")
    of_cells, of_atoms = ({len(each) for each in parts.values()} for parts in (cells, atoms))
    if (counts < 0).any() or of_cells != {len(counts)} or of_atoms != {int(counts.sum())}:
        raise RejectedError(Reason.CONTRADICTORY, _CONTRADICTORY)
    ends = np.cumsum(counts)
    for place, (end, count) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True)):
        yield {key: each[place] for key, each in cells.items()} | {
            key: each[end - count : end] for key, each in atoms.items()
        }


FORMATS = (Format("torch file", (".pt",), read_tensors, Level.COLLECTION),)
