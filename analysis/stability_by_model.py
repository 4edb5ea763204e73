"""Stability by model (Figure 1c): both rates with their intervals, comparisons in pairs, and samples still needed."""

from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.tables.frames import funnel_table, pair_table, ranking_turns, samples_table
from phononbench_flows.tables.plots import rates_plot
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"
SHOWN = ["set", "model", "training_set", "condition", "stable", "relaxed", "generated"]
RATES = [f"{rate}{end}" for rate in ("per_relaxed", "per_generated") for end in ("", "_low", "_high")]
RANKS = ["rank_per_relaxed", "rank_per_generated"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables and the figure."""
    options = parser(__doc__)
    options.add_argument("--half-width", type=float, default=0.01, help="wanted on each side of a rate (default 0.01)")
    with opened(options, arguments) as work:
        funnels = funnel_table(work.crystals)
        published = read_published(PUBLISHED, "figure_1c_stability").assign(condition=None)
        both = beside(funnels[SHOWN + RATES + RANKS], published, ["model", "training_set", "condition"])
        work.write("stability_by_model", "Stability by model (Figure 1c)", both, rates_plot(funnels))
        work.write("ranking_turns", "Where the ranking turns with the denominator", ranking_turns(funnels))
        work.write("pairs", "Two sets at a time", pair_table(funnels))
        needed = samples_table(funnels, work.options.half_width)
        work.write("samples_needed", f"Samples needed for a half-width of {work.options.half_width:.1%}", needed)


if __name__ == "__main__":
    main()
