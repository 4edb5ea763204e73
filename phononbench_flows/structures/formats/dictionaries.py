"""Crystals as dictionaries: of pymatgen, ASE, OPTIMADE and JARVIS, and the arrays of generators.

Only numbers and symbols are taken: pymatgen's and ASE's own readers make objects of the classes that a file names.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import DummySpecies, Element
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.checks import MAX_FRACTIONAL
from phononbench_flows.structures.formats.numbers import MAX_ATOMS, element, require_full
from phononbench_flows.structures.raw import RejectedError

TWICE = "__given_twice__"
"""Key under which a dictionary names one of its keys that the file gives twice."""

OCCUPANCIES = frozenset({"occupancy", "occupancies", "occ", "occu", "site_occupancy"})

_SAME_PLACE = 1e-2  # Å: positions written in few digits differ by less, positions of other atoms by more
_SAME_LENGTH = 1e-3  # relative

_ASE_SPECIES = ("numbers", "symbols")
ARRAY_SPECIES = ("atom_types", "atomic_numbers", "numbers", "species")
ARRAY_CELLS = ("lattice", "lattices", "cell")
"""Keys of generators' arrays: the first that is there is meant."""


# -- which dictionaries are crystals ---------------------------------------------------------------------------


def is_crystal(value: Any) -> bool:
    """Whether a value is a dictionary of a crystal, by its keys."""
    return isinstance(value, Mapping) and any(tells(value) for tells, _ in _SHAPES)


def _is_pymatgen(content: Mapping[str, Any]) -> bool:
    return isinstance(content.get("lattice"), Mapping) and "sites" in content


def _is_ase(content: Mapping[str, Any]) -> bool:
    return {"positions", "cell"} <= set(content) and any(key in content for key in _ASE_SPECIES)


def _is_optimade(content: Mapping[str, Any]) -> bool:
    inner = content.get("attributes", content)
    return isinstance(inner, Mapping) and {"lattice_vectors", "cartesian_site_positions"} <= set(inner)


def _is_jarvis(content: Mapping[str, Any]) -> bool:
    return {"lattice_mat", "coords", "elements"} <= set(content)


def _is_arrays(content: Mapping[str, Any]) -> bool:
    keys = set(content)
    cell = {"lengths", "angles"} <= keys or bool(keys.intersection(ARRAY_CELLS))
    return "frac_coords" in keys and cell and any(key in keys for key in ARRAY_SPECIES)


# -- text of one crystal ---------------------------------------------------------------------------------------


def parse_json(text: str) -> Structure:
    """The crystal in the JSON of a dictionary.

    Raises:
        RejectedError: it does not determine one.
    """
    return structure_of(loads(text))


def parse_python(text: str) -> Structure:
    """The crystal in Python's way to print a dictionary. Nothing is executed.

    Raises:
        RejectedError: it does not determine one.
    """
    tree = _Plain().visit(ast.parse(text.strip(), mode="eval"))
    return structure_of(ast.literal_eval(tree.body))


def loads(text: str) -> Any:
    """JSON, with keys that are given twice marked."""
    return json.loads(text, object_pairs_hook=marked)


def marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of these pairs, and a mark if one of its keys comes twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        content[TWICE] = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return content


class _Plain(ast.NodeTransformer):
    """What numpy and torch print around numbers taken away, and keys that are given twice refused."""

    _WRAPPERS = frozenset(
        {"array", "tensor", "float64", "float32", "float16", "int64", "int32", "int8", "str_", "bool_"}
    )

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in self._WRAPPERS or not node.args:
            raise RejectedError(Reason.UNPARSABLE, f"It holds {name or 'something'}(), which is no plain value.")
        return cast("ast.AST", self.visit(node.args[0]))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in {"nan", "inf"}:
            raise RejectedError(Reason.UNPARSABLE, f"It holds the name {node.id!r}, which is no plain value.")
        return ast.Constant(math.nan if node.id == "nan" else math.inf)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        if len(set(keys)) < len(keys):
            raise RejectedError(Reason.CONTRADICTORY, "A key of the dictionary is given more than once.")
        return self.generic_visit(node)


# -- the dictionaries ------------------------------------------------------------------------------------------


def structure_of(content: Any) -> Structure:
    """The crystal that a dictionary tells.

    Raises:
        RejectedError: it tells none, or contradicts itself.
    """
    if isinstance(content, Mapping):
        _require_single_keys(content)
        for tells, build in _SHAPES:
            if tells(content):
                return build(content)
    raise RejectedError(Reason.UNPARSABLE, "It is no dictionary of a crystal.")


def _require_single_keys(content: Any) -> None:
    if isinstance(content, Mapping):
        if TWICE in content:
            detail = f"The key {content[TWICE]!r} is given more than once."
            raise RejectedError(Reason.CONTRADICTORY, detail)
        content = content.values()
    elif not isinstance(content, list | tuple) or (content and isinstance(content[0], int | float | str)):
        return
    for value in content:
        _require_single_keys(value)


def _of_pymatgen(content: Mapping[str, Any]) -> Structure:
    lattice = _pymatgen_lattice(content["lattice"])
    sites = content["sites"]
    species = [_only_species(site) for site in sites]
    coordinates = [_pymatgen_place(site, lattice) for site in sites]
    return Structure(lattice, species, coordinates)


def _pymatgen_lattice(given: Mapping[str, Any]) -> Lattice:
    _require_periodic(given.get("pbc", True))
    parameters = [given.get(key) for key in ("a", "b", "c", "alpha", "beta", "gamma")]
    if "matrix" not in given and None in parameters:
        raise RejectedError(Reason.UNPARSABLE, "The cell has neither a matrix nor all of its lengths and angles.")
    if "matrix" not in given:
        numbers = np.array(parameters, dtype=float)
        return Lattice(_cell(numbers[:3], numbers[3:]))
    lattice = Lattice(_matrix(given["matrix"]))
    for said, made in zip(parameters, lattice.parameters, strict=True):
        if said is not None and math.isfinite(made) and not math.isclose(float(said), made, rel_tol=_SAME_LENGTH):
            detail = f"The cell is given twice, and differs: {float(said):g} is {made:g} in the matrix."
            raise RejectedError(Reason.CONTRADICTORY, detail)
    return lattice


def _only_species(site: Mapping[str, Any]) -> Element | DummySpecies:
    entries = site["species"]
    if len(entries) != 1:
        names = ", ".join(f"{entry.get('element')}: {entry.get('occu')}" for entry in entries)
        detail = f"A site is shared: {names}."
        raise RejectedError(Reason.DISORDERED, detail)
    [entry] = entries
    require_full(float(entry.get("occu", 1)), str(entry["element"]))
    return element(str(entry["element"]))


def _pymatgen_place(site: Mapping[str, Any], lattice: Lattice) -> np.ndarray:
    """Fractional coordinates of a site, which has to be in one place where it is given twice."""
    fractional, cartesian = site.get("abc"), site.get("xyz")
    if fractional is None:
        return lattice.get_fractional_coords(_vector(cartesian))
    place = _vector(fractional)
    if np.abs(place).max() > MAX_FRACTIONAL:  # where it is in the cell can no longer be told
        detail = f"A fractional coordinate is {np.abs(place).max():.3g}, the limit is {MAX_FRACTIONAL:.0e}."
        raise RejectedError(Reason.BAD_NUMBERS, detail)
    if cartesian is not None:
        apart = float(np.linalg.norm(lattice.get_cartesian_coords(place) - _vector(cartesian)))
        if apart > _SAME_PLACE:
            detail = f"A site is given twice, in places that are {apart:.3g} Å apart."
            raise RejectedError(Reason.CONTRADICTORY, detail)
    return place


def _of_ase(content: Mapping[str, Any]) -> Structure:
    plain = {key: _array(value) for key, value in content.items() if key in {"positions", "cell", "numbers", "pbc"}}
    if "numbers" in plain:
        species: Sequence[Any] | np.ndarray = np.ravel(plain["numbers"])
    else:
        species = content["symbols"]
        if isinstance(species, str):
            raise RejectedError(Reason.UNPARSABLE, "The symbols are a formula, not a list.")
    info = content.get("info")
    for name in OCCUPANCIES & set(content):
        info = {"occupancy": content[name]}
    return structure_of_atoms(
        species, plain["positions"], plain["cell"], plain.get("pbc"), info if isinstance(info, Mapping) else {}
    )


def structure_of_atoms(
    species: Sequence[Any] | np.ndarray, positions: Any, cell: Any, pbc: Any, info: Mapping[str, Any]
) -> Structure:
    """The crystal of ASE's numbers or symbols, Cartesian positions (Å), cell (Å), and what else it keeps.

    Raises:
        RejectedError: it is no crystal, or a disordered one.
    """
    matrix = np.asarray(cell, dtype=float)
    if matrix.shape in {(3,), (6,)}:
        matrix = _cell(matrix[:3], np.array([*matrix[3:], 90, 90, 90][:3])) if matrix.any() else np.zeros((3, 3))
    matrix = _matrix(matrix)
    if pbc is None and not matrix.any():
        raise RejectedError(Reason.BAD_CELL, "There is no cell.")
    _require_periodic(True if pbc is None else pbc)
    for name in OCCUPANCIES & set(info):
        # ASE keeps the occupancies of a mixed crystal aside, and the sites as if they were full.
        for occupancy in _leaves(info[name]):
            require_full(occupancy, "a mixed crystal")
    _require_volume(matrix)
    return _built(matrix, species, positions, cartesian=True)


def _leaves(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list | tuple | np.ndarray):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [float(value)]


def _array(value: Any) -> np.ndarray:
    """A list, or an array as ASE writes it into JSON."""
    if isinstance(value, Mapping):
        if "__ndarray__" in value:
            shape, kind, numbers = value["__ndarray__"]
            if not str(kind).startswith(("int", "uint", "float", "bool")):
                raise RejectedError(Reason.UNPARSABLE, f"An array holds {kind}, not numbers.")
            return np.array(numbers).reshape(shape)
        return _array(value["array"])  # ASE's Cell
    return np.array(value)


def _of_optimade(content: Mapping[str, Any]) -> Structure:
    inner = content.get("attributes", content)
    features = set(inner.get("structure_features") or ())
    if features & {"disorder", "implicit_atoms", "unknown_positions", "assemblies", "site_attachments"}:
        raise RejectedError(Reason.DISORDERED, f"The structure has {', '.join(sorted(map(str, features)))}.")
    dimensions = inner.get("dimension_types")
    if dimensions is not None:
        _require_periodic(dimensions)
    names = inner["species_at_sites"]
    said = inner.get("nsites")
    if said is not None and said != len(names):
        raise RejectedError(Reason.CONTRADICTORY, f"nsites is {said}, but {len(names)} sites follow.")
    known = {each["name"]: _optimade_symbol(each) for each in inner.get("species") or ()}
    species = [known.get(name) or element(str(name)) for name in names]
    return _built(_matrix(inner["lattice_vectors"]), species, inner["cartesian_site_positions"], cartesian=True)


def _optimade_symbol(species: Mapping[str, Any]) -> Element | DummySpecies:
    symbols = species["chemical_symbols"]
    if len(symbols) != 1 or symbols[0] == "vacancy":
        raise RejectedError(Reason.DISORDERED, f"The species {species['name']!r} is {', '.join(map(str, symbols))}.")
    require_full(float((species.get("concentration") or [1.0])[0]), str(symbols[0]))
    if species.get("attached"):
        raise RejectedError(Reason.DISORDERED, f"The species {species['name']!r} has atoms attached without a place.")
    return element(str(symbols[0]))


def _of_jarvis(content: Mapping[str, Any]) -> Structure:
    cartesian = content.get("cartesian", False)
    if not isinstance(cartesian, bool):
        raise RejectedError(Reason.UNPARSABLE, "`cartesian` is neither true nor false.")
    return _built(_matrix(content["lattice_mat"]), content["elements"], content["coords"], cartesian=cartesian)


def _of_arrays(content: Mapping[str, Any]) -> Structure:
    given = next(content[key] for key in ARRAY_SPECIES if key in content)
    given_cell = next((content[key] for key in ARRAY_CELLS if key in content), None)
    cells = [] if given_cell is None else [_array_cell(given_cell)]
    if {"lengths", "angles"} <= set(content):
        cells.append(_cell(np.ravel(_floats(content["lengths"])), np.ravel(_floats(content["angles"]))))
    first, *others = [Lattice(cell).parameters for cell in cells]
    if not all(np.allclose(first, other, rtol=_SAME_LENGTH) for other in others):
        raise RejectedError(Reason.CONTRADICTORY, "The cell is given twice, and differs.")
    said = content.get("num_atoms")
    if said is not None and int(np.ravel(said)[0]) != len(given):
        raise RejectedError(Reason.CONTRADICTORY, f"num_atoms is {said}, but {len(given)} atoms follow.")
    return _built(cells[0], given, content["frac_coords"], cartesian=False)


def _array_cell(given: Any) -> np.ndarray:
    """Three vectors, or three lengths and three angles."""
    found = np.asarray(given, dtype=float)
    if found.shape != (6,):
        return _matrix(found)
    if found[3:].max() <= np.pi:
        raise RejectedError(Reason.AMBIGUOUS, "The angles of the cell may be degrees or radians.")
    return _cell(found[:3], found[3:])


def _cell(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    if lengths.shape != (3,) or angles.shape != (3,):
        raise RejectedError(Reason.UNPARSABLE, "There are not three lengths and three angles.")
    numbers = [*lengths, *angles]
    if not np.isfinite(numbers).all():
        raise RejectedError(Reason.BAD_NUMBERS, "The cell holds a number that is not finite.")
    cosines = np.cos(np.radians(angles))
    if min(numbers) <= 0 or max(angles) >= 180 or 1 - cosines @ cosines + 2 * np.prod(cosines) <= 0:
        raise RejectedError(Reason.BAD_CELL, "No cell has these lengths and angles.")
    return Lattice.from_parameters(*map(float, numbers)).matrix


# -- parts of them ---------------------------------------------------------------------------------------------


def _built(matrix: np.ndarray, species: Sequence[Any] | np.ndarray, places: Any, *, cartesian: bool) -> Structure:
    if len(species) > MAX_ATOMS:
        raise RejectedError(Reason.TOO_MANY_ATOMS, f"There are {len(species)} atoms, the limit is {MAX_ATOMS}.")
    positions = _floats(places)
    if len(species) == 0 or positions.shape != (len(species), 3):
        shape = " x ".join(map(str, positions.shape))
        detail = f"There are {len(species)} atoms, and {shape} coordinates."
        raise RejectedError(Reason.CONTRADICTORY if len(species) else Reason.UNPARSABLE, detail)
    if cartesian:
        _require_volume(matrix)
    return Structure(Lattice(matrix), [_species(each) for each in species], positions, coords_are_cartesian=cartesian)


def _species(given: Any) -> Element | DummySpecies:
    """An element by its number or its symbol."""
    if isinstance(given, Element | DummySpecies):
        return given
    if isinstance(given, bool | np.bool_):
        raise RejectedError(Reason.UNPARSABLE, "An element is given as true or false.")
    if isinstance(given, int | float | np.integer | np.floating):
        if given != int(given) or not 1 <= given <= 118:
            raise RejectedError(Reason.UNSUPPORTED_ELEMENT, f"There is no element of the number {given:g}.")
        return Element.from_Z(int(given))
    return element(str(given))


def _floats(value: Any) -> np.ndarray:
    found = np.asarray(value, dtype=float)
    if not np.isfinite(found).all():
        raise RejectedError(Reason.BAD_NUMBERS, "A coordinate or a length is not finite.")
    return found


def _vector(value: Any) -> np.ndarray:
    found = np.asarray(value, dtype=float)
    if found.shape != (3,):
        raise RejectedError(Reason.UNPARSABLE, "A site has not three coordinates.")
    return found


def _matrix(value: Any) -> np.ndarray:
    found = np.asarray(value, dtype=float)
    if found.shape == (9,):
        found = found.reshape(3, 3)
    if found.shape != (3, 3):
        raise RejectedError(Reason.UNPARSABLE, "The cell is not three vectors.")
    if not np.isfinite(found).all():
        raise RejectedError(Reason.BAD_NUMBERS, "The cell holds a number that is not finite.")
    return found


def _require_volume(matrix: np.ndarray) -> None:
    if np.linalg.matrix_rank(matrix) < 3:
        raise RejectedError(Reason.BAD_CELL, "The lattice vectors span no volume.")


def _require_periodic(pbc: Any) -> None:
    if not np.all(np.asarray(pbc, dtype=bool)):
        raise RejectedError(Reason.BAD_CELL, "It is not periodic in three directions.")


_SHAPES: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], Structure]], ...] = (
    (_is_pymatgen, _of_pymatgen),
    (_is_optimade, _of_optimade),
    (_is_jarvis, _of_jarvis),
    (_is_arrays, _of_arrays),
    (_is_ase, _of_ase),
)
