"""The pictures of docs/verdict.md: three crystals of which interpolated frequencies say what is not so.

    python benchmarks/verdict_pictures.py --potential sevennet-0 --out docs/verdict.png

Grey: interpolated from the published protocol's supercell (BN: from 5x5x5, to show that a larger one does not mend it).
Blue: made to pass through exact frequencies, which are the dots.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from textbook_crystals import CRYSTALS

from phononbench_flows import JudgedCrystal, judge, load_protocol
from phononbench_flows.protocol import ForceConstantsSettings

# Name in the list, and the supercell that is interpolated.
SHOWN = {"GaN wurtzite": (2, 2, 2), "BN zincblende": (5, 5, 5), "Mo bcc": (2, 2, 2)}


def draw(axes: Axes, published: JudgedCrystal, converged: JudgedCrystal, title: str) -> None:
    """The two band structures of a crystal, and its exact frequencies on the path."""
    for result, colour, width in ((published, "#9a9a9a", 0.8), (converged, "#0072b2", 1.0)):
        for x, y in zip(result.bands.distances, result.bands.frequencies, strict=True):
            axes.plot(x, y, color=colour, linewidth=width)
    bands = converged.bands
    points, distances = np.concatenate(bands.q), np.concatenate(bands.distances)
    for look in converged.document.evidence.exact:
        apart = points - np.array(look.q)
        for at in np.flatnonzero(np.abs(apart - np.rint(apart)).max(axis=1) < 1e-6):
            axes.plot(distances[at], look.frequency, "o", color="#0072b2", markersize=3.5)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(0, distances[-1])
    axes.set_xticks([])
    axes.set_title(f"{title}: {published.stability} / {converged.stability}", fontsize=10)


def main() -> None:
    """Judge the crystals by both protocols and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    paper = load_protocol("paper")
    for axes, (name, supercell) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        published = paper.model_copy(update={"force_constants": ForceConstantsSettings(supercell=supercell)})
        how = {"potential": given.potential, "device": given.device}
        results = [judge(CRYSTALS[name].structure, protocol=each, **how) for each in (published, "converged")]
        draw(axes, results[0], results[1], f"{name}, {'x'.join(map(str, supercell))}")
        print(f"{name}: {results[0].why}\n  {results[1].why}")
    figure.axes[0].set_ylabel("Frequency (THz), imaginary as negative")
    figure.savefig(given.out, dpi=130)


if __name__ == "__main__":
    main()
