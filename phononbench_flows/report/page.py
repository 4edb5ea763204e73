"""One HTML file that needs no network: the page's own script and style, plotly.js, and everything that they draw."""

from __future__ import annotations

import hashlib
import html
from base64 import b64encode
from functools import cache
from importlib.resources import files
from string import Template

from phononbench_flows import views
from phononbench_flows.report.compact import squeezed
from phononbench_flows.report.data import PageData

_BEFORE, _AFTER = ("decode.js", "text.js"), ("charts.js", "crystals.js", "cards.js", "saving.js", "page.js")


def render(data: PageData, title: str) -> str:
    """The page of a report.

    Nothing that comes from a file stands in the markup but the title, which is escaped: all of it is compressed, in
    base64. And only the page's own script, plotly.js and 3Dmol.js may run, by their hashes; the page may fetch nothing.
    """
    script, plotly, viewer = _own_script(), views.chart_library(), views.viewer_library()
    parts = {"data": data.tables, "structures": data.structures, "bands": data.bands}
    parts |= {"plotly": plotly.encode(), "viewer": viewer.encode()}
    packed = {name: squeezed(part) for name, part in parts.items()}
    return Template(_asset("page.html")).substitute(
        packed,
        title=html.escape(title),
        csp=_policy(script, plotly, viewer),
        css=_asset("page.css") + views.asset("shared.css"),
        js=script,
        footer=html.escape(_footer(data, {name: len(part) for name, part in packed.items()})),
    )


def _footer(data: PageData, sizes: dict[str, int]) -> str:
    said = {name: f"{size / 1e6:.1f} MB" if size > 1e6 else f"{size / 1e3:.0f} kB" for name, size in sizes.items()}
    shown = f"{data.n_bands:,} of {data.n_judged:,}"
    chosen = (
        ", those closest to the threshold, from every set and verdict in turn" if data.n_bands < data.n_judged else ""
    )
    return (
        f"This file is whole: it asks nothing of any network. {said['plotly']} of it are plotly.js, "
        f"{said['viewer']} 3Dmol.js, "
        f"{said['data']} numbers and names, {said['structures']} structures, {said['bands']} band "
        f"structures ({shown}{chosen})."
    )


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    # Plotly styles its drawings from script, and saves them as pictures through blobs.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return files("phononbench_flows.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _own_script() -> str:
    shared = map(views.asset, views.SCRIPTS)
    return "\n".join([*map(_asset, _BEFORE), *shared, *map(_asset, _AFTER)])
