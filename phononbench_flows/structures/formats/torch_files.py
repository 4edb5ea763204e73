"""``.pt`` of CDVAE, DiffCSP and FlowMM: tensors of many crystals. Nothing in them is executed."""

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
from phononbench_flows.structures.formats.dictionaries import is_crystal
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError

_CELLS = ("lattices", "lattice", "cell")
_REFUSED = (
    "It holds more than tensors, which can run code when it is read: save the tensors alone, "
    "or write the crystals as CIF, extxyz or JSON."
)


def read_tensors(found: Found) -> Iterator[RawCrystal]:
    """Each crystal of the tensors ``frac_coords``, ``atom_types``, ``num_atoms``, ``lengths`` and ``angles``."""
    yield from limited.read_apart(_crystals, found, imports=("torch",))


def _crystals(found: Found, content: Path | bytes) -> Iterator[RawCrystal]:
    loaded = _loaded(content)
    if isinstance(loaded, list | tuple):
        crystals = [_plain(each) for each in loaded]
        if not any(map(is_crystal, crystals)):
            raise NoCrystalsError("It holds no crystal that is known here.")
    else:
        crystals = list(split(loaded))
    for number, crystal in enumerate(crystals, 1):
        yield found.part(number, "json", json.dumps(crystal).encode())


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


def split(loaded: Any) -> Iterator[dict[str, Any]]:
    """Crystals of tensors that hold all of them, one after the other, perhaps for several tries."""
    if not isinstance(loaded, Mapping) or not {"frac_coords", "atom_types"} <= set(loaded):
        raise NoCrystalsError("It holds no tensors frac_coords and atom_types.")
    if "num_atoms" not in loaded:
        raise NoCrystalsError("It does not say how many atoms each crystal has: there is no tensor num_atoms.")
    cell = next((key for key in _CELLS if key in loaded), None)
    keys = ["frac_coords", "atom_types", "num_atoms", *([cell] if cell else ["lengths", "angles"])]
    arrays = {key: np.asarray(loaded[key]) for key in keys if key in loaded}
    if len(arrays) < len(keys):
        raise NoCrystalsError("It holds no tensors lengths and angles.")
    if arrays["num_atoms"].ndim == 1:
        arrays = {key: array[None] for key, array in arrays.items()}
    tries = {len(array) for array in arrays.values()}
    if len(tries) > 1 or arrays["num_atoms"].ndim != 2:
        raise RejectedError(Reason.CONTRADICTORY, "Its tensors are not for one number of tries.")
    for number in range(tries.pop()):
        yield from _split_try({key: array[number] for key, array in arrays.items()})


def _split_try(arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    counts, types = arrays["num_atoms"], arrays["atom_types"]
    if types.ndim != 1:
        raise RejectedError(Reason.AMBIGUOUS, "Its atom_types are no atomic numbers, one for each atom.")
    per_atom = {len(arrays["frac_coords"]), len(types), int(counts.sum())}
    others = set(arrays) - {"num_atoms", "atom_types", "frac_coords"}
    if len(per_atom) > 1 or (counts < 0).any() or any(len(arrays[key]) != len(counts) for key in others):
        raise RejectedError(Reason.CONTRADICTORY, "Its tensors are not for one number of atoms and crystals.")
    ends = np.cumsum(counts)
    for index, (end, count) in enumerate(zip(ends, counts, strict=True)):
        atoms = slice(int(end - count), int(end))
        crystal = {key: arrays[key][index].tolist() for key in others}
        yield crystal | {"atom_types": types[atoms].tolist(), "frac_coords": arrays["frac_coords"][atoms].tolist()}


FORMATS = (Format("torch file", (".pt",), read_tensors, Level.COLLECTION),)
