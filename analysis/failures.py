"""Why crystals were rejected or failed, by set, stage and reason. A failed crystal is not an unstable one."""

from collections.abc import Sequence

from phononbench_flows.tables.frames import failure_table
from phononbench_flows.tables.plots import failure_plot
from phononbench_flows.tables.scripts import opened, parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = failure_table(work.crystals)
        work.write("failures", "Rejected and failed crystals", table, failure_plot(table))


if __name__ == "__main__":
    main()
