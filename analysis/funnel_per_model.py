"""From generation to stability, per model (Table 3), beside the published counts; every step of it; and sums.

Sets with a condition, such as a band gap, are left to band_gap_conditions.py, but count among the steps and sums.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from phononbench_flows.tables.frames import funnel_table, total
from phononbench_flows.tables.plots import funnel_plot
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"
COUNTS = ["relaxed", "stable", "accepted", "unique", "generated"]
RATES = [f"{rate}{end}" for rate in ("per_relaxed", "per_generated") for end in ("", "_low", "_high")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables and the figure."""
    with opened(parser(__doc__), arguments) as work:
        funnels = funnel_table(work.crystals)
        free = funnels[funnels["condition"].isna()]
        table = free[["set", "model", "training_set", *COUNTS, *RATES]]
        both = beside(table, read_published(PUBLISHED, "table_3_funnel"), ["model", "training_set"])
        work.write("funnel_per_model", "From generation to stability, per model (Table 3)", both)
        steps = funnels.drop(columns=["model", "training_set"])
        work.write("funnel_steps", "What became of every crystal", steps, funnel_plot(funnels))
        parts = {"without condition": free, "with condition": funnels[funnels["condition"].notna()], "all": funnels}
        sums = pd.DataFrame([total(part) | {"set": name} for name, part in parts.items() if len(part)])
        work.write("funnel_sums", "Sums over sets", sums)


if __name__ == "__main__":
    main()
