from __future__ import annotations

import os

import pytest
from rich.table import Table
from rich.text import Text

from phononbench_flows.cli.common import err, out
from phononbench_flows.harmless import harmless


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain [bold]x[/bold].cif", "plain [bold]x[/bold].cif"),
        ("café, Å, 结构", "café, Å, 结构"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("line\nbreak\r\t", "line\\nbreak\\r\\t"),
        ("rtl\u202efic", "rtl\\u202efic"),
        ("zero\u200bwidth\u2028", "zero\\u200bwidth\\u2028"),
        (os.fsdecode(b"latin\xe9\xff"), "latin\\xe9\\xff"),
        ("\x9bcsi", "\\x9bcsi"),
    ],
)
def test_names_are_shown_harmless(name: str, shown: str) -> None:
    assert harmless(name) == shown
    assert harmless(name).isprintable()


@pytest.mark.parametrize("console", [out, err], ids=["out", "err"])
def test_whatever_the_commands_print_is_harmless(console, capsys):
    table = Table("name")
    table.add_row(Text("\x1b[2Jcell"))
    console.print("\x1b[2J[/red] first\nsecond", Text("\x9b2J"), table, os.fsdecode(b"latin\xff"))
    with console.status(Text("\x1b[2J[/red]")):
        pass
    said = "".join(capsys.readouterr())
    assert "\\x1b[2J[/red] first\nsecond" in said
    assert "│ \\x1b[2J" in said
    assert "latin\\xff" in said
    assert all(line.isprintable() for line in said.split("\n"))
