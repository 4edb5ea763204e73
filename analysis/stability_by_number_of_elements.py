"""Relaxed crystals by their number of elements (Figures 2b, 3b), and how many of each are stable.

The paper gives these figures without numbers.
"""

from collections.abc import Sequence

from phononbench_flows.tables.frames import breakdown
from phononbench_flows.tables.plots import groups_plot
from phononbench_flows.tables.scripts import opened, parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = breakdown(work.crystals, "nelements")
        title = "Stability by number of elements (Figures 2b, 3b)"
        work.write("stability_by_number_of_elements", title, table, groups_plot(table, "nelements"))


if __name__ == "__main__":
    main()
