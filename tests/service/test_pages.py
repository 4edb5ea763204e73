"""The web application as its users meet it, in Chromium."""

from __future__ import annotations

import io
import urllib.parse
import zipfile
from pathlib import Path

import pytest
import synthetic
from pymatgen.core import Structure
from serving import Server

pytest.importorskip("fastapi")
pytestmark = pytest.mark.browser
READY = "document.documentElement?.dataset.ready"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    synthetic.fill(folder, 300).close()
    found = Server(folder, "--potential", "toy_potentials:lj", "--protocol", "paper")
    yield found
    found.kill()


def rows(browser) -> list[str]:
    return browser.run("[...document.querySelectorAll('#crystals tbody tr')].map((row) => row.cells[0].textContent)")


def only_its_own(browser, server) -> bool:
    return all(request.startswith((server.address, "data:", "blob:")) for request in browser.requests)


def test_filters_stand_in_the_address(browser, server):
    browser.emulate(width=1280, height=900)
    browser.open(f"{server.address}/", f"{READY} === 'table'")
    browser.run("fields.set.value = 'Alpha'; fields.set.dispatchEvent(new Event('change', {bubbles: true}))")
    browser.wait("document.getElementById('counted').textContent.startsWith('100 found')")
    browser.run("fields.elements.value = 'O'; fields.elements.dispatchEvent(new Event('change', {bubbles: true}))")
    browser.wait("location.search.includes('elements=O')")
    asked = server.json("/api/crystals?set=Alpha&elements=O")
    browser.wait(f"document.getElementById('counted').textContent.startsWith('{asked['found']} found')")
    assert rows(browser) == [row["id"] for row in asked["rows"]]
    shared = browser.run("location.href")
    browser.open("about:blank")
    browser.open(shared, f"{READY} === 'table'")
    assert rows(browser) == [row["id"] for row in asked["rows"]]
    browser.wait("fields.set.value === 'Alpha'")
    assert not browser.complaints
    assert only_its_own(browser, server)


def test_a_crystal_with_bands_densities_and_its_mode_in_motion(browser, server):
    key = server.json("/api/crystals?status=unstable&per_page=1")["rows"][0]["key"]
    browser.emulate(width=1280, height=1800)
    browser.open(f"{server.address}/crystals/{urllib.parse.quote(key)}", f"{READY} === 'all'")
    assert "unstable" in browser.run("document.getElementById('verdict').textContent")
    assert browser.run("document.getElementById('bands-chart').data.some((trace) => trace.xaxis === 'x2')")
    where = "JSON.stringify(modeView.model.selectedAtoms({}).map((atom) => [atom.x, atom.y, atom.z]))"
    before = browser.run(where)
    browser.wait(f"{where} !== {before!r}")
    browser.run("document.getElementById('mode-play').click()")
    assert not browser.run("modeView.moving")
    assert not browser.complaints
    assert only_its_own(browser, server)


def test_hostile_names_are_text(browser, server):
    key = f"Beta-00007@{synthetic.PROTOCOL_ID}"
    browser.open(f"{server.address}/crystals/{urllib.parse.quote(key)}", f"['text', 'all'].includes({READY})")
    assert "</script><script>" in browser.run("document.getElementById('facts').textContent")
    assert browser.run("document.querySelectorAll('main script, main img').length") == 0
    assert browser.run("document.title") != "broken"


PAGES = ["/?status=stable", "crystal", "/sets", "/upload", "/api"]


def address_of(server, page: str) -> str:
    if page != "crystal":
        return server.address + page
    key = server.json("/api/crystals?status=unstable&per_page=1")["rows"][0]["key"]
    return f"{server.address}/crystals/{urllib.parse.quote(key)}"


def settled(browser) -> None:
    browser.wait("![null, 'text'].includes(document.documentElement.dataset.ready ?? 'none')")
    browser.wait("document.querySelector('main').textContent.trim().length > 100")


@pytest.mark.parametrize("page", PAGES)
def test_a_phone(browser, server, page):
    browser.emulate(width=375, height=800)
    browser.open(address_of(server, page), "document.readyState === 'complete'")
    settled(browser)
    if page == "crystal":
        browser.wait(f"{READY} === 'all'")
    assert browser.run("document.documentElement.scrollWidth") <= 375
    assert browser.run("getComputedStyle(document.querySelector('.top')).display") != "none"
    controls = browser.controls()
    assert len(controls) > 4
    assert [control for control in controls if not control[1]] == []
    if page.startswith("/?"):
        assert browser.run("getComputedStyle(document.querySelector('#crystals td')).display") == "flex"
    browser.emulate(width=1280, height=900)


@pytest.mark.parametrize("page", ["/?status=stable", "crystal", "/sets"])
def test_paper(browser, server, page):
    browser.emulate(width=1280, height=900, dark=True)
    browser.open(address_of(server, page), "document.readyState === 'complete'")
    settled(browser)
    browser.run("wear('dark')")
    if page == "crystal":
        browser.wait(f"{READY} === 'all'")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    if page == "crystal":
        assert browser.run("document.getElementById('bands-chart')._fullLayout.font.color") == "#1b2430"
        assert browser.run("document.getElementById('bands-chart')._fullLayout.width") < 698
    browser.emulate(width=698, height=1000, dark=True, paper=True)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('main')).color") == "rgb(0, 0, 0)"
    hidden = ".top, .controls, .pager, .downloads, .view-controls, .modebar"
    assert browser.run(f"[...document.querySelectorAll('{hidden}')].every((it) => it.getClientRects().length === 0)")
    wide = "[...document.querySelectorAll('main *')].filter((it) => it.getBoundingClientRect().right > 699)"
    assert browser.run(f"{wide}.map((it) => it.outerHTML.slice(0, 80))") == []
    browser.run("dispatchEvent(new Event('afterprint'))")
    browser.run("wear('light')")
    browser.emulate(width=1280, height=900)


def test_what_is_found_is_saved(browser, server, tmp_path: Path):
    browser.open(f"{server.address}/?set=Alpha&status=stable", f"{READY} === 'table'")
    for form in ("csv", "cif"):
        saved = browser.saved(f"document.querySelector('#selection [data-form={form}]').click()", tmp_path / form)
        answer = server.open(f"/api/download/{form}?set=Alpha&status=stable")[1]
        if form == "csv":
            assert saved.read_bytes() == answer
            continue
        with zipfile.ZipFile(saved) as ours, zipfile.ZipFile(io.BytesIO(answer)) as theirs:
            assert len(ours.namelist()) == server.json("/api/crystals?set=Alpha&status=stable")["found"]
            assert [(name, ours.read(name)) for name in ours.namelist()] == [
                (name, theirs.read(name)) for name in theirs.namelist()
            ]


def test_an_upload_leads_to_its_verdict(browser, server, tmp_path: Path):
    browser.open(f"{server.address}/upload", f"{READY} === 'open'")
    cube = [[3.6, 0, 0], [0, 3.6, 0], [0, 0, 3.6]]
    text = Structure.from_spacegroup("Fm-3m", cube, ["Cu"], [[0, 0, 0]]).to(fmt="cif")
    name = "<img src=x onerror=alert(1)>.cif"
    browser.run(f"choose(new File([{text!r}], {name!r})); document.getElementById('send').click()")
    browser.wait(f"{READY} === 'done'", 240)
    assert browser.run("document.getElementById('job-title').textContent") == name
    assert browser.run("document.querySelector('#job-crystals .badge').textContent") == "stable"
    assert not browser.complaints
