from __future__ import annotations

import os

import pytest

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
