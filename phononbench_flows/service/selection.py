"""Filters of the explorer's table: the questions of ``phononbench query``, answered from the columns in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phononbench_flows.outcomes import Status
from phononbench_flows.results.query import CrystalQuery, Range, criteria, reduced_formula, space_group_number
from phononbench_flows.service.table import Table, element_bits
from phononbench_flows.stability import Stability, is_clean


def chosen(table: Table, question: CrystalQuery, words: str = "", potentials: tuple[str, ...] = ()) -> np.ndarray:
    """Which rows a question asks for; those of crystals that are gone only if it asks for them.

    Parameters:
        words: each of them has to stand in the id or the formula.
        potentials: names of potentials, any of these.

    Raises:
        QueryError: as for ``criteria``.
    """
    criteria(question)  # what is wrong with the question is said there
    mask = np.ones(len(table), dtype=bool)
    for column, wanted in (
        ("set", question.sets),
        ("status", question.statuses),
        ("reason", question.reasons),
        ("system", question.crystal_systems),
        ("formula", [reduced_formula(text) for text in question.formulas]),
        ("potential", potentials),
    ):
        if wanted:
            mask &= _among(table, column, wanted)
    if question.protocols:
        mask &= _among(table, "protocol_id", question.protocols) | _among(table, "protocol", question.protocols)
    if not question.statuses:
        mask &= ~_among(table, "status", [Status.GONE.value])
    if question.space_groups:
        mask &= np.isin(table.numbers["space_group"], [space_group_number(each) for each in question.space_groups])
    for column, between in (("natoms", question.natoms), ("nelements", question.nelements)):
        if between is not None:
            mask &= _between(table.numbers[column], between)
    mask &= _elements(table, question)
    if question.published or question.disputed:
        mask &= _published(table, question)
    for word in words.lower().split():
        mask &= np.fromiter((word in text for text in table.searched), dtype=bool, count=len(table))
    return mask


def ordered(table: Table, mask: np.ndarray, column: str = "id", *, down: bool = False) -> np.ndarray:
    """Numbers of the chosen rows in the order of a column; those without a value come last both ways."""
    rows = table.order(column)
    rows = rows[mask[rows]]
    if not down:
        return rows
    empty = table.missing(column)[rows]
    return np.concatenate([rows[~empty][::-1], rows[empty]])


def counts(table: Table, mask: np.ndarray, column: str) -> dict[str, int]:
    """Number of the chosen rows for every text of a column."""
    found = np.bincount(table.codes[column][mask], minlength=1)
    texts = table.words[column].texts
    return {str(texts[code]): int(number) for code, number in enumerate(found) if number and texts[code] is not None}


def tally(table: Table, columns: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    """Number of the rows for every combination of texts that these columns have."""
    together, numbers = np.unique(np.stack([table.codes[name] for name in columns]), axis=1, return_counts=True)
    texts = [table.words[name].texts for name in columns]
    rows = [tuple(str(texts[i][code]) for i, code in enumerate(codes)) for codes in together.T.tolist()]
    return list(zip(rows, numbers.tolist(), strict=True))


def _among(table: Table, column: str, wanted: Sequence[str]) -> np.ndarray:
    known = [table.words[column].known(text) for text in wanted]
    codes = table.codes[column]
    return codes == known[0] if len(known) == 1 else np.isin(codes, known)


def _between(values: np.ndarray, wanted: Range) -> np.ndarray:
    mask = values >= (0 if wanted.low is None else wanted.low)
    return mask if wanted.high is None else mask & (values <= wanted.high)


def _elements(table: Table, question: CrystalQuery) -> np.ndarray:
    mask = np.ones(len(table), dtype=bool)
    any_of, none_of = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
    there = np.zeros(len(table), dtype=bool)
    parts = zip(table.elements, *map(element_bits, (question.all_of, question.any_of, question.none_of, question.only)))  # noqa: B905
    for bits, all_bits, any_bits, none_bits, only_bits in parts:
        mask &= (bits & np.uint64(all_bits)) == np.uint64(all_bits)
        any_of |= (bits & np.uint64(any_bits)) != 0
        none_of |= (bits & np.uint64(none_bits)) != 0
        there |= bits != 0
        if question.only:
            mask &= (bits & ~np.uint64(only_bits)) == 0
    mask &= ~none_of
    if question.any_of:
        mask &= any_of
    return mask & there if question.only else mask


def _published(table: Table, question: CrystalQuery) -> np.ndarray:
    judged = _among(table, "status", [each.value for each in Stability]) & ~np.isnan(table.numbers["path"])
    stable = is_clean(table.numbers["path"])
    mask = judged.copy()
    if question.published:
        mask &= stable if question.published == Stability.STABLE else ~stable
    if question.disputed:
        own = [_among(table, "status", [each.value]) for each in (Stability.STABLE, Stability.UNSTABLE)]
        mask &= (own[0] & ~stable) | (own[1] & stable)
    return mask
