"""What a reader takes from the page of a report: files, addresses, paper; and what a screen reader is told of it."""

from __future__ import annotations

import csv
import urllib.parse
from pathlib import Path

import pytest
import synthetic
from browser import Browser
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from test_report import READY, page_of, set_value

from phononbench_flows.store import ResultsStore

pytestmark = pytest.mark.browser
SAME = StructureMatcher(ltol=1e-7, stol=1e-6, angle_tol=1e-5, scale=False, primitive_cell=False)
PAPER = 698  # pixels: A4 between margins of half an inch


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store")
    with synthetic.fill(path, 120) as store:
        synthetic.put_textbook(store)
        document = next(store.documents({"status": "unstable"}, sort={"id": 1}))
        document.minimum = document.minimum.model_copy(update={"q": [-0.5, 0.0, 0.25]})
        store.put(document)
    return path


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory) -> Path:
    return page_of(folder, tmp_path_factory.mktemp("report") / "page.html", n_bands=120)


@pytest.fixture(autouse=True)
def desktop(browser: Browser) -> None:
    browser.emulate(width=1280, height=900)


def open_at(browser: Browser, page: Path, behind: str) -> None:
    browser.open("about:blank")
    browser.open(f"{page.as_uri()}{behind}", READY)


def test_saved_crystals_are_those_of_the_store(browser, folder, page, tmp_path):
    with ResultsStore.open(folder) as store:
        documents = list(store.documents({"status": "stable"}, sort={"id": 1}))[:8]
    for document in documents:
        ours = Structure.from_dict(document.relaxed_structure)
        open_at(browser, page, f"#crystals?crystal={document.id}")
        browser.wait("document.getElementById('detail').open")
        for form, suffix in (("cif", ".cif"), ("poscar", ".vasp")):
            saved = browser.saved(f"document.getElementById('save-{form}').click()", tmp_path / document.id / form)
            assert saved.name == f"{document.id}{suffix}"
            read = Structure.from_str(saved.read_text(), form)
            assert len(read) == len(ours)
            assert SAME.fit(read, ours), document.id
    assert browser.complaints == []


def test_the_saved_table_is_what_was_found(browser, folder, page, tmp_path):
    open_at(browser, page, "")
    set_value(browser, "filter-status", "unstable")
    set_value(browser, "filter-element", "O")
    browser.run("document.querySelector('#column-lowest button').click()")
    saved = browser.saved("document.getElementById('save-csv').click()", tmp_path / "csv")
    with saved.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with ResultsStore.open(folder) as store:
        found = list(store.documents({"status": "unstable", "elements": "O"}))
    found.sort(key=lambda document: document.minimum.frequency)
    assert [row["id"] for row in rows] == [document.id for document in found]
    assert len(rows) > 3
    for row, document in zip(rows, found, strict=True):
        assert float(row["lowest"]) == pytest.approx(document.minimum.frequency, rel=1e-5)
        assert [float(x) for x in row["q"].split()] == document.minimum.q
        assert row["elements"].split() == document.elements
        assert (row["set"], row["formula"], int(row["natoms"])) == (
            document.set,
            document.formula_pretty,
            document.nsites,
        )


def test_numbers_are_numbers_and_formulas_are_text(browser, page, tmp_path):
    open_at(browser, page, "")
    saved = browser.saved("document.getElementById('save-csv').click()", tmp_path / "csv")
    with saved.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert "-0.5 0 0.25" in {row["q"] for row in rows}
    assert any(row["detail"].startswith("'=cmd") for row in rows)


def test_an_address_opens_its_crystal_and_filters(browser, folder, page):
    with ResultsStore.open(folder) as store:
        document = next(store.documents({"status": "unstable"}, sort={"id": 1}))
    open_at(browser, page, "#crystals?status=unstable")
    buttons = "[...document.querySelectorAll('#crystal-table tbody button')]"
    browser.run(f"{buttons}.find((it) => it.textContent === '{document.id}').click()")
    browser.wait("document.getElementById('detail').open")
    address = browser.run("document.getElementById('permalink').href")
    assert urllib.parse.urlsplit(address).fragment == f"crystals?status=unstable&crystal={document.id}"
    browser.open("about:blank")
    browser.open(address, READY)
    browser.wait("document.getElementById('detail').open")
    assert document.id in browser.run("document.getElementById('detail-title').textContent")
    assert browser.run("document.getElementById('filter-status').value") == "unstable"
    # A crystal that is not there opens nothing.
    open_at(browser, page, "#crystals?crystal=nobody")
    assert not browser.run("document.getElementById('detail').open")
    assert browser.complaints == []


HIDDEN = ".top, .controls, .pager, .downloads, .buttons, .modebar, details:not([open])"


@pytest.mark.parametrize("opened", [False, True])
def test_paper(browser, folder, page, opened):
    with ResultsStore.open(folder) as store:
        document = next(store.documents({"status": "stable"}, sort={"id": 1}))
    browser.emulate(width=1280, height=900, dark=True)
    open_at(browser, page, f"#crystals?crystal={document.id}" if opened else "")
    browser.wait(f"document.querySelectorAll('#bands-chart .main-svg').length >= {int(opened)}")
    # What browsers do: they say that it is printed, and lay out anew what stands there then.
    browser.run("dispatchEvent(new Event('beforeprint'))")
    drawn = "[...document.querySelectorAll('.chart .main-svg')]"
    widths = browser.run(f"{drawn}.map((svg) => Number(svg.getAttribute('width')))")
    assert len(widths) > 6
    assert max(widths) < PAPER
    assert browser.run("document.getElementById('funnel-chart')._fullLayout.font.color") == "#1b2430"
    browser.emulate(width=PAPER, height=1000, dark=True, paper=True)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = "#detail" if opened else "main"
    assert browser.run(f"getComputedStyle(document.querySelector('{shown}')).color") == "rgb(0, 0, 0)"
    assert browser.run(f"[...document.querySelectorAll('{HIDDEN}')].every((it) => it.getClientRects().length === 0)")
    assert browser.run("document.documentElement.scrollWidth") <= PAPER
    # Scrolled tables would be cut off.
    wide = f"[...document.querySelectorAll('{shown} *')].filter((it) => it.getBoundingClientRect().right > {PAPER + 1})"
    assert browser.run(f"{wide}.map((it) => it.outerHTML.slice(0, 80))") == []
    # An opened crystal is printed, and not what lies behind it.
    assert browser.run("document.querySelector('main').getClientRects().length") == (0 if opened else 1)
    browser.emulate(width=1280, height=900, dark=True)
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    assert browser.run("document.getElementById('funnel-chart').clientWidth") > 1000
    assert browser.complaints == []


def test_axes_and_controls_have_names(browser, folder, page):
    open_at(browser, page, "")
    controls = browser.controls()
    assert {role for role, _ in controls} >= {"slider", "searchbox", "combobox", "radio", "checkbox", "button", "link"}
    assert [control for control in controls if not control[1]] == []
    with ResultsStore.open(folder) as store:
        document = next(store.documents({"status": "stable"}, sort={"id": 1}))
    open_at(browser, page, f"#crystals?crystal={document.id}")
    browser.wait("document.querySelectorAll('#bands-chart .main-svg').length > 0")
    assert {"CIF", "POSCAR", "Close", "Next crystal"} <= {name for _, name in browser.controls()}
    assert all(name for _, name in browser.controls())
    titles = (
        "Object.keys(it._fullLayout).filter((key) => /^[xy]axis/.test(key)).map((key) => it.layout[key]?.title?.text)"
    )
    drawn = "[...document.querySelectorAll('.chart')].filter((it) => it._fullLayout)"
    charts = browser.run(f"{drawn}.map((it) => [it.getAttribute('aria-label'), ...{titles}])")
    assert len(charts) > 6
    assert all(len(texts) >= 3 and all(texts) for texts in charts), charts
