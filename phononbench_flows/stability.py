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
"""Where a document keeps the lowest frequency that its verdict was read from."""

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


class ExactLook(_Part):
    """The lowest mode at a q-point that a supercell holds: nothing is interpolated there."""

    q: list[float] = Field(description="In reciprocal lattice units of the primitive cell, shape (3,).")
    frequency: float = Field(description="Lowest frequency there, in THz, imaginary as negative.")
    interpolated: float | None = Field(None, description="What interpolation said of it before, in THz.")
    label: str | None = Field(None, description="Name of the point, or of the two that it lies in the middle of.")
    how: Literal["supercell", "displacements", "davidson"] = Field(
        description="By the first supercell's force constants; or in the smallest cell that holds the q-point, by all "
        "of its displacements, or by displacements along modes alone."
    )
    natoms: int = Field(description="Atoms in the cell that held it.")
    evaluations: int = Field(0, description="Atoms that went through the potential for it.")


class ElasticLook(_Part):
    """The limit of long waves, from relaxed-ion elastic constants."""

    lowest: float = Field(description="Lowest eigenvalue of the Christoffel matrix over all directions, in GPa.")
    slope: float = Field(description="Frequency over wave number (1/wavelength) there, in THz Å, imaginary as negative.")
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


def is_imaginary(frequencies: Any, threshold: float) -> Any:
    """Whether a frequency counts as imaginary, or which of an array do: the comparison that all others are made of."""
    return frequencies < threshold


def assess(evidence: Evidence, judgement: Judgement) -> list[Assessment]:
    """One assessment for each threshold of the judgement, the deciding one first.

    Raises:
        ValueError: a frequency is not a number; that is a failure, never a verdict.
    """
    return [_assess(evidence, judgement.q_points, threshold) for threshold in judgement.thresholds]


def _assess(evidence: Evidence, place: str, threshold: float) -> Assessment:
    look = evidence.looks.get(place)
    if look is None:
        return Assessment(stability=Stability.UNDECIDED, threshold=threshold, next=[place])
    if math.isnan(look.frequency):
        raise ValueError(_NO_NUMBER)
    unstable = is_imaginary(look.frequency, threshold)
    return Assessment(stability=Stability.UNSTABLE if unstable else Stability.STABLE, threshold=threshold, where=place)


def decisive(evidence: Evidence, assessment: Assessment) -> Look | None:
    """The look that decided; None if nothing did."""
    return None if assessment.where is None else evidence.looks[assessment.where]


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
    """MongoDB filter of the crystals that were judged and are ``stable`` or ``unstable`` at this threshold."""
    side = "$gte" if stability == Stability.STABLE else "$lt"
    return {"status": {"$in": [Stability.STABLE.value, Stability.UNSTABLE.value]}, MINIMUM: {side: threshold}}


_PLACES = {
    "path": "on the high-symmetry path",
    "mesh": "on the mesh",
    "commensurate": "at the supercell's commensurate q-points",
}


def explain(evidence: Evidence, assessment: Assessment) -> str:
    """The assessment in a sentence."""
    look = decisive(evidence, assessment)
    if look is None or assessment.where is None:
        places = ", ".join(_PLACES.get(place, place) for place in assessment.next)
        return f"undecided: no frequency is known {places}"
    place, kind = _PLACES.get(assessment.where, f"by {assessment.where}"), "exact" if look.exact else "interpolated"
    if assessment.stability == Stability.UNSTABLE:
        q = ", ".join(f"{x + 0.0:.4g}" for x in look.q)
        return (
            f"unstable: {place}, the lowest mode is {look.frequency:.4g} THz at q = ({q}) ({kind}), "
            f"below the threshold of {assessment.threshold:g} THz"
        )
    return (
        f"stable: {place}, no mode at any of {look.n_q} q-points lies below {assessment.threshold:g} THz "
        f"(lowest {look.frequency:.4g} THz, {kind})"
    )
