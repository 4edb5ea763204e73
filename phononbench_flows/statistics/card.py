"""The card of a set: what the field asks of a generator, as counts, rates with intervals, and the cost of a hit.

A *hit* is a crystal that is near the hull, unique and novel (S.U.N.), or all of these and dynamically stable
(D-S.U.N.). Whether a crystal is one can be asked only in chemical systems that have a hull. The rate of hits is that
among all crystals of such systems, whatever became of them: what could not be asked is neither a hit nor a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from phononbench_flows.statistics.corrected import CorrectedRate
from phononbench_flows.statistics.rates import Rate, wilson

ON_HULL = 0.001
"""On the hull, in eV per atom: what relaxations of the same crystal may differ by."""

NEAR_HULL = 0.1
"""Near the hull, in eV per atom, unless asked otherwise: as MatterGen's authors count (Nature 639, 624 (2025))."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a finished crystal.

    Attributes:
        usable: whether it could be computed; a duplicate could have been.
        tried: whether its relaxation was tried.
        relaxed: whether it came to rest.
        unique: whether it repeats no other one of its set, as generated or relaxed.
        novel: whether it repeats none of the reference set; None if it was not compared with one.
        has_hull: whether its chemical system has one; None if its elements are not known.
        above_hull: energy above the hull, in eV per atom; None if it was not relaxed, or there is no hull.
        clean: whether the published rule calls it stable; None if its phonons were not computed.
        stable: whether its own verdict is stable; undecided is not.
        seconds: that it took to compute.
        bare_hull: whether its hull is that of the elements alone.
    """

    usable: bool
    tried: bool
    relaxed: bool
    unique: bool
    novel: bool | None
    has_hull: bool | None
    above_hull: float | None
    clean: bool | None
    stable: bool
    seconds: float
    bare_hull: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a card: a rate, and of what it is one; ``note`` says why there is none."""

    name: str
    title: str
    of: str
    rate: Rate
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the device for each crystal of a kind, with the interval that the rate leaves open.

    Attributes:
        title: of which kind.
        seconds: for all crystals, hits or not.
        hits: crystals of the kind.
        each: seconds for a hit; None without any.
        low, high: ends of the interval; ``high`` is None where the rate may be zero.
    """

    title: str
    seconds: float
    hits: int
    each: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Card:
    """The numbers of a set.

    Attributes:
        crystals: finished crystals, with those generated and not handed in.
        pending: not finished; they are in no rate.
        no_hull: relaxed crystals in a chemical system without a hull.
        bare_hull: relaxed crystals over a hull of the elements alone, which the true one may lie far below.
        near_hull: tolerance in eV per atom.
        lines: by name.
        costs: of a stable crystal, and of a D-S.U.N. one.
    """

    crystals: int
    pending: int
    no_hull: int
    bare_hull: int
    near_hull: float
    lines: dict[str, Line]
    costs: list[Cost]


def card(
    facts: Sequence[Facts],
    *,
    pending: int = 0,
    not_handed_in: int = 0,
    near_hull: float = NEAR_HULL,
    verdict: str,
    corrected: CorrectedRate | None = None,
) -> Card:
    """The card of a set.

    Args:
        facts: of its finished crystals.
        pending: crystals that are not finished.
        not_handed_in: crystals generated and not handed in, which count as no hit.
        near_hull: tolerance in eV per atom.
        verdict: by what crystals have their own verdict, for people.
        corrected: its rate per relaxed crystal, corrected by what is confirmed; None where nothing is.
    """
    relaxed = [each for each in facts if each.relaxed]
    placed = [each for each in relaxed if each.above_hull is not None]
    compared = [each for each in facts if each.unique and each.novel is not None]
    usable = [each for each in facts if each.usable]
    asked = [each for each in facts if each.has_hull is not False] if placed and compared else []
    near = f"near the hull ({near_hull:g} eV per atom)"
    without = None if placed else "no hull"
    no_sun = without or (None if compared else "no reference set")

    def hits(name: str, title: str, wanted: Callable[[Facts], bool | None]) -> Line:
        found = _share(asked, wanted, not_handed_in if asked else 0)
        return Line(name, title, "all, of systems with a hull", found, no_sun)

    def close(each: Facts) -> bool:
        return is_near(each, near_hull)

    def sun(each: Facts) -> bool:
        return each.unique and bool(each.novel) and close(each)

    total = len(facts) + not_handed_in
    lines = [
        Line("usable", "usable", "generated", wilson(len(usable), total)),
        Line("survived", "survive relaxation", "tried", _share(facts, lambda f: f.relaxed, of=_tried)),
        Line("unique", "unique", "usable", _share(usable, lambda f: f.unique)),
        Line("novel", "novel", "unique, compared", _share(compared, lambda f: f.novel), _no_novelty(compared)),
        Line("on_hull", "on the hull", "relaxed, with a hull", _share(placed, _is_on), without),
        Line("near_hull", near, "relaxed, with a hull", _share(placed, lambda f: is_near(f, near_hull)), without),
        Line("by_rule", "stable, published rule", "relaxed", _share(relaxed, _clean)),
        Line("by_verdict", f"stable, {verdict}", "relaxed", _share(relaxed, _stable)),
        _corrected(corrected),
        hits("sun", "S.U.N.", sun),
        hits("dsun_by_rule", "D-S.U.N., published rule", lambda f: sun(f) and _clean(f)),
        hits("dsun", f"D-S.U.N., {verdict}", lambda f: sun(f) and f.stable),
    ]
    named = {line.name: line for line in lines}
    costs = [_cost("a dynamically stable crystal", facts, sum(map(_stable, relaxed)))]
    if named["dsun"].note is None:
        costs.append(_cost("a D-S.U.N. crystal", asked, named["dsun"].rate.count))
    bare = sum(each.bare_hull for each in placed)
    return Card(total, pending, len(relaxed) - len(placed), bare, near_hull, named, costs)


def _corrected(found: CorrectedRate | None) -> Line:
    """The corrected rate; its count is that of the crystals which are confirmed."""
    name, title = "by_dft", "stable, corrected by DFT"
    if found is None or found.rate is None:
        why_not = found.why_not if found else None
        return Line(name, title, "relaxed", wilson(0, 0), why_not or "none confirmed")
    rate = Rate(found.confirmed, found.raw.total, found.rate, found.interval)
    return Line(name, title, "relaxed, so many confirmed", rate)


def is_near(facts: Facts, near_hull: float) -> bool:
    """Whether a crystal lies near the hull; one without a hull does not."""
    return facts.above_hull is not None and facts.above_hull <= near_hull


def _is_on(facts: Facts) -> bool:
    return is_near(facts, ON_HULL)


def _clean(facts: Facts) -> bool:
    return bool(facts.clean)


def _stable(facts: Facts) -> bool:
    return facts.stable


def _tried(facts: Facts) -> bool:
    return facts.tried


def _no_novelty(compared: Sequence[Facts]) -> str | None:
    return None if compared else "no reference set"


def _share(
    facts: Iterable[Facts],
    wanted: Callable[[Facts], bool | None],
    more: int = 0,
    of: Callable[[Facts], bool] = lambda _: True,
) -> Rate:
    """The share of those that are wanted among those of a kind, and ``more`` that are not wanted."""
    counted = [each for each in facts if of(each)]
    return wilson(sum(bool(wanted(each)) for each in counted), len(counted) + more)


def _cost(title: str, facts: Sequence[Facts], hits: int) -> Cost:
    seconds = sum(each.seconds for each in facts)
    rate = wilson(hits, len(facts))
    if rate.interval is None:
        return Cost(title, seconds, hits, None, None, None)
    low, high = rate.interval.low * len(facts), rate.interval.high * len(facts)
    return Cost(title, seconds, hits, seconds / hits if hits else None, seconds / high, seconds / low if low else None)
