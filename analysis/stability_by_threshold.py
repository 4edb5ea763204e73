"""The rate as a function of the threshold, from -1e-7 to -1 THz, from the lowest frequencies in the store.

The table that is printed is for the q-points that the protocol looks at, the CSV file for the others as well.
"""

from collections.abc import Sequence

from phononbench_flows.tables.frames import threshold_table
from phononbench_flows.tables.plots import threshold_plot
from phononbench_flows.tables.scripts import opened, parser

SHOWN = (-1e-7, -1e-5, -1e-3, -1e-2, -0.1, -1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = threshold_table(work.crystals)
        shown = table[table["threshold_thz"].isin(SHOWN) & (table["q_points"] == "judged")]
        work.write("stability_by_threshold", "Stability by threshold", table, threshold_plot(table), shown)


if __name__ == "__main__":
    main()
