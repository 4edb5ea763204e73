"""Phonon spectra of chosen crystals (Figures 2f-h, 3f-h), by default those that the paper shows.

A crystal is chosen by its id, or by its reduced formula, which may stand for several.
"""

from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.results.show import draw
from phononbench_flows.tables.published import beside, read_published
from phononbench_flows.tables.scripts import opened, parser

PUBLISHED = Path(__file__).parent / "published"
SHOWN = ["formula", "id", "set", "status", "crystal_system", "path_thz", "commensurate_thz", "mesh_thz"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table, and a picture of each band structure."""
    options = parser(__doc__)
    options.add_argument("--crystal", action="append", metavar="ID|FORMULA", help="a crystal to show; repeatable")
    with opened(options, arguments) as work:
        published = read_published(PUBLISHED, "figures_2_3_spectra")
        wanted, rows = work.options.crystal, work.crystals.rows
        names = wanted or published["formula"].to_list()
        chosen = rows[rows["id"].isin(names) | rows["formula"].isin(names)]
        if wanted and chosen.empty:
            options.error(f"there is no crystal {' or '.join(wanted)}")
        table = chosen[SHOWN] if wanted else beside(chosen[SHOWN], published, ["formula"])
        work.write("phonon_spectra", "Phonon spectra (Figures 2f-h, 3f-h)", table)
        criteria = {"id": {"$in": chosen["id"].to_list()}, "protocol_id": work.crystals.judge.protocol_id}
        for document in work.store.documents(criteria):
            if (path := draw(document, work.store, work.options.out)) is not None:
                print(path)


if __name__ == "__main__":
    main()
