"""Elements of the stable crystals as a heat map (Figures 4 and 6), beside the three numbers that are published."""

from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.tables.frames import element_table
from phononbench_flows.tables.plots import element_plot
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = element_table(work.crystals)
        both = beside(table, read_published(PUBLISHED, "figure_4_elements"), ["element"])
        title = "Elements of the stable crystals (Figures 4, 6)"
        work.write("elements_of_stable_crystals", title, both, element_plot(table))


if __name__ == "__main__":
    main()
