"""A judged crystal as a small card, for notebooks."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.outcomes import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {Status.STABLE: "#1a7f37", Status.UNSTABLE: "#c8281e"}


def card(document: CalculationDocument, why: str, bands: Figure | None) -> str:
    """HTML of a crystal: what it is, what became of it and why, and its band structure if there is one."""
    relaxed = document.symmetry_relaxed
    facts = [
        f"{document.nsites} atoms" if document.nsites else "",
        relaxed.symbol or "" if relaxed else "",
        document.potential.name,
        f"protocol {document.protocol_name}",
    ]
    colour = _COLOURS.get(Status(document.status), "#666666")
    picture = f'<img alt="band structure" style="max-width:480px" src="{_png(bands)}">' if bands else ""
    return (
        '<div style="border:1px solid #ccc;border-radius:6px;padding:8px 12px;display:inline-block;max-width:520px">'
        f"<b>{_plain(document.formula_pretty or document.id)}</b> "
        f'<b style="color:{colour}">{_plain(document.status)}</b>'
        f'<div style="color:#666;font-size:90%">{_plain(", ".join(filter(None, facts)))}</div>'
        f"<div>{_plain(why)}</div>{picture}</div>"
    )


def _plain(text: str) -> str:
    return html.escape(text, quote=False)


def _png(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
