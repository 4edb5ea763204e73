"""Stability by crystal system after relaxation (Figure 2a), beside the published percentages."""

from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.tables.frames import breakdown
from phononbench_flows.tables.plots import groups_plot
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table and the figure."""
    with opened(parser(__doc__), arguments) as work:
        table = breakdown(work.crystals, "crystal_system")
        models = {name: (about.model, about.training_set) for name, about in work.crystals.sets.items()}
        known = [models.get(name, (None, None)) for name in table["set"]]
        table[["model", "training_set"]] = known
        published = read_published(PUBLISHED, "figure_2a_crystal_systems")
        both = beside(table, published, ["model", "training_set", "crystal_system"])
        figure = groups_plot(table, "crystal_system")
        work.write("stability_by_crystal_system", "Stability by crystal system (Figure 2a)", both, figure)


if __name__ == "__main__":
    main()
