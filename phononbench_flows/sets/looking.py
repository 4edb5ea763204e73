"""What screening would say of the crystals of a set, before anything is computed or written; no potential is needed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pymatgen.core import Structure

from phononbench_flows.outcomes import COMPUTED, Reason, Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.sets.earlier import Known
from phononbench_flows.sets.identity import crystal_id, source_sha256
from phononbench_flows.steps import CrystalSize, costly_steps
from phononbench_flows.structures import (
    Ignored,
    Parsed,
    RawCrystal,
    Rejection,
    Shape,
    Tolerance,
    check,
    content_hash,
    load_reference,
    originals,
    parse_all,
    read_inputs,
    shape,
)
from phononbench_flows.symmetry import symmetry

ACCEPTED = "accepted"


@dataclass(frozen=True)
class Looked:
    """A crystal as screening sees it.

    Attributes:
        label: what its id in a set would end with.
        source: file, archive member or row.
        formula, natoms: None where it could not be read; of the cell as given.
        space_group: symbol and number at the relaxation's symprec.
        outcome: ``accepted``, ``rejected``, ``duplicate`` or ``known``.
        reason, detail: why it was rejected.
        duplicate_of: label of the crystal that it repeats.
        known_as: name of the crystal of the reference set that it repeats.
    """

    label: str
    source: str
    sha256: str | None
    formula: str | None = None
    natoms: int | None = None
    space_group: str | None = None
    point_group: str | None = None
    outcome: str = ACCEPTED
    reason: Reason | None = None
    detail: str | None = None
    duplicate_of: str | None = None
    known_as: str | None = None

    @property
    def size(self) -> CrystalSize:
        """What its cost is estimated from."""
        return CrystalSize(self.natoms or 0, self.point_group)


def look(
    paths: Sequence[Path],
    protocol: Protocol,
    *,
    elements: Collection[str] | None = None,
    reference: Path | None = None,
    limit: int | None = None,
    ignored: Ignored | None = None,
    on_crystal: Callable[[int], None] = lambda _: None,
) -> list[Looked]:
    """Read and screen crystals, in the order of the inputs.

    Parameters:
        paths: folders, files, archives, tables and lists; see ``read_inputs``.
        elements: symbols that a potential takes; None for any.
        reference: crystals that count as known.
        limit: take only the first so many crystals.
        ignored: counts the files of the input that are no crystals.
        on_crystal: called with the number of crystals done.

    Raises:
        InputError: an input that does not exist or holds no crystals.
    """
    known = load_reference(reference, protocol) if reference else None
    tolerance = Tolerance.of(protocol.screening.same_distance, protocol.relaxation.symprec)
    found: list[Looked] = []
    shapes: defaultdict[str, dict[str, Shape]] = defaultdict(dict)
    for raw, read in parse_all(islice(read_inputs(paths, ignored=ignored), limit)):
        parsed = read.structure if isinstance(read, Parsed) else read
        each = _looked(raw, parsed, protocol, elements)
        if each.outcome == ACCEPTED and isinstance(parsed, Structure):
            group = symmetry(parsed, protocol.relaxation.symprec)
            name = f"{group.symbol} ({group.number})" if group.number else None
            each = replace(each, space_group=name, point_group=group.point_group)
            if known is not None and (same := known.find(parsed, group.number)) is not None:
                each = replace(each, outcome=Status.KNOWN.value, known_as=same)
            else:
                seen = shape(parsed.as_dict(), group.number, content_hash(parsed), tolerance)
                shapes[seen.formula][each.label] = seen
        found.append(each)
        on_crystal(len(found))
    repeated = {label: original for group in shapes.values() for label, original in originals(group, tolerance).items()}
    return [_compared(each, repeated.get(each.label, each.label)) for each in found]


def _looked(
    raw: RawCrystal, parsed: Structure | Rejection, protocol: Protocol, elements: Collection[str] | None
) -> Looked:
    each = Looked(raw.label, raw.source, source_sha256(raw))
    rejection = parsed if isinstance(parsed, Rejection) else check(parsed, protocol.screening, elements)
    if isinstance(parsed, Structure):
        each = replace(each, formula=parsed.composition.reduced_formula, natoms=len(parsed))
    if rejection is None:
        return each
    return replace(each, outcome=Status.REJECTED.value, reason=Reason(rejection.reason), detail=rejection.detail)


def _compared(each: Looked, original: str) -> Looked:
    if original == each.label:
        return each
    return replace(each, outcome=Status.DUPLICATE.value, duplicate_of=original)


def counts(found: Iterable[Looked]) -> dict[str, int]:
    """How many crystals there are of each outcome; all outcomes are named, and they add up to all."""
    counted = Counter(each.outcome for each in found)
    return {name: counted[name] for name in (ACCEPTED, *map(str, (Status.REJECTED, Status.DUPLICATE, Status.KNOWN)))}


def left_to_compute(found: Iterable[Looked], set_name: str, there: Mapping[str, Known]) -> list[Looked]:
    """Accepted crystals of which the store has no result: they are not there, have changed, or are not finished."""
    done = {name: known.sha256 for name, known in there.items() if known.status in COMPUTED}
    return [each for each in found if each.outcome == ACCEPTED and not _is_done(each, set_name, done)]


def _is_done(each: Looked, set_name: str, done: Mapping[str, str | None]) -> bool:
    name = crystal_id(each.label, set_name)
    return name in done and done[name] == each.sha256


def costs(found: Iterable[Looked], protocol: Protocol) -> dict[str, float]:
    """Estimated cost of crystals by step, in evaluations: atoms that go through the potential, each time they do."""
    sizes = [each.size for each in found]
    return {step.name: sum(step.cost(size, protocol) for size in sizes) for step in costly_steps(protocol)}
