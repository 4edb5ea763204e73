"""Crystals as they are drawn, in the report and in the web application: which atoms are bonded to which."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
import synthetic
from serving import Server
from test_report import READY, page_of

from phononbench_flows.store import ResultsStore

pytest.importorskip("fastapi")
pytestmark = pytest.mark.browser

# Of each atom that is drawn: its element, those of the atoms that its bonds lead to, and in Å the bonds that lead out.
BONDS = """((view) => {
  const atoms = view.model.selectedAtoms({});
  const length = ({ x, y, z }, end) => 2 * Math.hypot(end[0] - x, end[1] - y, end[2] - z);
  return atoms.map((atom, place) => [atom.elem, atom.bonds.map((other) => atoms[other].elem),
    view.outwards.filter(({ from }) => from === place).map(({ end }) => length(atom, end))]);
})"""
KEEP = """{
  const show = CrystalView.prototype.show;
  CrystalView.prototype.show = function (structure) { window.drawn = this; return show.call(this, structure); };
}"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.fill(folder, 60).close()
    with ResultsStore.open(folder) as store:
        return folder, synthetic.put_textbook(store)


@pytest.fixture(scope="module", params=["report", "application"])
def drawn(request, filled, browser, tmp_path_factory) -> Callable[[str], Any]:
    """What is drawn of a crystal of this name."""
    folder, keys = filled
    browser.emulate(width=1280, height=900)
    if request.param == "report":
        page = page_of(folder, tmp_path_factory.mktemp("page") / "page.html")

        def found(name: str) -> Any:
            browser.open("about:blank")
            browser.open(page, READY)
            browser.run(KEEP)
            browser.run(f"void (location.hash = '#crystals?crystal={keys[name].split('@')[0]}')")
            browser.wait("window.drawn?.outwards !== undefined")
            return browser.run(f"{BONDS}(window.drawn)")

        yield found
        return
    server = Server(folder)

    def asked(name: str) -> Any:
        address = f"{server.address}/crystals/{urllib.parse.quote(keys[name])}"
        browser.open(address, "document.documentElement?.dataset.ready === 'all'")
        return browser.run(f"{BONDS}(structureView)")

    yield asked
    server.kill()


@pytest.mark.parametrize(("name", "atoms"), [("MgO", 27), ("MgO, primitive", 9)])
def test_every_atom_of_rock_salt_has_six_bonds_to_the_other_kind(drawn, name, atoms):
    found = drawn(name)
    assert len(found) == atoms
    for symbol, others, outwards in found:
        assert len(others) + len(outwards) == 6
        assert set(others) <= {"Mg", "O"} - {symbol}
        # The next atoms of the same kind are 2.98 Å away.
        assert outwards == pytest.approx([4.212 / 2] * len(outwards))


def test_a_metal_alone_is_bonded(drawn):
    found = drawn("Cu")
    assert len(found) == 14
    for _, others, outwards in found:
        assert len(others) + len(outwards) == 12
        assert outwards == pytest.approx([3.615 / 2**0.5] * len(outwards))


def test_molecules_stay_apart(drawn):
    found = drawn("CO2")
    assert {symbol for symbol, _, _ in found} == {"C", "O"}
    for symbol, others, outwards in found:
        assert len(others) + len(outwards) == {"C": 2, "O": 1}[symbol]
        assert set(others) <= {"C", "O"} - {symbol}
        assert all(length < 1.2 for length in outwards)


def test_a_cell_stands_upright_and_fits_its_place_whatever_its_size(drawn, browser):
    drawn("MgO")
    view = "(window.drawn ?? structureView)"
    seen = f"{view}.viewer.modelToScreen({view}.edges.flat().map(spot))"
    box = f"{view}.place.getBoundingClientRect()"
    [foot, head] = browser.run(f"{view}.viewer.modelToScreen([[0, 0, 0], [0, 0, 4.212]].map(spot))")
    assert head["x"] == pytest.approx(foot["x"], abs=1)
    assert head["y"] < foot["y"] - 50
    for width in (375, 1280):
        browser.emulate(width=width, height=900)
        inside = f"at.x > {box}.left + scrollX && at.x < {box}.right + scrollX"
        inside += f" && at.y > {box}.top + scrollY && at.y < {box}.bottom + scrollY"
        large = f"Math.max(...{seen}.map((at) => at.y)) - Math.min(...{seen}.map((at) => at.y)) > 0.4 * {box}.height"
        browser.wait(f"{seen}.every((at) => {inside}) && {large}", 20)
