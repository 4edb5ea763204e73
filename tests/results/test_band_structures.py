"""Band structures drawn from made-up bands."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from phononbench_flows.results import band_structures
from phononbench_flows.results.band_structures import band_structure_png

HOSTILE = "$\\frac{1$ </script><script>alert(1)</script> <img src=x onerror=alert(2)> \udcff\x00 中\n" + "long " * 50
LABELS = ["$\\Gamma$", "$\\mathrm{X}$", "$\\mathrm{U}$", "$\\mathrm{K}$", "$\\Sigma_0$"]


def made_up(depth: float) -> SimpleNamespace:
    """Three branches on Γ-X-U|K-Σ₀, the lowest one reaching down to ``depth`` THz."""
    ends = [0.0, 0.4, 0.6, 1.0]
    distances = [np.linspace(ends[i], ends[i + 1], 21) for i in range(3)]
    branches = [np.column_stack([(1 - (1 - x) ** 2) * 3, 5 + x, 9 - x]) for x in distances]
    branches[1][10, 0] = depth
    q = [np.column_stack([x, -x, 0 * x]) for x in distances]
    return SimpleNamespace(
        q=q, distances=distances, frequencies=branches, labels=LABELS, connections=[True, False, False]
    )


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that were saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k))[1])
    return saved


def test_labels_and_jumps():
    bands = made_up(1.0)
    bands.labels = ["GAMMA", *LABELS[1:]]
    assert band_structures.path_ticks(bands) == [(0.0, "Γ"), (0.4, "X"), (0.6, "U|K"), (1.0, "Σ₀")]
    bands.connections, bands.labels = [False, False, False], ["A", "B", "B", "C", "D", "$\\mathrm{S_{12}}$"]
    assert band_structures.path_ticks(bands) == [(0.0, "A"), (0.4, "B"), (0.6, "C|D"), (1.0, "S₁₂")]


def test_too_few_labels_are_an_error():
    bands = made_up(1.0)
    bands.labels = ["A", "B", "C", "D"]
    with pytest.raises(ValueError, match="zip"):
        band_structures.path_ticks(bands)


def test_curves_are_cut_at_zero():
    curves = band_structures._curves(made_up(-2.0))
    zeros = curves[curves[:, 4] == 0]
    assert len(zeros) == 3  # Γ, and on the way down and up
    signs = np.sign(curves[:, 4])
    assert not np.any(signs[:-1] * signs[1:] < 0)
    np.testing.assert_allclose(zeros[1:, 1], zeros[1:, 0])  # q goes along


@pytest.mark.parametrize(("depth", "threshold"), [(-2.0, -1e-3), (-0.002, -1e-3), (-0.05, -0.1), (1.0, -1e-3)])
def test_the_minimum_is_shown(tmp_path, drawn, depth, threshold):
    band_structure_png(made_up(depth), tmp_path / "bands.png", "Si", threshold)
    assert (tmp_path / "bands.png").read_bytes().startswith(b"\x89PNG")
    [figure] = drawn
    [axes] = figure.axes
    low, high = axes.get_ylim()
    assert low < min(depth, 0)
    assert high > 9
    if depth > 0:
        assert low > -0.1 * high  # no empty negative half
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Γ", "X", "U|K", "Σ₀"]
    assert f"threshold −{-threshold:g} THz" in axes.texts[0].get_text()
    colours = {line.get_color() for line in axes.lines}
    assert (band_structures.IMAGINARY in colours) == (depth < 0)


def test_a_hostile_title_is_text(tmp_path, drawn, recwarn):
    band_structure_png(made_up(-1.0), tmp_path / "bands.png", HOSTILE, -1e-3)
    assert [str(w.message) for w in recwarn if w.category is UserWarning] == []
    [figure] = drawn
    title = figure.axes[0].get_title(loc="left")
    assert title.startswith("$\\frac{1$ </script>")
    assert title.isprintable()
    assert len(title) < 500


def test_importing_it_is_cheap():
    code = f"import sys, {band_structures.__name__}; assert not {{'torch', 'matplotlib', 'plotly'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
