"""Crystals as documents keep them: the one way from a document to a Structure.

``Structure.from_dict`` imports and calls whatever class a property of a site names, and a document may come from
anybody. Here only numbers and symbols are taken, and a dictionary that holds anything else is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import DummySpecies, Element, Species
from pymatgen.core.structure import Structure

from phononbench_flows.errors import PhononBenchError, problems
from phononbench_flows.harmless import harmless

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Vector = tuple[_Number, _Number, _Number]
_Nothing = Annotated[dict[str, Any] | None, Field(max_length=0)]


class StoredStructureError(PhononBenchError):
    """What a document calls a crystal is none, or more than that; the message names the document and the place."""


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Species(_Plain):
    element: Annotated[str, Field(max_length=16)]
    occu: _Number
    oxidation_state: _Number | None = None
    spin: _Number | None = None

    def species(self) -> Element | Species | DummySpecies:
        if not Element.is_valid_symbol(self.element):
            return DummySpecies(self.element, self.oxidation_state or 0)
        if self.oxidation_state is None and self.spin is None:
            return Element(self.element)
        return Species(self.element, self.oxidation_state, spin=self.spin)


class _Site(_Plain):
    species: list[_Species]
    abc: _Vector
    xyz: _Vector | None = None
    label: str | None = None
    properties: _Nothing = None


class _Lattice(_Plain):
    matrix: tuple[_Vector, _Vector, _Vector]
    pbc: tuple[bool, bool, bool] = (True, True, True)
    # What follows from the matrix is not read.
    a: _Number | None = None
    b: _Number | None = None
    c: _Number | None = None
    alpha: _Number | None = None
    beta: _Number | None = None
    gamma: _Number | None = None
    volume: _Number | None = None


class _Structure(_Plain):
    module: Literal["pymatgen.core.structure"] | None = Field(None, alias="@module")
    class_: Literal["Structure"] | None = Field(None, alias="@class")
    version: str | None = Field(None, alias="@version")
    charge: _Number | None = None
    lattice: _Lattice
    properties: _Nothing = None
    sites: list[_Site]


def stored_structure(plain: Any, name: str) -> Structure:
    """The crystal that a document holds as a dictionary, to the last bit; nothing that it names is imported or called.

    Parameters:
        plain: the dictionary.
        name: the document's id, for messages.

    Raises:
        StoredStructureError: it is no dictionary of a pymatgen Structure, or holds more than numbers and symbols.
    """
    try:
        found = _Structure.model_validate(plain)
        lattice = Lattice(found.lattice.matrix, found.lattice.pbc)
        species = [{each.species(): each.occu for each in site.species} for site in found.sites]
        return Structure(lattice, species, [site.abc for site in found.sites], found.charge)
    except ValidationError as error:
        why = problems(error)
    except ValueError as error:
        why = str(error)
    raise StoredStructureError(f"{name}: what should be its crystal is refused: {harmless(why)}")
