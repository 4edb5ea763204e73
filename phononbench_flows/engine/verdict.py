"""Stable or unstable: a pure function of frequencies and a judgement rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from phononbench_flows.engine.spectrum import Frequencies, Spectrum
from phononbench_flows.protocol import Judgement


@dataclass(frozen=True)
class Verdict:
    """Whether no frequency lies below ``threshold`` (THz)."""

    threshold: float
    stable: bool


def judged_frequencies(spectrum: Spectrum, judgement: Judgement) -> Frequencies:
    """The frequencies that the judgement looks at."""
    return {"path": spectrum.path, "commensurate": spectrum.commensurate, "mesh": spectrum.mesh}[judgement.q_points]


def judge(spectrum: Spectrum, judgement: Judgement) -> list[Verdict]:
    """One verdict per threshold, the deciding one first.

    Raises:
        ValueError: a frequency is not a number; that is a failure, never a verdict.
    """
    lowest = judged_frequencies(spectrum, judgement).minimum
    if math.isnan(lowest):
        raise ValueError("frequencies that are not numbers cannot be judged")
    return [Verdict(threshold, not lowest < threshold) for threshold in judgement.thresholds]
