"""OPTIMADE's filters, which the library parses, over the columns of the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from lark import Token, v_args
from lark.exceptions import VisitError
from optimade.exceptions import BadRequest, NotImplementedResponse, OptimadeHTTPException
from optimade.filterparser import LarkParser
from optimade.filtertransformers.base_transformer import BaseTransformer

from phononbench_flows.service.optimade.columns import Column, Truth
from phononbench_flows.service.optimade.properties import column
from phononbench_flows.service.table import Table

LONGEST = 8000
"""Characters of a filter: the time to parse it grows with them, to about a second here."""

_Rest = Callable[[Column], Truth]


def matching(table: Table, text: str, warnings: list[str]) -> np.ndarray:
    """Which rows a filter is true of.

    Parameters:
        warnings: takes a sentence on each property that nobody here knows.

    Raises:
        BadRequest: it is no filter, or compares what cannot be compared.
        NotImplementedResponse: it asks for something that OPTIMADE has, and this server has not.
    """
    if len(text) > LONGEST:
        raise BadRequest(f"A filter may have {LONGEST} characters here.")
    try:
        found = _Answer(table, warnings).transform(_parser().parse(text))
    except VisitError as error:
        if isinstance(error.orig_exc, OptimadeHTTPException):
            raise error.orig_exc from error
        raise
    except RecursionError as error:
        raise BadRequest("The filter has too many brackets within brackets.") from error
    return np.ones(len(table), dtype=bool) if found is None else found.true


@cache
def _parser() -> LarkParser:
    return LarkParser()


class _Answer(BaseTransformer):
    """Replaces each part of a parsed filter by what it says of the rows."""

    def __init__(self, table: Table, warnings: list[str]) -> None:
        super().__init__()
        self.table, self.warnings = table, warnings

    def filter(self, args: list[Truth]) -> Truth | None:
        # The grammar takes filters one after the other, which mean nothing.
        if len(args) > 1:
            raise BadRequest("A filter is one expression: AND or OR is missing between two of them.")
        return args[0] if args else None

    def expression(self, args: list[Truth]) -> Truth:
        found, *others = args
        for other in others:
            found |= other
        return found

    def expression_clause(self, args: list[Truth]) -> Truth:
        found, *others = args
        for other in others:
            found &= other
        return found

    def expression_phrase(self, args: list[Any]) -> Truth:
        return ~args[1] if len(args) > 1 else args[0]

    def property(self, args: list[Token]) -> Column:
        if len(args) > 1:
            raise NotImplementedResponse("Parts of properties, and related entries, cannot be asked for here.")
        return column(str(args[0]), self.warnings)

    @v_args(inline=True)
    def string(self, text: Token) -> str:
        # The library leaves backslashes where they are.
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)

    @v_args(inline=True)
    def number(self, number: Token) -> int | float:
        return _number(number)

    @v_args(inline=True)
    def signed_int(self, number: Token) -> int | float:
        return _number(number)

    @v_args(inline=True)
    def not_implemented_string(self, value: Any) -> Any:
        return self.value(value)

    @v_args(inline=True)
    def value(self, value: Any) -> Any:
        return _constant(value)

    @v_args(inline=True)
    def property_first_comparison(self, known: Column, rest: _Rest) -> Truth:
        return rest(known)

    def constant_first_comparison(self, args: list[Any]) -> Truth:
        value, by, known = args
        if not isinstance(known, Column):
            raise NotImplementedResponse("A comparison has to name a property.")
        return known.compare(self.table, self._reversed_operator_map[by], value)

    @v_args(inline=True)
    def value_op_rhs(self, by: Token, value: Any) -> _Rest:
        return lambda known: known.compare(self.table, str(by), value)

    def known_op_rhs(self, args: list[Token]) -> _Rest:
        wanted = args[-1] == "KNOWN"
        return lambda known: known.known(self.table) if wanted else ~known.known(self.table)

    def fuzzy_string_op_rhs(self, args: list[Any]) -> _Rest:
        return lambda known: known.find(self.table, str(args[0]), args[-1])

    def set_op_rhs(self, args: list[Any]) -> _Rest:
        which = args[1] if isinstance(args[1], Token) else None
        if which is not None and which.type == "OPERATOR":
            raise NotImplementedResponse("HAS with a comparison cannot be asked for here.")
        values = [args[-1]] if which is None else args[-1]
        return lambda known: known.has(self.table, str(which or "ALL"), values)

    def value_list(self, args: list[Any]) -> list[Any]:
        if any(isinstance(each, Token) for each in args):
            raise NotImplementedResponse("Comparisons within a list of values cannot be asked for here.")
        return args

    def length_op_rhs(self, args: list[Any]) -> _Rest:
        by = str(args[1]) if len(args) > 2 else "="
        return lambda known: known.length(self.table, by, args[-1])

    def _correlated(self, args: list[Any]) -> Any:
        del args
        raise NotImplementedResponse("Lists side by side cannot be asked for here.")

    value_zip = value_zip_list = set_zip_op_rhs = property_zip_addon = _correlated


def _number(number: Token) -> int | float:
    try:
        return int(number) if number.type == "SIGNED_INT" else float(number)
    except ValueError as error:
        raise BadRequest("A number has too many digits.") from error


def _constant(value: Any) -> Any:
    if isinstance(value, Column):
        raise NotImplementedResponse("Two properties cannot be compared with each other here.")
    return value
