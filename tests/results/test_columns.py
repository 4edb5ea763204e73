"""The list of columns in the docs is what the steps declare."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_docs_list_the_columns_that_there_are():
    script = runpy.run_path(str(ROOT / "scripts" / "write_columns.py"))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    listed = page.partition(script["BEGIN"])[2].partition(script["END"])[0]
    assert listed == script["column_table"](), "run scripts/write_columns.py"
    assert "min_frequency_path_thz" in listed
