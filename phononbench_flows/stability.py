"""From evidence to an assessment: the one place where a frequency meets a threshold.

Whoever needs to know whether a crystal is stable asks here: the steps that conclude a calculation, queries, tables, the
curve over thresholds, bundles, exports, and the page of a report. Everything is pure, and plain JSON.

Frequencies and thresholds are in THz, imaginary frequencies negative; q-points in reciprocal lattice units of the
primitive cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from phononbench_flows.protocol import Judgement

if TYPE_CHECKING:
    import numpy as np

MINIMUM = "minimum.frequency"
"""Where a document keeps the lowest frequency that fixed thresholds are held against."""

PATH_MINIMUM = "evidence.looks.path.frequency"
"""Where a document keeps the lowest frequency on the path, which the published rule is held against."""

PUBLISHED = (-1e-3, -0.1)
"""Thresholds of the published rule, unstable below them on the interpolated path: of the paper's first and third
version, in THz."""

CURED = "cured"
"""The look at path and mesh by the interpolation that the free cures were applied to."""

EXACT, ELASTIC = "exact", "elastic"
"""What decides by exact frequencies: the lowest of all of them, and the limit of long waves."""

_NO_WAVES = "elastic constants, for the limit of long waves"
_NO_NUMBER = "frequencies that are not numbers cannot be judged"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=True)


class Stability(StrEnum):
    """What can be said of a crystal whose phonons were computed."""

    STABLE = "stable"
    UNSTABLE = "unstable"
    UNDECIDED = "undecided"


class Look(_Part):
    """The lowest frequency over the q-points that were looked at in one place."""

    frequency: float = Field(description="Lowest frequency, in THz, imaginary as negative.")
    q: list[float] = Field(description="Its q-point, in reciprocal lattice units of the primitive cell, shape (3,).")
    n_q: int = Field(description="Number of q-points looked at.")
    exact: bool = Field(description="Whether nothing is interpolated there.")
    at_most: bool = Field(
        False, description="Whether the frequency proved the crystal unstable, and lower ones were not looked for."
    )


class ExactLook(_Part):
    """The lowest mode at a q-point that a supercell holds: nothing is interpolated there."""

    q: list[float] = Field(description="In reciprocal lattice units of the primitive cell, shape (3,).")
    frequency: float = Field(description="Lowest frequency there, in THz, imaginary as negative.")
    interpolated: float | None = Field(None, description="What interpolation said of it before, in THz.")
    label: str | None = Field(None, description="Name of the point, or of the two that it lies in the middle of.")
    how: Literal["supercell", "displacements", "davidson", "proof"] = Field(
        description="By the first supercell's force constants; or in the smallest cell that holds the q-point, by all "
        "of its displacements, by displacements along modes alone, or along one that proves instability: the lowest "
        "mode lies below it."
    )
    natoms: int = Field(description="Atoms in the cell that held it.")
    evaluations: int = Field(0, description="Atoms that went through the potential for it.")


class ElasticLook(_Part):
    """The limit of long waves, from relaxed-ion elastic constants."""

    lowest: float = Field(description="Lowest eigenvalue of the Christoffel matrix over all directions, in GPa.")
    slope: float = Field(
        description="Frequency over wave number (1/wavelength) there, in THz Å, imaginary as negative."
    )
    direction: list[float] = Field(description="Unit vector of that direction, cartesian, shape (3,).")
    born_stable: bool = Field(description="Whether all eigenvalues of the elastic tensor are positive.")
    noise: float = Field(description="Eigenvalues that differ by less are the same, in GPa.")


class Evidence(_Part):
    """What is known of a crystal's frequencies."""

    looks: dict[str, Look] = Field(
        default_factory=dict,
        description="By where was looked: `path`, `mesh` and `commensurate`, or what a further step calls its place.",
    )
    exact: list[ExactLook] = Field(default_factory=list, description="Where exact frequencies were computed.")
    elastic: ElasticLook | None = Field(None, description="The limit of long waves, if it was looked at.")
    dimension: int | None = Field(
        None, description="Directions in which the crystal goes on without a gap that the potential cannot see across."
    )
    noise: float | None = Field(None, description="Frequencies that differ by less are the same, in THz, if known.")
    noise_from: dict[str, float] = Field(
        default_factory=dict, description="What the noise is the largest of, by where it was found, in THz."
    )
    amplitudes: dict[str, float] = Field(
        default_factory=dict,
        description="Frequency of the lowest exact mode, if it is low, by the largest displacement of an atom along it "
        "in Å, in THz.",
    )
    not_looked_at: list[str] = Field(default_factory=list, description="What would have to be looked at, and was not.")

    def with_looks(self, looks: Mapping[str, Look]) -> Evidence:
        """The same evidence and more; a place that was looked at before counts as it was seen last."""
        missing = [place for place in self.not_looked_at if place not in looks]
        return self.model_copy(update={"looks": {**self.looks, **looks}, "not_looked_at": missing})


class Assessment(_Part):
    """What the evidence says at one threshold."""

    stability: Stability = Field(description="stable, unstable or undecided.")
    threshold: float = Field(description="Unstable if the frequency that decides lies below this, in THz.")
    where: str | None = Field(None, description="Where was looked for the evidence that decided; none if undecided.")
    next: list[str] = Field(default_factory=list, description="Where to look next if undecided.")
    marginal: bool = Field(False, description="Whether it is undecided since the lowest mode is zero within the noise.")
    fixed: bool = Field(True, description="Whether the threshold is the protocol's, and not the crystal's own noise.")


def is_imaginary(frequencies: Any, threshold: float) -> Any:
    """Whether a frequency counts as imaginary, or which of an array do: the comparison that all others are made of."""
    return frequencies < threshold


def assess(evidence: Evidence, judgement: Judgement) -> list[Assessment]:
    """The assessment that decides, and those that are recorded beside it.

    By one kind of q-points: one for each threshold of the judgement. By exact frequencies: one against the noise, then
    those of the path for each threshold, which are the published rule's.

    Raises:
        ValueError: a frequency is not a number; that is a failure, never a verdict.
    """
    if judgement.q_points == EXACT:
        return [_assess_exact(evidence), *(_assess(evidence, "path", each) for each in judgement.thresholds)]
    return [_assess(evidence, judgement.q_points, threshold) for threshold in judgement.thresholds]


def _assess(evidence: Evidence, place: str, threshold: float) -> Assessment:
    look = evidence.looks.get(place)
    if look is None:
        return Assessment(stability=Stability.UNDECIDED, threshold=threshold, next=[place])
    if math.isnan(look.frequency):
        raise ValueError(_NO_NUMBER)
    unstable = is_imaginary(look.frequency, threshold)
    return Assessment(stability=Stability.UNSTABLE if unstable else Stability.STABLE, threshold=threshold, where=place)


def published(evidence: Evidence) -> dict[float, Stability]:
    """What the published rule says of a crystal, by its thresholds in THz; empty where the path was not looked at."""
    look = evidence.looks.get("path")
    return {} if look is None else published_at(look.frequency)


def published_at(frequency: float) -> dict[float, Stability]:
    """What the published rule says where this is the lowest frequency on the path, by its thresholds; all in THz."""
    return {
        threshold: Stability.UNSTABLE if is_imaginary(frequency, threshold) else Stability.STABLE
        for threshold in PUBLISHED
    }


def is_clean(frequencies: Any) -> Any:
    """Which lowest frequencies, in THz, the published rule calls stable at its first threshold; an unknown one not."""
    import numpy as np

    values = np.asarray(frequencies, dtype=float)
    return np.isfinite(values) & ~is_imaginary(values, PUBLISHED[0])


def _assess_exact(evidence: Evidence) -> Assessment:
    """Unstable by an exact mode, or a wave's limit, beyond the noise; stable where all was looked at and is clean."""
    noise = evidence.noise or 0.0
    look, elastic = evidence.looks.get(EXACT), evidence.elastic
    if look is None:
        missing = evidence.not_looked_at or [EXACT]
        return Assessment(fixed=False, stability=Stability.UNDECIDED, threshold=-noise, next=missing)
    numbers = [look.frequency, noise, *evidence.amplitudes.values(), *([elastic.lowest] if elastic else [])]
    if any(map(math.isnan, numbers)):
        raise ValueError(_NO_NUMBER)
    changes_sign = len({math.copysign(1, each) for each in (look.frequency, *evidence.amplitudes.values())}) > 1
    if is_imaginary(look.frequency, -noise) and not changes_sign:
        return Assessment(fixed=False, stability=Stability.UNSTABLE, threshold=-noise, where=EXACT)
    if elastic is not None and is_imaginary(elastic.lowest, -elastic.noise):
        return Assessment(fixed=False, stability=Stability.UNSTABLE, threshold=-noise, where=ELASTIC)
    missing = [*evidence.not_looked_at, *([] if elastic is not None else [_NO_WAVES])]
    if missing:
        return Assessment(fixed=False, stability=Stability.UNDECIDED, threshold=-noise, next=missing)
    marginal = changes_sign or look.frequency <= noise or (elastic is not None and elastic.lowest <= elastic.noise)
    if marginal:
        return Assessment(fixed=False, stability=Stability.UNDECIDED, threshold=-noise, marginal=True)
    return Assessment(fixed=False, stability=Stability.STABLE, threshold=-noise, where=EXACT)


def label_of(evidence: Evidence, judgement: Judgement) -> Stability:
    """What the force constants of one supercell say where nothing else can be computed, as those of DFT.

    As the protocol judges; but where it decides by exact frequencies, what was not looked at counts as clean if the
    q-points that the supercell holds are, and the cured interpolation between them too.
    """
    first = assess(evidence, judgement)[0]
    held, cured = evidence.looks.get(EXACT), evidence.looks.get(CURED)
    if judgement.q_points != EXACT or first.stability != Stability.UNDECIDED or held is None or cured is None:
        return Stability(first.stability)
    noise = evidence.noise or 0.0
    clean = held.frequency > noise and not is_imaginary(cured.frequency, -noise) and not first.marginal
    return Stability.STABLE if clean else Stability.UNDECIDED


def labelled(frequency: float, threshold: float) -> Stability:
    """What a lowest frequency that others computed says at a threshold of theirs; both in THz."""
    if math.isnan(frequency):
        raise ValueError(_NO_NUMBER)
    return Stability.UNSTABLE if is_imaginary(frequency, threshold) else Stability.STABLE


def thresholded(evidence: Evidence, judgement: Judgement) -> Look | None:
    """The look that fixed thresholds are held against."""
    return evidence.looks.get(threshold_place(judgement))


def threshold_place(judgement: Judgement) -> Literal["path", "commensurate", "mesh"]:
    """Where fixed thresholds look: where the protocol looks, and on the path where exact frequencies decide."""
    return "path" if judgement.q_points == "exact" else judgement.q_points


def decisive(evidence: Evidence, assessment: Assessment) -> Look | None:
    """The look that decided, the lowest exact one beside elastic constants; None if nothing did."""
    place = EXACT if assessment.where == ELASTIC else assessment.where
    return None if place is None else evidence.looks.get(place)


def count_imaginary(frequencies: np.ndarray, threshold: float) -> int:
    """Number of modes that count as imaginary."""
    return int(is_imaginary(frequencies, threshold).sum())


def count_stable(minima: Any, thresholds: Sequence[float]) -> np.ndarray:
    """Of crystals with these lowest frequencies, the number that are stable at each threshold; shape (n_thresholds,).

    The same as to ask :func:`is_imaginary` for each pair, by sorting: there are a hundred thousand crystals.

    Raises:
        ValueError: a frequency is not a number, as for :func:`assess`.
    """
    import numpy as np

    ordered = np.sort(np.asarray(minima, dtype=float))
    if np.isnan(ordered).any():
        raise ValueError(_NO_NUMBER)
    # side="left": a frequency that lies on the threshold does not lie below it.
    return len(ordered) - np.searchsorted(ordered, thresholds, side="left")


def filter_at(stability: str, threshold: float) -> dict[str, Any]:
    """MongoDB filter of the crystals that were judged and are ``stable`` or ``unstable`` at this fixed threshold."""
    return {"status": {"$in": [each.value for each in Stability]}, MINIMUM: _side(stability, threshold)}


def filter_published(stability: str) -> dict[str, Any]:
    """The same by the published rule at its first threshold, whatever the protocol."""
    return {"status": {"$in": [each.value for each in Stability]}, PATH_MINIMUM: _side(stability, PUBLISHED[0])}


def group_by_published() -> dict[str, Any]:
    """MongoDB expression of the same: whether a crystal is stable; null where its lowest frequency is not known."""
    frequency = f"${PATH_MINIMUM}"
    # What is missing would be below every threshold.
    return {"$cond": [{"$gt": [frequency, None]}, {"$gte": [frequency, PUBLISHED[0]]}, None]}


def sql_published(column: str) -> str:
    """SQL expression of the same, for the column of the lowest frequencies on the path."""
    return f"{column} >= {PUBLISHED[0]!r}"


def filter_disputed() -> dict[str, Any]:
    """MongoDB filter of the crystals whose verdict and that of the published rule are opposites."""
    opposites = ((Stability.STABLE, Stability.UNSTABLE), (Stability.UNSTABLE, Stability.STABLE))
    return {"$or": [filter_published(rule) | {"status": own.value} for own, rule in opposites]}


def _side(stability: str, threshold: float) -> dict[str, float]:
    return {"$gte" if stability == Stability.STABLE else "$lt": threshold}


_PLACES = {
    "path": "on the high-symmetry path",
    "mesh": "on the mesh",
    "commensurate": "at the supercell's commensurate q-points",
}


def explain(evidence: Evidence, assessment: Assessment) -> str:
    """The assessment in a sentence or two."""
    if assessment.where == ELASTIC or (assessment.where is None and EXACT in evidence.looks):
        return _explain_without_mode(evidence, assessment)
    look = decisive(evidence, assessment)
    if look is None or assessment.where is None:
        places = ", ".join(_PLACES.get(place, place) for place in assessment.next)
        return f"undecided: no frequency is known {places}"
    if assessment.where == EXACT:
        return _explain_exact(evidence, assessment, look)
    place, kind = _PLACES.get(assessment.where, f"by {assessment.where}"), "exact" if look.exact else "interpolated"
    if assessment.stability == Stability.UNSTABLE:
        return (
            f"unstable: {place}, the lowest mode is {look.frequency:.4g} THz at q = {point_text(look.q)} ({kind}), "
            f"below the threshold of {assessment.threshold:g} THz"
        )
    return (
        f"stable: {place}, no mode at any of {look.n_q} q-points lies below {assessment.threshold:g} THz "
        f"(lowest {look.frequency:.4g} THz, {kind})"
    )


def explain_published(evidence: Evidence) -> str | None:
    """What the published rule says of a crystal, in a few words; None where the path was not looked at."""
    found = published(evidence)
    if not found:
        return None
    path = evidence.looks["path"]
    said = ", ".join(f"{stability} at {threshold:g} THz" for threshold, stability in found.items())
    if path.at_most:
        return f"{said} (below {path.frequency:.4g} THz at q = {point_text(path.q)}, which the path passes)"
    return f"{said} (lowest on the path {path.frequency:.4g} THz at q = {point_text(path.q)}, interpolated)"


def _explain_exact(evidence: Evidence, assessment: Assessment, look: Look) -> str:
    if assessment.stability == Stability.STABLE:
        elastic = evidence.elastic
        waves = (
            f", and the softest elastic wave has a modulus of {elastic.lowest:.3g} GPa" if elastic is not None else ""
        )
        return (
            f"stable: the lowest mode at {look.n_q} q-points where nothing is interpolated is {look.frequency:.4g} THz "
            f"at q = {point_text(look.q)}{waves}. Nothing is left to look at; the noise is "
            f"{-assessment.threshold:.2g} THz"
        )
    found = min(evidence.exact, key=lambda each: each.frequency)
    if look.at_most:
        return (
            f"unstable: at q = {point_text(look.q)} the lowest mode lies below {look.frequency:.4g} THz, computed in a "
            f"cell of {found.natoms} atoms. That proves it, and nothing else was computed"
        )
    name = f"{found.label} = " if found.label and "-" not in found.label else "q = "
    where = (
        f"computed in a cell of {found.natoms} atoms"
        if found.how != "supercell"
        else f"which the supercell of {found.natoms} atoms holds"
    )
    held = "" if found.how == "supercell" else ", which the first supercell does not hold"
    return (
        f"unstable: at {name}{point_text(look.q)}{held}, the lowest mode is {look.frequency:.4g} THz, {where}. "
        f"The noise is {-assessment.threshold:.2g} THz"
    )


def _explain_without_mode(evidence: Evidence, assessment: Assessment) -> str:
    elastic, look = evidence.elastic, evidence.looks[EXACT]
    if assessment.where == ELASTIC and elastic is not None:
        direction = ", ".join(f"{round(x, 3) + 0.0:.3g}" for x in elastic.direction)
        return (
            f"unstable by shear: a long wave along ({direction}) has a modulus of {elastic.lowest:.3g} GPa "
            f"({elastic.slope:.3g} THz Å). No mode at {look.n_q} exact q-points is imaginary "
            f"(lowest {look.frequency:.4g} THz)"
        )
    if not assessment.marginal:
        return f"undecided: not looked at: {'; '.join(assessment.next)}. What was looked at is clean"
    signs = ", ".join(f"{value:.3g} THz by {distance} Å" for distance, value in evidence.amplitudes.items())
    waves = f", the softest elastic wave has {elastic.lowest:.2g} GPa" if elastic is not None else ""
    return (
        f"undecided (marginal): the lowest mode is {look.frequency:.3g} THz at q = {point_text(look.q)}"
        f"{f' ({signs})' if signs else ''}{waves}. That is zero within what the potential's forces tell"
    )


def point_text(q: Sequence[float]) -> str:
    """A q-point for people, (3,): four digits, and no zeros with a sign."""
    return f"({', '.join(f'{round(x, 6) + 0.0:.4g}' for x in q)})"
