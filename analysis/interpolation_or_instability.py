"""Interpolation or instability: what the published rule calls unstable, and what is so by exact frequencies.

Stable per relaxed by model, crystal system, symmetry and cell size, by three rules: the published one (-0.001 THz on
the interpolated path), the same on path and mesh with the free cures of the interpolation, and the protocol's exact
frequencies. Then the crystals in dispute, with the lowest frequency of either kind and where it is. Needs crystals of a
protocol that judges by exact frequencies, such as `converged`, whose step `exact_looks` records all three.
"""

from collections.abc import Sequence

from phononbench_flows.report.contents import rules
from phononbench_flows.tables.scripts import opened, parser

SHOWN = 40


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables and their figures."""
    options = parser(__doc__)
    with opened(options, arguments) as work:
        if not work.crystals.judged_at.exact:
            options.error(f"protocol {work.crystals.judge} does not judge by exact frequencies")
        for name, content in rules(work.crystals).items():
            figure = content.figure(content.table) if content.figure else None
            work.write(name, content.title, content.table, figure, content.table.head(SHOWN))


if __name__ == "__main__":
    main()
