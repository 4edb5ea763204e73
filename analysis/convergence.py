"""Convergence of the rate with the number of crystals tested (Figure 5), as a band over all their orders."""

from collections.abc import Sequence

from phononbench_flows.tables.frames import convergence_table, funnel_table
from phononbench_flows.tables.plots import convergence_plot
from phononbench_flows.tables.scripts import opened, parser

SHOWN = (100, 400, 1000, 4000, 10000)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = convergence_table(funnel_table(work.crystals))
        title = "Convergence of the rate (Figure 5)"
        work.write("convergence", title, table, convergence_plot(table), table[table["crystals"].isin(SHOWN)])


if __name__ == "__main__":
    main()
