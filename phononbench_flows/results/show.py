"""Drawing one crystal of a store."""

from __future__ import annotations

from pathlib import Path

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.bands import Bands
from phononbench_flows.results.band_structures import band_structure_png
from phononbench_flows.store import ResultsStore


def draw(document: CalculationDocument, store: ResultsStore, folder: Path) -> Path | None:
    """Write the band structure of a judged crystal as PNG; gives its path, None if it has none."""
    if "band_structure" not in document.arrays or not document.assessments:
        return None
    bands = Bands.from_arrays(store.blobs.get(document.arrays["band_structure"]))
    title = f"{document.formula_pretty}  {document.id}  {document.status}"
    threshold = document.assessments[0].threshold
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document.id}-{document.protocol_id}.png"
    band_structure_png(bands, path, title, threshold)
    return path
