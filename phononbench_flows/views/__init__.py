"""Views of crystals and phonons that the offline report and the web application share, and the library they use.

``3Dmol-min.js`` is 3Dmol.js 2.5.5 as its npm package has it (BSD-3-Clause, ``3Dmol-LICENSE.txt``): it draws structures
and modes. Charts are drawn by plotly.js, which comes with the Python package plotly.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

SCRIPTS = ("drawing.js", "structure.js", "phonons.js")
"""Our own scripts of this folder, in the order in which they are needed."""


@cache
def asset(name: str) -> str:
    """The text of a file of this folder."""
    return files("phononbench_flows.views").joinpath(name).read_text(encoding="utf-8")


@cache
def viewer_library() -> str:
    """3Dmol.js."""
    return asset("3Dmol-min.js")


@cache
def chart_library() -> str:
    """plotly.js."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
