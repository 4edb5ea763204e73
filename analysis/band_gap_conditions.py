"""Stability by the band gap that was asked for (Table 4, Figure 3a), beside the published numbers."""

from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.tables.frames import condition_table
from phononbench_flows.tables.plots import groups_plot
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"
COUNTS = ["relaxed", "stable", "generated"]
RATES = [f"{rate}{end}" for rate in ("per_relaxed", "per_generated") for end in ("", "_low", "_high")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = condition_table(work.crystals, "band_gap")
        shown = table[["band_gap", *COUNTS, *RATES]]
        both = beside(shown, read_published(PUBLISHED, "table_4_band_gap"), ["band_gap"])
        figure = groups_plot(table, "band_gap") if len(table) else None
        work.write("band_gap_conditions", "Band-gap conditions (Table 4, Figure 3a)", both, figure)


if __name__ == "__main__":
    main()
