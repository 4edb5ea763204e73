"""Band structures as a picture; the page of a report draws them to look around in.

Distances are in 1/Å, frequencies in THz, imaginary ones negative. This module knows the shape of
:class:`~phononbench_flows.engine.bands.Bands`, but does not import the engine, which needs torch.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phononbench_flows.stability import is_imaginary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from phononbench_flows.engine.bands import Bands

REAL = "#1f5a8c"
IMAGINARY = "#c8281e"
_GREY = "#666666"
_MAX_TITLE = 90

_GREEK = {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def band_structure_png(bands: Bands, path: Path, title: str, threshold: float) -> None:
    """Draw the band structure into a file; frequencies below ``threshold`` (THz) count as imaginary."""
    figure = band_structure_figure(bands, title, threshold)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a title may hold letters that the font lacks
        figure.savefig(path, format="png", dpi=160)


def band_structure_figure(bands: Bands, title: str, threshold: float) -> Figure:
    """Draw the band structure; frequencies below ``threshold`` (THz) count as imaginary."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = _curves(bands)
    x, frequencies = curves[:, 0], curves[:, 4]
    lowest = _lowest(curves)
    bottom, top = _range(frequencies)
    ticks = path_ticks(bands)

    # Without pyplot nothing is kept between figures, and threads do not meet.
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhspan(bottom, 0, color=IMAGINARY, alpha=0.07, linewidth=0)
    axes.axhline(0, color=_GREY, linewidth=0.8)
    for position, _ in ticks:
        axes.axvline(position, color="#c4c4c4", linewidth=0.7, zorder=0.5)
    style = {"linewidth": 1.1, "solid_capstyle": "round"}
    axes.plot(x, np.where(frequencies >= 0, frequencies, np.nan), color=REAL, **style)  # type: ignore[arg-type]
    if lowest[4] < 0:
        axes.plot(x, np.where(frequencies <= 0, frequencies, np.nan), color=IMAGINARY, **style)  # type: ignore[arg-type]
    imaginary = is_imaginary(lowest[4], threshold)
    if imaginary:
        axes.axhline(threshold, color=IMAGINARY, linewidth=0.8, linestyle=(0, (4, 3)))
        # A dip that is too shallow to be seen at this scale is still marked.
        axes.plot([lowest[0]], [lowest[4]], "o", markersize=5, markeredgewidth=1.2, color=IMAGINARY, fillstyle="none")
    axes.set_xlim(ticks[0][0], ticks[-1][0])
    axes.set_ylim(bottom, top)
    axes.set_xticks([position for position, _ in ticks], [label for _, label in ticks], parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("Frequency (THz), imaginary as negative")
    # Titles come from files: a "$" in them is a dollar, not the start of a formula.
    axes.set_title(_clean(title), loc="left", pad=24, fontsize=12, fontweight="bold", parse_math=False)
    axes.annotate(
        _summary(lowest, threshold),
        (0, 1),
        (0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=IMAGINARY if imaginary else _GREY,
        parse_math=False,
    )
    return figure


def _curves(bands: Bands) -> np.ndarray:
    """All branches of all segments below each other, as rows (distance, q1, q2, q3, frequency).

    A row of NaN ends each curve. Where a curve crosses zero there is a row on zero, so that its real and its
    imaginary part can be drawn apart without a gap.
    """
    gap = np.full((1, 5), np.nan)
    parts: list[np.ndarray] = []
    for q, distances, frequencies in zip(bands.q, bands.distances, bands.frequencies, strict=True):
        for branch in np.asarray(frequencies).T:
            rows = np.column_stack([distances, q, branch])
            before = np.flatnonzero(branch[:-1] * branch[1:] < 0)
            share = branch[before] / (branch[before] - branch[before + 1])
            crossings = rows[before] + share[:, None] * (rows[before + 1] - rows[before])
            crossings[:, 4] = 0.0  # exactly, whatever the rounding
            parts += [np.insert(rows, before + 1, crossings, axis=0), gap]
    return np.concatenate(parts)


def _lowest(curves: np.ndarray) -> np.ndarray:
    """The row of the lowest frequency."""
    return curves[int(np.nanargmin(curves[:, 4]))]


def _range(frequencies: np.ndarray) -> tuple[float, float]:
    """Ends of the frequency axis, THz: a sliver below zero for a stable crystal, all of an unstable one."""
    low, high = min(float(np.nanmin(frequencies)), 0.0), max(float(np.nanmax(frequencies)), 0.0)
    margin = 0.04 * ((high - low) or 1.0)
    return low - margin, high + margin


def path_ticks(bands: Bands) -> list[tuple[float, str]]:
    """Distance and label of each high-symmetry point, joined as ``U|K`` where the path jumps.

    Phonopy gives a segment that continues into the next one label, its start, and one that does not two.
    """
    ticks: list[tuple[float, str]] = []
    used = 0
    for distances, connected in zip(bands.distances, bands.connections, strict=True):
        ends = [distances[0]] if connected else [distances[0], distances[-1]]
        for position, label in zip(ends, bands.labels[used : used + len(ends)], strict=True):
            text = _label(label)
            # After a jump phonopy goes on at the distance where it was.
            if ticks and np.isclose(ticks[-1][0], position, rtol=0, atol=1e-9):
                position, before = ticks.pop()  # noqa: PLW2901
                text = before if before == text else f"{before}|{text}"
            ticks.append((float(position), text))
        used += len(ends)
    return ticks


def _label(label: str) -> str:
    r"""A point's name as plain text: ``$\Gamma$``, ``GAMMA`` and ``$\mathrm{S_0}$`` become Γ, Γ and S₀."""
    text = re.sub(r"\\(mathrm|mathbf|rm|text)\b", "", label)
    text = re.sub(r"[${}\\]", "", text)
    for name, letter in _GREEK.items():
        text = re.sub(name, letter, text, flags=re.IGNORECASE)
    return re.sub(r"_(\d+)", lambda found: found[1].translate(_SUBSCRIPTS), text).strip()


def _summary(lowest: np.ndarray, threshold: float) -> str:
    q = ", ".join(f"{round(value, 3) + 0.0:g}" for value in lowest[1:4])
    frequency = f"{lowest[4]:.3f}" if abs(lowest[4]) >= 5e-4 else "0"
    return f"lowest {frequency} THz at q = ({q}); threshold {threshold:g} THz".replace("-", "−")


def _clean(title: str) -> str:
    """One line that can be encoded and drawn, whatever a file put into it."""
    text = " ".join(title.encode("utf-8", "replace").decode().split())
    text = "".join(character for character in text if character.isprintable())
    return text if len(text) <= _MAX_TITLE else f"{text[: _MAX_TITLE - 1]}…"
