"""Writes a report into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from phononbench_flows.report.contents import Content, followed, gather
from phononbench_flows.report.data import page_data
from phononbench_flows.report.page import render
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables import plots
from phononbench_flows.tables.cards import cards_table, read_cards
from phononbench_flows.tables.files import write_table
from phononbench_flows.tables.rows import Crystals
from phononbench_flows.tables.unfinished import unfinished_note

BANDS = 500
"""Band structures in a page unless asked otherwise."""


def write_report(store: ResultsStore, crystals: Crystals, out: Path, n_bands: int = BANDS) -> Path:
    """Write ``report.html``, ``cards.json``, ``tables/`` (CSV and Markdown) and ``figures/`` (PNG and SVG).

    Gives the page's path.

    Args:
        store: where the crystals' documents and band structures are.
        crystals: what to report, as ``read_crystals`` gives it.
        out: folder, made when needed.
        n_bands: number of band structures in the page, at most.
    """
    cards = read_cards(store, crystals)
    contents = gather(crystals) | followed(store, crystals)
    contents |= {"cards": Content("What is credible in the end", cards_table(cards))}
    note = unfinished_note(contents["leaderboard"].table)
    for name, content in contents.items():
        write_table(content.table, out / "tables", name, content.title, note=note)
        if content.figure is not None:
            figure = content.figure(content.table)
            if note:
                figure.text(0.005, -0.02, note, fontsize=8, wrap=True, parse_math=False)
            plots.save(figure, out / "figures", name)
    plain = [card.as_dict() for card in cards]
    (out / "cards.json").write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = out / "report.html"
    page.write_text(render(page_data(store, crystals, contents, n_bands, plain), _title(crystals)), encoding="utf-8")
    return page


def _title(crystals: Crystals) -> str:
    names = list(crystals.sets)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"Dynamical stability of {shown}"
