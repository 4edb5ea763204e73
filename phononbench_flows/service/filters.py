"""The filters of an address: what the explorer's table, its counts and its downloads are asked with."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from phononbench_flows.results.query import CrystalQuery, Range
from phononbench_flows.service.selection import chosen, ordered
from phononbench_flows.service.table import Column, Table

Words = Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Field(max_length=50)]
Text = Annotated[str, StringConstraints(max_length=500)]


class Filters(BaseModel):
    """Which crystals are wanted, as ``phononbench query`` asks for them; all that is given has to hold at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: Text = Field("", description="Words that stand in the id or the formula.")
    set: Words = Field([], description="Any of these sets.")
    status: Words = Field([], description="Any of these, such as stable; without it all that are not gone.")
    potential: Words = Field([], description="Any of these potentials.")
    protocol: Words = Field([], description="Any of these protocols, by id or name.")
    elements: Text = Field("", description="Elements that must all be there: O,Ti.")
    any_of: Text = Field("", description="At least one of these elements.")
    none_of: Text = Field("", description="None of these elements.")
    only: Text = Field("", description="No element beside these.")
    nelements: Text = Field("", description="Number of elements: 3, 2:4, :3 or 2:.")
    natoms: Text = Field("", description="Atoms in the cell as given, in the same way.")
    crystal_system: Words = Field([], description="Of the relaxed crystal, such as cubic.")
    space_group: Words = Field([], description="Of the relaxed crystal, 225 or Fm-3m.")
    formula: Words = Field([], description="Such as SrTiO3.")
    reason: Words = Field([], description="Codes of why a crystal was rejected or failed.")
    published: Literal["", "stable", "unstable"] = Field("", description="By the published rule.")
    disputed: bool = Field(False, description="Only where the verdict is the opposite of the published rule's.")
    sort: Column = Field("id", description="Column to sort by.")
    down: bool = Field(False, description="Whether in descending order.")

    def question(self) -> CrystalQuery:
        """The filters as a question.

        Raises:
            QueryError: a range that is none.
        """
        return CrystalQuery(
            statuses=self.status,
            sets=self.set,
            protocols=self.protocol,
            all_of=_symbols(self.elements),
            any_of=_symbols(self.any_of),
            none_of=_symbols(self.none_of),
            only=_symbols(self.only),
            nelements=Range.parse(self.nelements) if self.nelements else None,
            natoms=Range.parse(self.natoms) if self.natoms else None,
            crystal_systems=self.crystal_system,
            space_groups=self.space_group,
            formulas=self.formula,
            reasons=self.reason,
            published=self.published or None,
            disputed=self.disputed,
        )


class PageOf(Filters):
    """Filters, and which page of what they let through."""

    page: int = Field(1, ge=1, le=1_000_000, description="Number of the page, from 1.")
    per_page: int = Field(50, ge=1, le=500, description="Rows of a page.")


class Selector:
    """Finds rows of a table; asked for the next page, it does not look again."""

    def __init__(self) -> None:
        self._rows = lru_cache(maxsize=64)(self._find)
        self._table = Table()

    def rows(self, table: Table, filters: Filters) -> np.ndarray:
        """Numbers of the rows that pass the filters, in order.

        Raises:
            QueryError: a filter that is none.
        """
        if table is not self._table:
            self._table = table
            self._rows.cache_clear()
        return self._rows(filters.model_dump_json(include=set(Filters.model_fields)))

    def _find(self, text: str) -> np.ndarray:
        table, filters = self._table, Filters.model_validate_json(text)
        mask = chosen(table, filters.question(), filters.q, tuple(filters.potential))
        return ordered(table, mask, filters.sort, down=filters.down)


def _symbols(text: str) -> list[str]:
    return [symbol for part in text.split(",") if (symbol := part.strip())]
