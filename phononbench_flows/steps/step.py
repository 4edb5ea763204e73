"""What a step is: one file says all that a step of a calculation needs to be known of.

A step's name is that of its file. From the declaration follow the job of a chunk, the size of chunks, the progress that
is shown, and the columns of tables. A step knows nothing of jobs and of stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel

from phononbench_flows.outcomes import SCREENED

if TYPE_CHECKING:
    import numpy as np
    from pymatgen.core import Structure

    from phononbench_flows.documents import CalculationDocument
    from phononbench_flows.engine.batch import Budget
    from phononbench_flows.engine.trouble import Failure, Found
    from phononbench_flows.potentials import Potential
    from phononbench_flows.protocol import Protocol as JudgingProtocol

Arrays = Mapping[str, "np.ndarray"]


class Together(Protocol):
    """Crystals that are computed together, joined by others at any time, such as an optimizer's batch."""

    @property
    def n_crystals(self) -> int:
        """Crystals on their way."""
        ...

    @property
    def n_atoms(self) -> int:
        """Their atoms."""
        ...

    def has_room(self, natoms: int) -> bool:
        """Whether so many atoms find room beside those on their way; one crystal alone always does."""
        ...

    def add(self, start: Any, tell: Callable[[Found[Any] | Failure], None]) -> None:
        """Take a crystal in; ``tell`` is called with what was found, or why nothing was."""
        ...

    def advance(self) -> None:
        """One step of all crystals on their way."""
        ...


@dataclass(frozen=True)
class CrystalSize:
    """What is known of a crystal before anything is computed: atoms in the cell as given, and its point group."""

    natoms: int
    point_group: str | None = None


@dataclass(frozen=True)
class StepInput:
    """A crystal at a step.

    Attributes:
        document: what was computed so far; a step reads it, and writes to it in ``record`` alone.
        read_structure: gives the crystal as it was read.
        read_arrays: gives the arrays that an earlier step kept under a name.
    """

    document: CalculationDocument
    read_structure: Callable[[], Structure]
    read_arrays: Callable[[str], Arrays]

    @property
    def relaxed(self) -> Structure:
        """The relaxed crystal."""
        from phononbench_flows.structures.stored import stored_structure

        if self.document.relaxed_structure is None:
            raise ValueError(f"{self.document.id} has no relaxed structure")
        return stored_structure(self.document.relaxed_structure, self.document.id)


@dataclass(frozen=True)
class Tools:
    """What a step computes with.

    Attributes:
        protocol: how crystals are judged.
        potential: the loaded potential; None for a step that needs none.
        budget: atoms in one call of the potential; None for the device to decide.
    """

    protocol: JudgingProtocol
    potential: Potential | None = None
    budget: Budget | None = None

    @property
    def loaded(self) -> Potential:
        """The potential, of a step that needs one."""
        if self.potential is None:
            raise ValueError("this step needs a potential")
        return self.potential

    @property
    def model(self) -> Any:
        """The potential's torch-sim model."""
        return self.loaded.model


def check_potential(tools: Tools) -> None:
    """Probe of a step that calls the potential: a healthy crystal is computed."""
    tools.loaded.check()


def value_of(record: str, name: str) -> Callable[[CalculationDocument], Any]:
    """Gives the value of a field of a record of a document, such as that of ``relaxation``; None without the record."""
    return lambda document: getattr(getattr(document, record), name, None)


def lowest_in(place: str) -> Callable[[CalculationDocument], float | None]:
    """Gives the lowest frequency (THz) in a place that was looked at; None where it was not."""
    return lambda document: look.frequency if (look := document.evidence.looks.get(place)) else None


@dataclass(frozen=True)
class Column:
    """A column of results.csv: its name, the value of a document (None: no value), and what it is, with its unit."""

    name: str
    value: Callable[[CalculationDocument], Any]
    description: str


@dataclass(frozen=True)
class Step:
    """One step of a calculation.

    Attributes:
        name: a word, which becomes the ``stage`` of the crystals that have passed it.
        after: name of the step that it follows; ``screened`` for the first.
        resource: ``potential`` for a step that calls the potential (on a GPU where there is one), or ``cpu``.
        cost: what a crystal costs. In evaluations (atoms that go through the potential, each time that they do) if
            it calls the potential; else in any unit of its own.
        compute: gives what is found for a crystal, or a Failure; or is a generator that ends with it, after it has
            yielded lists of cells to compute and was sent lists of what the potential says of them (a ``Dialogue``).
            Of a step with ``together``, gives what is added to that.
        record: writes what was found into the crystal's document; gives the arrays to keep with it, by name.
        probe: computes a known healthy crystal, and raises if that fails: then the machine is broken, not a crystal.
        passed: what those are called that have passed it and wait for the next, such as ``relaxed``.
        columns: what it adds to results.csv, beside the seconds that it took.
        settles: whether what it found decides, and the crystal needs none of the later steps.
        together: gives what computes the crystals together, for a step whose crystals cannot be computed one by one.
        settings: model of its settings in ``Protocol.further_steps``; None for those that have a part of their own.
    """

    name: str
    after: str
    resource: Literal["potential", "cpu"]
    cost: Callable[[CrystalSize, JudgingProtocol], float]
    compute: Callable[[StepInput, Tools], Any]
    record: Callable[[CalculationDocument, Found[Any], JudgingProtocol], Mapping[str, Arrays]]
    probe: Callable[[Tools], None]
    passed: str
    columns: tuple[Column, ...] = ()
    settles: Callable[[CalculationDocument], bool] = lambda _: False
    together: Callable[[Tools, Budget], Together] | None = None
    settings: type[BaseModel] | None = None

    @cached_property
    def all_columns(self) -> tuple[Column, ...]:
        """Its columns, and the seconds that it took."""
        seconds = Column(
            f"{self.name}_seconds",
            lambda document: document.timings.get(self.name),
            f"Time of the step {self.name}, a batch's shared out, in s.",
        )
        return (*self.columns, seconds)


FIRST = SCREENED
"""What the first step comes after."""
