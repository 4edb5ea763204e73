"""Plain questions as MongoDB filters, which the embedded store and a MongoDB server answer alike."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.stability import filter_at, filter_disputed, filter_published

Scalar = str | float | int | bool
CRYSTAL_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
_CODE = ("$where", "$function", "$accumulator", "$expr")
_JUDGED = (Status.STABLE.value, Status.UNSTABLE.value)


class QueryError(PhononBenchError):
    """A question that cannot be asked; the message is a sentence."""


@dataclass(frozen=True)
class Range:
    """Whole numbers from ``low`` to ``high``, both included; None for no bound."""

    low: int | None
    high: int | None

    @classmethod
    def parse(cls, text: str) -> Range:
        """The range of ``3``, ``2:4``, ``:20`` or ``8:``.

        Raises:
            QueryError: for anything else, and for a range of nothing.
        """
        found = re.fullmatch(r"(\d*)(:?)(\d*)", text)
        low, high = (int(end) if end else None for end in (found[1], found[3])) if found else (None, None)
        if found and not found[2]:
            high = low
        if low is None and high is None:
            raise QueryError(f"{text!r} is no range: one is written 3, 2:4, :20 or 8:")
        if low is not None and high is not None and low > high:
            raise QueryError(f"nothing lies in the range {text!r}")
        return cls(low, high)


@dataclass(frozen=True)
class CrystalQuery:
    """Which crystals are wanted. What is left empty does not matter; what is given has to hold all at once.

    Attributes:
        statuses: any of these.
        sets: names of sets, any of these.
        protocols: protocol ids, any of these.
        all_of: elements that must all be there.
        any_of: elements of which at least one must be there.
        none_of: elements that must not be there.
        only: elements beside which there must be no other.
        nelements: number of elements.
        natoms: number of atoms in the cell as given.
        crystal_systems: of the relaxed crystal, any of these, in lower case.
        space_groups: of the relaxed crystal, numbers or symbols, any of these.
        formulas: any of these, in any order and multiple of the elements.
        reasons: codes of why a crystal was rejected or failed, any of these.
        condition: what the generator was asked for, key by key.
        threshold: with ``stable`` or ``unstable`` among the statuses: as if judged at this threshold, in THz.
        published: ``stable`` or ``unstable`` by the published rule, whatever the protocol.
        has_child: statuses of crystals that it leads to by following its modes, any of these.
        disputed: whether the crystal's verdict and that of the published rule have to be opposites.
        where: a MongoDB filter that has to hold too.
    """

    statuses: Sequence[str] = ()
    sets: Sequence[str] = ()
    protocols: Sequence[str] = ()
    all_of: Sequence[str] = ()
    any_of: Sequence[str] = ()
    none_of: Sequence[str] = ()
    only: Sequence[str] = ()
    nelements: Range | None = None
    natoms: Range | None = None
    crystal_systems: Sequence[str] = ()
    space_groups: Sequence[str | int] = ()
    formulas: Sequence[str] = ()
    reasons: Sequence[str] = ()
    condition: Mapping[str, Scalar] = field(default_factory=dict)
    threshold: float | None = None
    published: str | None = None
    disputed: bool = False
    has_child: Sequence[str] = ()
    where: Mapping[str, Any] | None = None


def criteria(question: CrystalQuery) -> dict[str, Any]:
    """The MongoDB filter of a question.

    Raises:
        QueryError: an unknown status, reason, element, crystal system or space group, a threshold above zero or
            without a verdict to apply it to, or a filter that would run code.
    """
    _refuse_unknown("status", question.statuses, [status.value for status in Status])
    _refuse_unknown("status", question.has_child, [status.value for status in Status])
    _refuse_unknown("reason", question.reasons, [reason.value for reason in Reason])
    _refuse_unknown("crystal system", question.crystal_systems, CRYSTAL_SYSTEMS)
    found: dict[str, Any] = {}
    for name, values in (
        ("set", question.sets),
        ("protocol_id", question.protocols),
        ("reason", question.reasons),
        ("formula_pretty", [reduced_formula(formula) for formula in question.formulas]),
        ("symmetry_relaxed.crystal_system", [system.title() for system in question.crystal_systems]),
        ("family.descendants", question.has_child),
        ("symmetry_relaxed.number", list(dict.fromkeys(map(space_group_number, question.space_groups)))),
    ):
        if values:
            found[name] = _any_of(values)
    for name, wanted in (("nelements", question.nelements), ("nsites", question.natoms)):
        if wanted is not None:
            found[name] = _between(wanted)
    found |= _elements(question) | {f"condition.{key}": value for key, value in question.condition.items()}
    found |= _judged(question.statuses, question.threshold)
    further: list[dict[str, Any]] = []
    if question.published is not None:
        _refuse_unknown("verdict of the published rule", [question.published], _JUDGED)
        further.append(filter_published(question.published))
    if question.disputed:
        further.append(filter_disputed())
    if question.where is not None:
        _refuse_code(question.where)
        further.append(dict(question.where))
    return found | ({"$and": further} if further else {})


def parse_where(text: str) -> dict[str, Any]:
    """The filter of ``--where``.

    Raises:
        QueryError: if it is no JSON object.
    """
    try:
        where = json.loads(text)
        json.dumps(where, ensure_ascii=False).encode()  # half a character, which JSON can spell, no store looks for
        _check_patterns(where)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"the filter is no JSON: {error}") from error
    if not isinstance(where, dict):
        raise QueryError('the filter has to be a JSON object, such as {"nsites": {"$lte": 8}}')
    return where


def _check_patterns(value: Any) -> None:
    """Regular expressions are looked at here: a store meets them only where a document has the field."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        if name == "$regex" and isinstance(item, str):
            try:
                re.compile(item)
            except re.error as error:
                raise QueryError(f"the pattern {item!r} is none: {error}") from error
        _check_patterns(item)


def _judged(statuses: Sequence[str], threshold: float | None) -> dict[str, Any]:
    if threshold is None:
        return {"status": _any_of(statuses)} if statuses else {}
    verdicts = set(statuses).intersection(_JUDGED)
    if not -math.inf < threshold < math.inf:
        raise QueryError(f"a threshold has to be a number, not {threshold:g}")
    if threshold > 0:
        raise QueryError(f"a threshold of {threshold:g} THz makes no sense: imaginary frequencies are negative")
    if len(verdicts) != 1:
        raise QueryError("a threshold needs one verdict to apply to: either stable or unstable")
    [verdict] = verdicts
    again = filter_at(verdict, threshold)
    others = [status for status in statuses if status not in verdicts]
    return {"$or": [again, {"status": _any_of(others)}]} if others else again


def _elements(question: CrystalQuery) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    for operator, symbols in (("$all", question.all_of), ("$in", question.any_of), ("$nin", question.none_of)):
        _refuse_unknown_elements(symbols)
        if symbols:
            conditions[operator] = list(symbols)
    _refuse_unknown_elements(question.only)
    if question.only:
        # "No element that is none of these"; a file that could not be read has no elements at all.
        conditions |= {"$not": {"$elemMatch": {"$nin": list(question.only)}}, "$ne": []}
    return {"elements": conditions} if conditions else {}


def _between(wanted: Range) -> Any:
    if wanted.low == wanted.high:
        return wanted.low
    ends = {"$gte": wanted.low, "$lte": wanted.high}
    return {operator: end for operator, end in ends.items() if end is not None}


def _any_of(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else {"$in": list(values)}


def reduced_formula(formula: str) -> str:
    """A formula as documents have it, with its elements in their order and its numbers reduced.

    Raises:
        QueryError: it is none.
    """
    from pymatgen.core import Composition

    try:
        composition = Composition(formula)
        reduced = composition.reduced_formula
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{formula!r} is no chemical formula") from error
    _refuse_unknown_elements([element.symbol for element in composition])
    return reduced


def space_group_number(group: str | int) -> int:
    """The number of a space group, from its number or symbol.

    Raises:
        QueryError: it is none.
    """
    from pymatgen.symmetry.groups import SpaceGroup, sg_symbol_from_int_number

    text = str(group)
    try:
        number = int(text) if text.isdigit() else SpaceGroup(text).int_number
        sg_symbol_from_int_number(number)
    except ValueError as error:
        raise QueryError(f"{text!r} is no space group: one is written 225 or Fm-3m") from error
    return number


def _refuse_unknown(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise QueryError(f"there is no {what} {name!r}; there are {', '.join(known)}")


def _refuse_unknown_elements(symbols: Sequence[str]) -> None:
    from pymatgen.core import Element

    for symbol in symbols:
        if not Element.is_valid_symbol(symbol):
            raise QueryError(f"there is no element {symbol!r}")


def _refuse_code(where: Any) -> None:
    """Operators that run code on the server, or that the embedded store does not answer as a server would."""
    items = where.items() if isinstance(where, Mapping) else []
    for name, value in items:
        if name in _CODE:
            raise QueryError(f"the filter may not contain {name}")
        _refuse_code(value)
    if isinstance(where, list):
        for value in where:
            _refuse_code(value)
