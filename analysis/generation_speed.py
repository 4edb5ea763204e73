"""Generation speed (Table 1): crystals per minute of every set whose generation was timed, beside the published ones.

Speeds are those of the hardware named, at whatever batch size was used.
"""

from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.tables.frames import speed_table
from phononbench_flows.tables.plots import speed_plot
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and its figure."""
    with opened(parser(__doc__), arguments) as work:
        table = speed_table(work.crystals.sets.values())
        published = read_published(PUBLISHED, "table_1_generation_speed").assign(condition=None)
        both = beside(table, published, ["model", "condition"])
        work.write("generation_speed", "Generation speed (Table 1)", both, speed_plot(table))


if __name__ == "__main__":
    main()
