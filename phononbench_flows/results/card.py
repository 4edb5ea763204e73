"""A judged crystal as a small card, for notebooks."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.outcomes import Status
from phononbench_flows.stability import explain_published, point_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {Status.STABLE: "#1a7f37", Status.UNSTABLE: "#c8281e"}


def card(document: CalculationDocument, why: str, bands: Figure | None) -> str:
    """HTML of a crystal: what it is, what became of it and why, beside the published rule, and its band structure."""
    relaxed = document.symmetry_relaxed
    facts = [
        f"{document.nsites} atoms" if document.nsites else "",
        relaxed.symbol or "" if relaxed else "",
        document.potential.name,
        f"protocol {document.protocol_name}",
    ]
    colour = _COLOURS.get(Status(document.status), "#666666")
    published = explain_published(document.evidence)
    beside = f'<div style="color:#666">published rule: {_plain(published)}</div>' if published else ""
    picture = f'<img alt="band structure" style="max-width:480px" src="{_png(bands)}">' if bands else ""
    return (
        '<div style="border:1px solid #ccc;border-radius:6px;padding:8px 12px;display:inline-block;max-width:520px">'
        f"<b>{_plain(document.formula_pretty or document.id)}</b> "
        f'<b style="color:{colour}">{_plain(document.status)}</b>'
        f'<div style="color:#666;font-size:90%">{_plain(", ".join(filter(None, facts)))}</div>'
        f"<div>{_plain(why)}</div>{beside}{_looks(document)}{picture}</div>"
    )


def _looks(document: CalculationDocument) -> str:
    """A table of the exact looks, the lowest first; elastic constants below it."""
    rows = [
        f"<tr><td>{_plain(look.label or '')}</td><td>{point_text(look.q)}</td>"
        f"<td>{'' if look.interpolated is None else f'{look.interpolated:.3f}'}</td>"
        f"<td>{look.frequency:.3f}</td><td>{look.natoms}</td></tr>"
        for look in sorted(document.evidence.exact, key=lambda look: look.frequency)
    ]
    if not rows:
        return ""
    elastic = document.evidence.elastic
    wave = f"<div>softest elastic wave: {elastic.lowest:.3g} GPa</div>" if elastic is not None else ""
    head = "".join(f"<th>{name}</th>" for name in ("point", "q", "interpolated (THz)", "exact (THz)", "atoms"))
    return f'<table style="font-size:90%"><tr>{head}</tr>{"".join(rows)}</table>{wave}'


def _plain(text: str) -> str:
    return html.escape(text, quote=False)


def _png(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
