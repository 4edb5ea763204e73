"""How the columns of the table answer OPTIMADE's comparisons. What they cannot answer is refused, never guessed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import numpy as np
from optimade.exceptions import BadRequest, NotImplementedResponse

from phononbench_flows.service.table import Table, element_bits, symbols

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
FOUND: dict[str, Callable[[str, str], bool]] = {
    "CONTAINS": str.__contains__,
    "STARTS": str.startswith,
    "ENDS": str.endswith,
}


@dataclass(frozen=True)
class Truth:
    """Of which rows a filter is true and of which it is false; of the others it is unknown, and so is its opposite."""

    true: np.ndarray
    false: np.ndarray

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.true & other.true, self.false | other.false)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.true | other.true, self.false & other.false)

    def __invert__(self) -> Truth:
        return Truth(self.false, self.true)


class Column:
    """A property of all rows."""

    def value(self, table: Table, place: int) -> Any:
        """What a row has; None where it is unknown."""
        raise NotImplementedError

    def known(self, table: Table) -> Truth:
        """Which rows have a value."""
        raise NotImplementedError

    def compare(self, table: Table, by: str, value: Any) -> Truth:  # noqa: ARG002
        """Rows by ``=``, ``<`` and so on."""
        raise BadRequest("This property is a list, which is asked for by HAS or LENGTH.")

    def find(self, table: Table, how: str, value: Any) -> Truth:  # noqa: ARG002
        """Rows by parts of their text."""
        raise BadRequest("CONTAINS, STARTS WITH and ENDS WITH are asked of properties that are text.")

    def has(self, table: Table, which: str, values: Sequence[Any]) -> Truth:  # noqa: ARG002
        """Rows by items of their list: ``ALL`` of these, ``ANY``, or ``ONLY`` these."""
        raise BadRequest("HAS is asked of properties that are lists.")

    def length(self, table: Table, by: str, value: int) -> Truth:  # noqa: ARG002
        """Rows by the length of their list."""
        raise BadRequest("LENGTH is asked of properties that are lists.")


@dataclass(frozen=True)
class Texts(Column):
    """Text. ``of`` gives what texts there are, each once or never asked for twice, and which of them each row has."""

    of: Callable[[Table], tuple[Sequence[str | None], np.ndarray]]
    read: Callable[[str], str] | None = None

    def value(self, table: Table, place: int) -> str | None:
        """See :class:`Column`."""
        texts, codes = self.of(table)
        text = texts[int(codes[place])]
        return text if text is None or self.read is None else self.read(text)

    def known(self, table: Table) -> Truth:
        """See :class:`Column`."""
        found = self._where(table, lambda _: True)
        return Truth(found.true, ~found.true)

    def compare(self, table: Table, by: str, value: Any) -> Truth:
        """See :class:`Column`."""
        wanted, compared = _text(value), COMPARED[by]
        return self._where(table, lambda text: compared(text, wanted))

    def find(self, table: Table, how: str, value: Any) -> Truth:
        """See :class:`Column`."""
        wanted, found = _text(value), FOUND[how]
        return self._where(table, lambda text: found(text, wanted))

    def _where(self, table: Table, test: Callable[[str], bool]) -> Truth:
        texts, codes = self.of(table)
        read = self.read or str
        known = np.fromiter((text is not None for text in texts), bool, len(texts))
        true = np.fromiter((text is not None and test(read(text)) for text in texts), bool, len(texts))
        return Truth(true[codes], (known & ~true)[codes])


class Keys(Texts):
    """Keys of the rows. Clients ask for many of them in one filter: equality is answered without looking at all."""

    def __init__(self) -> None:
        super().__init__(lambda table: (table.keys, np.arange(len(table))))

    def compare(self, table: Table, by: str, value: Any) -> Truth:
        """See :class:`Column`."""
        if by not in {"=", "!="}:
            return super().compare(table, by, value)
        true = np.zeros(len(table), dtype=bool)
        place = table.places.get(_text(value))
        if place is not None:
            true[place] = True
        return Truth(true, ~true) if by == "=" else Truth(~true, true)


@dataclass(frozen=True)
class Numbers(Column):
    """Numbers, not a number where there is none; whole ones unless told otherwise."""

    of: Callable[[Table], np.ndarray]
    whole: bool = True

    def value(self, table: Table, place: int) -> float | None:
        """See :class:`Column`."""
        found = self.of(table)[place]
        if np.isnan(found):
            return None
        return int(found) if self.whole else float(found)

    def known(self, table: Table) -> Truth:
        """See :class:`Column`."""
        unknown = np.isnan(self.of(table))
        return Truth(~unknown, unknown)

    def compare(self, table: Table, by: str, value: Any) -> Truth:
        """See :class:`Column`."""
        if not isinstance(value, int | float):
            raise BadRequest(f"This property is a number, and {value!r} is none.")
        values = self.of(table)
        try:
            true = COMPARED[by](values, float(value))
        except OverflowError as error:
            raise BadRequest("A number has too many digits.") from error
        known = ~np.isnan(values)
        return Truth(true & known, known & ~true)


class Times(Numbers):
    """Moments, in seconds since 1970, of which whole seconds are told."""

    def value(self, table: Table, place: int) -> Any:
        """See :class:`Column`."""
        seconds = super().value(table, place)
        return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"

    def compare(self, table: Table, by: str, value: Any) -> Truth:
        """See :class:`Column`."""
        try:
            moment = datetime.fromisoformat(_text(value))
        except ValueError as error:
            raise _no_moment(value) from error
        if moment.tzinfo is None:
            raise _no_moment(value)
        return super().compare(table, by, moment.timestamp())


@dataclass(frozen=True)
class Lengths(Column):
    """Lists that are not in the table, but for their lengths."""

    lengths: Numbers

    def known(self, table: Table) -> Truth:
        """See :class:`Column`."""
        return self.lengths.known(table)

    def has(self, table: Table, which: str, values: Sequence[Any]) -> Truth:
        """See :class:`Column`."""
        del table, which, values
        raise NotImplementedResponse("Of this list, only its LENGTH can be asked for here.")

    def length(self, table: Table, by: str, value: int) -> Truth:
        """See :class:`Column`."""
        return self.lengths.compare(table, by, value)


class Elements(Lengths):
    """Symbols of elements, each known to occur or not; the length is that of the list that has them."""

    def value(self, table: Table, place: int) -> list[str]:
        """See :class:`Column`."""
        low, high = (int(bits[place]) for bits in table.elements)
        return symbols(low, high)

    def has(self, table: Table, which: str, values: Sequence[Any]) -> Truth:
        """See :class:`Column`."""
        texts = [_text(value) for value in values]
        known = [text for text in texts if symbols(*element_bits([text])) == [text]]
        pairs = [(bits, np.uint64(wanted)) for bits, wanted in zip(table.elements, element_bits(known), strict=True)]
        if which == "ALL":
            true = np.full(len(table), len(known) == len(texts))
            for bits, wanted in pairs:
                true &= (bits & wanted) == wanted
        elif which == "ANY":
            true = np.logical_or(*((bits & wanted) != 0 for bits, wanted in pairs))
        else:
            true = self.lengths.compare(table, ">", 0).true
            for bits, wanted in pairs:
                true &= (bits & ~wanted) == 0
        unknown = self.known(table).false
        return Truth(true & ~unknown, ~true & ~unknown)


@dataclass(frozen=True)
class Same(Column):
    """A list that is the same in all rows."""

    items: tuple[Any, ...]

    def value(self, table: Table, place: int) -> list[Any]:
        """See :class:`Column`."""
        del table, place
        return list(self.items)

    def known(self, table: Table) -> Truth:
        """See :class:`Column`."""
        return _everywhere(table, true=True)

    def has(self, table: Table, which: str, values: Sequence[Any]) -> Truth:
        """See :class:`Column`."""
        among, wanted = set(self.items), set(values)
        if which == "ALL":
            true = wanted <= among
        elif which == "ANY":
            true = bool(wanted & among)
        else:
            true = bool(among) and among <= wanted
        return _everywhere(table, true=true)

    def length(self, table: Table, by: str, value: int) -> Truth:
        """See :class:`Column`."""
        return _everywhere(table, true=COMPARED[by](len(self.items), value))


class Unknown(Column):
    """A property that no row has a value of."""

    def value(self, table: Table, place: int) -> None:
        """See :class:`Column`."""

    def known(self, table: Table) -> Truth:
        """See :class:`Column`."""
        return _everywhere(table, true=False)

    def _nothing(self, table: Table, *_: Any, **__: Any) -> Truth:
        nowhere = np.zeros(len(table), dtype=bool)
        return Truth(nowhere, nowhere)

    compare = find = has = length = _nothing


class NotAsked(Column):
    """A property that is told, but that nothing can be asked of."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedResponse("Filters cannot ask for this property here.")

    known = compare = find = has = length = _refuse


def _everywhere(table: Table, *, true: bool) -> Truth:
    return Truth(np.full(len(table), true), np.full(len(table), not true))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest(f'This property is text, which is written in quotation marks: "{value}".')
    return value


def _no_moment(value: Any) -> BadRequest:
    return BadRequest(f'{value!r} is no moment: one is written "2026-01-31T12:00:00Z".')
