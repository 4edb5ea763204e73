"""Drawing one crystal of a store."""

from __future__ import annotations

from pathlib import Path

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.bands import Bands
from phononbench_flows.results.band_structures import band_structure_html, band_structure_png
from phononbench_flows.store import ResultsStore


def draw(document: CalculationDocument, store: ResultsStore, folder: Path) -> list[Path]:
    """Write the band structure of a judged crystal as PNG and HTML; gives the paths, none if it has none."""
    if "band_structure" not in document.arrays or not document.assessments:
        return []
    bands = Bands.from_arrays(store.blobs.get(document.arrays["band_structure"]))
    title = f"{document.formula_pretty}  {document.id}  {document.status}"
    threshold = document.assessments[0].threshold
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{document.id}-{document.protocol_id}"
    paths = [folder / f"{stem}.png", folder / f"{stem}.html"]
    band_structure_png(bands, paths[0], title, threshold)
    band_structure_html(bands, paths[1], title, threshold)
    return paths
