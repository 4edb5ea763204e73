"""Write the list of the columns of results.csv into docs/results.md, from what the steps declare."""

from __future__ import annotations

from pathlib import Path

from phononbench_flows.protocol import PRESETS
from phononbench_flows.results.export import columns
from phononbench_flows.steps import steps_of

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
BEGIN, END = "<!-- columns -->\n", "<!-- end of columns -->\n"


def column_table() -> str:
    """The columns of the protocol ``converged``, which has the steps of the others and more, as a table in Markdown."""
    rows = [f"| `{column.name}` | {column.description} |\n" for column in columns(steps_of(PRESETS["converged"]))]
    return "".join(["| column | what it is |\n", "|---|---|\n", *rows])


def main() -> None:
    """Replace what stands between the two marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}{column_table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
