"""The pages say what the code says, and their links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(p for d in ("docs", "launchers", "analysis", "examples") for p in (ROOT / d).rglob("*.md")),
    ]
    if "_build" not in path.parts
)


@pytest.mark.parametrize("mark", REFERENCE["WRITTEN"])
def test_what_follows_from_the_code_stands_in_the_docs(mark):
    page, write = REFERENCE["WRITTEN"][mark]
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert text == REFERENCE["with_written"](text, mark, write()), "run scripts/write_reference.py"


def test_every_field_and_every_key_is_explained():
    for written in (REFERENCE["document_fields"](), REFERENCE["protocol_keys"]()):
        rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", written, re.MULTILINE)
        assert len(rows) > 30
        assert not [name for name, kind, said in rows if not kind or len(said) < 10]
    assert "`relaxed_structure`" in REFERENCE["document_fields"]()
    assert "`accept_force`" in REFERENCE["protocol_keys"]()


def anchors(page: Path) -> set[str]:
    """Those that a site, or a repository's web page, gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(found), f"{target} has no such heading"


def test_there_are_pages_to_look_at():
    assert len(PAGES) > 25
    assert any("](" in page.read_text(encoding="utf-8") for page in PAGES)
