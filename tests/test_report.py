"""The report: its files, what its page may do, and what a reader can do with it in a browser."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from browser import Browser
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.bands import Bands
from phononbench_flows.protocol import Judgement
from phononbench_flows.report import write_report
from phononbench_flows.report.compact import compact_bands, element_looks, structure_bytes
from phononbench_flows.report.contents import gather
from phononbench_flows.report.data import _chosen, page_data
from phononbench_flows.report.page import render
from phononbench_flows.stability import Evidence, Look, assess
from phononbench_flows.statistics import was_relaxed, wilson
from phononbench_flows.steps.passing import conclude
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables import plots
from phononbench_flows.tables.cards import read_cards
from phononbench_flows.tables.frames import THRESHOLDS
from phononbench_flows.tables.rows import Q_POINTS, read_crystals

READY = "document.documentElement?.dataset.ready === 'charts'"


def page_of(folder: Path, out: Path, n_bands: int = 40) -> Path:
    """The page alone: drawing the figures takes most of a report's time."""
    with ResultsStore.open(folder) as store:
        crystals = read_crystals(store)
        contents = gather(crystals)
        cards = [card.as_dict() for card in read_cards(store, crystals)]
        out.write_text(render(page_data(store, crystals, contents, n_bands, cards), "Dynamical stability of x"))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store")
    with synthetic.fill(path, 300) as store:
        about = store.get_set("Alpha")
        about.model = f"=cmd {synthetic.HOSTILE}"
        store.put_set(about)
    return path


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory) -> Path:
    """The report of 300 crystals with hostile names, of which 40 show their bands."""
    with ResultsStore.open(folder) as store:
        return write_report(store, read_crystals(store), tmp_path_factory.mktemp("report"), n_bands=40)


class Markup(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def inflated(text: str, name: str) -> bytes:
    found = re.search(rf'<script type="text/plain" id="{name}">([A-Za-z0-9+/=]*)</script>', text)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1]))


@pytest.fixture(scope="module")
def data(page) -> dict[str, Any]:
    return json.loads(inflated(page.read_text(), "data"))


# -- what is in it ---------------------------------------------------------------------------------------------


def test_every_table_is_there_as_csv_and_markdown_and_figures(page):
    names = {path.stem for path in (page.parent / "tables").glob("*.csv")}
    assert names == {path.stem for path in (page.parent / "tables").glob("*.md")}
    assert names == {
        *("leaderboard", "funnel", "thresholds", "comparison", "by_crystal_system", "by_nelements", "condition_target"),
        *("elements", "convergence", "samples", "failures", "architectures", "generation_speed", "cards"),
    }
    drawn = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert drawn == {path.stem for path in (page.parent / "figures").glob("*.svg")}
    assert drawn == names - {"comparison", "samples", "architectures", "generation_speed", "cards"}


def test_cards_are_there_as_json_and_as_a_leaderboard(page, data):
    plain = json.loads((page.parent / "cards.json").read_text())
    assert plain == data["cards"]
    with (page.parent / "tables" / "cards.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [card["set"] for card in plain] == [row["set"] for row in rows]
    for card, row in zip(plain, rows, strict=True):
        [hits] = [line for line in card["lines"] if line["name"] == "dsun"]
        assert 0 < hits["count"] < hits["total"]
        assert float(row["share_dsun"]) == pytest.approx(hits["count"] / hits["total"])
    rates = [card["lines"][-1]["rate"] for card in plain]
    assert rates == sorted(rates, reverse=True)


def test_no_cell_is_a_formula_and_no_markdown_is_html(page):
    cells = [
        cell
        for path in (page.parent / "tables").glob("*.csv")
        for row in csv.reader(path.read_text().splitlines())
        for cell in row
    ]
    assert any(cell.startswith("'=cmd ") for cell in cells)
    for cell in cells:
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or float(cell) <= 0
    for path in (page.parent / "tables").glob("*.md"):
        assert not re.search(r"(?<!\\)<(script|img)", path.read_text())


def test_the_page_carries_only_its_own_markup(page):
    text = page.read_text()
    markup = Markup(text)
    tags = [tag for tag, _ in markup.tags]
    assert tags.count("script") == 6
    assert not {"img", "link", "iframe", "object", "embed", "base", "form"} & set(tags)
    for tag, attributes in markup.tags:
        assert not {"src", "srcset", "onerror", "onload", "onclick", "style"} & set(attributes)
        assert tag != "a" or attributes["href"].startswith("#")
    assert synthetic.HOSTILE[:20] not in text
    assert "alert(" not in text
    assert json.dumps(synthetic.HOSTILE)[1:-1].encode() in json.dumps(json.loads(inflated(text, "data"))).encode()


def test_only_its_own_scripts_may_run_and_nothing_may_be_fetched(page):
    text = page.read_text()
    markup = Markup(text)
    [policy] = [a["content"] for tag, a in markup.tags if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    own = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(own) == 1
    allowed = [own[0].encode(), inflated(text, "plotly"), inflated(text, "viewer")]
    digests = [base64.b64encode(hashlib.sha256(code).digest()).decode() for code in allowed]
    assert rules["script-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert "http" not in policy
    assert "unsafe" not in rules["script-src"]


def test_own_scripts_make_no_markup_from_text():
    package = Path(__file__).parent.parent / "phononbench_flows"
    ours = [path for path in package.rglob("*.js") if not path.name.startswith("3Dmol")]
    assert len(ours) > 10
    for path in ours:
        code = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code)


def test_the_leaderboard_at_the_protocols_threshold_is_the_table(data):
    thresholds = data["thresholds"]
    place = thresholds["grid"].index(synthetic.PROTOCOL.judgement.threshold)
    table = data["tables"]["leaderboard"]["data"]
    for row, name in enumerate(table["set"]):
        curve = thresholds["kinds"]["judged"]["curves"][name]
        assert curve["stable"][place] == table["stable"][row]
        for column in ("per_relaxed", "per_relaxed_low", "per_generated", "per_generated_high"):
            assert curve[column][place] == pytest.approx(table[column][row])


# -- the slider against the one rule ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_thresholds(tmp_path_factory) -> Path:
    """Crystals whose lowest frequencies lie on, just above and just below thresholds, each place by itself; and some
    that are undecided, or failed after their relaxation.
    """
    path = tmp_path_factory.mktemp("on_thresholds")
    draw = np.random.default_rng(3)

    def lowest() -> float:
        near = float(draw.choice(THRESHOLDS))
        return float(
            draw.choice([near, np.nextafter(near, -9), np.nextafter(near, 9), 0.0, -(10 ** draw.uniform(-8, 1))])
        )

    with synthetic.fill(path, 240, seed=5) as store:
        for number, document in enumerate(list(store.documents({"assessments": {"$ne": []}}, sort={"id": 1}))):
            places = ["path", "mesh", "commensurate"][number % 5 == 0 :]
            looks = {place: Look(frequency=lowest(), q=[0, 0, 0], n_q=9, exact=False) for place in places}
            document.evidence = Evidence(looks=looks)
            conclude(document, synthetic.PROTOCOL)
            if number % 7 == 0:
                document.status, document.reason = "failed", "exception"
            store.put(document)
    return path


@pytest.fixture(scope="module")
def slider_page(on_thresholds, tmp_path_factory) -> Path:
    return page_of(on_thresholds, tmp_path_factory.mktemp("slider") / "page.html")


@pytest.fixture(scope="module")
def assessed(on_thresholds) -> dict[str, dict[str, list[tuple[int, int, int]]]]:
    """By place and set, at each threshold of the slider: crystals that are stable, relaxed and generated."""
    own = synthetic.PROTOCOL.judgement
    with ResultsStore.open(on_thresholds) as store:
        documents = list(store.documents())
    by_set = {name: [each for each in documents if each.set == name] for name in synthetic.SETS}
    grid = sorted({*THRESHOLDS, *own.thresholds}, reverse=True)

    def stable(document: CalculationDocument, kind: str, threshold: float) -> bool:
        place = own.q_points if kind == "judged" else kind
        judgement = Judgement.model_validate({"q_points": place, "threshold": threshold, "also": ()})
        [found] = assess(document.evidence, judgement)
        return found.stability == "stable" and document.status != "failed"

    return {
        kind: {
            name: [(sum(stable(each, kind, t) for each in relaxed), len(relaxed), len(of_set)) for t in grid]
            for name, of_set in by_set.items()
            for relaxed in [[each for each in of_set if was_relaxed(each.status, each.stage)]]
        }
        for kind in Q_POINTS
    }


def test_the_slider_holds_what_the_evidence_says_at_every_threshold_and_place(assessed, slider_page):
    thresholds = json.loads(inflated(slider_page.read_text(), "data"))["thresholds"]
    assert thresholds["grid"] == sorted({*THRESHOLDS, *synthetic.PROTOCOL.judgement.thresholds}, reverse=True)
    assert thresholds["protocol"] == list(synthetic.PROTOCOL.judgement.thresholds)
    assert list(thresholds["kinds"]) == list(assessed)
    for kind, sets in assessed.items():
        assert set(thresholds["kinds"][kind]["curves"]) == set(sets)
        for name, counts in sets.items():
            curve = thresholds["kinds"][kind]["curves"][name]
            assert curve["stable"] == [stable for stable, _, _ in counts], (kind, name)
            assert len(set(curve["stable"])) > 8
            for place, (stable, relaxed, generated) in enumerate(counts):
                for rate, found in (
                    ("per_relaxed", wilson(stable, relaxed)),
                    ("per_generated", wilson(stable, generated)),
                ):
                    expected = (found.rate, found.interval.low, found.interval.high)
                    shown = (curve[rate][place], curve[f"{rate}_low"][place], curve[f"{rate}_high"][place])
                    assert shown == pytest.approx(expected, rel=1e-5, abs=1e-6)
    # What the protocol looks at is the path.
    assert assessed["judged"] == assessed["path"] != assessed["mesh"]


def test_the_pages_colours_are_those_of_the_rule(on_thresholds, slider_page):
    # A band structure is drawn as imaginary where its own lowest frequency is so at the protocol's threshold.
    data = json.loads(inflated(slider_page.read_text(), "data"))
    with ResultsStore.open(on_thresholds) as store:
        for place, header in data["bands"].items():
            [document] = store.documents({"id": data["crystals"]["id"][int(place)]})
            bands = Bands.from_arrays(store.blobs.get(document.arrays["band_structure"]))
            seen = Look(frequency=min(float(f.min()) for f in bands.frequencies), q=[0, 0, 0], n_q=1, exact=False)
            [found] = assess(Evidence(looks={"path": seen}), Judgement(threshold=-1e-3, also=()))
            assert header["imaginary"] is (found.stability == "unstable")
    assert {header["imaginary"] for header in data["bands"].values()} == {True, False}


@pytest.mark.browser
def test_the_slider_shows_what_the_evidence_says(browser, assessed, slider_page):
    browser.open(slider_page, READY)
    for kind, sets in assessed.items():
        set_value(browser, "q-points", kind)
        for place in range(len(next(iter(sets.values())))):
            set_value(browser, "threshold", place)
            shown = {row[1].split("Model ")[0]: row for row in board(browser)}
            assert set(shown) == set(sets)
            for name, counts in sets.items():
                stable, relaxed, generated = counts[place]
                assert shown[name][2:5] == [str(generated), str(relaxed), str(stable)]
                for text, found in zip(shown[name][5:], (wilson(stable, n) for n in (relaxed, generated)), strict=True):
                    numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
                    expected = [100 * each for each in (found.rate, found.interval.low, found.interval.high)]
                    assert numbers == pytest.approx(expected, abs=0.0501)
    check_untouched(browser, slider_page)


def test_the_ranking_is_said_to_turn_at_the_threshold_where_it_turns(tmp_path):
    def forged(row: dict[str, Any], number: int) -> dict[str, Any]:
        # Of 30 crystals each: Alpha has 8 of 20 relaxed stable at first, and Beta 9 of 30.
        name = "Alpha" if number < 30 else "Beta"
        place = number % 30
        missing = name == "Alpha" and place >= 20
        stable = place < (8 if name == "Alpha" else 9)
        minimum = {"frequency": 0.0 if stable else -1.0, "q": [0, 0, 0], "n_q": 1, "exact": False}
        change = {"id": f"{name}-{place}", "key": f"{name}-{place}@{synthetic.PROTOCOL_ID}", "set": name}
        if missing:
            lost = {"status": "rejected", "stage": "read", "reason": "unparsable", "evidence": {"looks": {}}}
            return row | change | lost | {"minimum": None, "assessments": []}
        status = "stable" if stable else "unstable"
        return row | change | {"status": status, "minimum": minimum}

    with synthetic.fill(tmp_path / "store", 60) as store:
        template = next(store.query({"status": "stable"}))
        store._calculations.remove_docs({})
        store._calculations.update([forged(template, number) for number in range(60)])
    data = json.loads(inflated(page_of(tmp_path / "store", tmp_path / "page.html").read_text(), "data"))
    grid, turns = data["thresholds"]["grid"], data["thresholds"]["kinds"]["judged"]["turns"]
    [warning] = turns[grid.index(-0.001)]
    assert warning.startswith("Alpha leads Beta per relaxed (40.0 to 30.0 %)")
    assert data["tables"]["ranking"]["data"]["warning"] == [warning]


def test_the_same_store_makes_the_same_page(folder, tmp_path):
    assert page_of(folder, tmp_path / "1.html").read_bytes() == page_of(folder, tmp_path / "2.html").read_bytes()


def test_bands_are_chosen_evenly_and_near_the_threshold():
    columns = {
        "set": ["A"] * 6 + ["B"] * 2,
        "status": ["stable"] * 3 + ["unstable"] * 3 + ["stable", "failed"],
        "lowest": [-1e-8, -5e-4, 0.0, -0.5, -0.002, -3.0, -2e-4, None],
    }
    refs: list[Any] = [object()] * 7 + [None]
    assert _chosen(columns, refs, -1e-3, 3) == [1, 4, 6]
    assert _chosen(columns, refs, -1e-3, 5) == [0, 1, 3, 4, 6]
    assert _chosen(columns, refs, -1e-3, 100) == list(range(7))
    assert _chosen(columns, refs, -1e-3, 0) == []


def test_structures_survive():
    lattice = Lattice.from_parameters(3.1, 4.2, 5.3, 80, 95, 120)
    structure = Structure(lattice, ["Na", "Cl", "U"], [[0, 0.25, 0.999999], [-0.1, 1.3, 0.5], [1 / 3, 2 / 3, 0.77]])
    packed = structure_bytes(structure.as_dict())
    assert len(packed) == 72 + 13 * 3
    np.testing.assert_allclose(np.frombuffer(packed[:72], "<f8").reshape(3, 3), lattice.matrix, atol=1e-12)
    coordinates = np.frombuffer(packed[72:108], "<u4").reshape(3, 3) / 2**32
    apart = (coordinates - structure.frac_coords + 0.5) % 1 - 0.5
    assert np.abs(apart).max() <= 2**-32
    assert list(packed[108:]) == [11, 17, 92]


def test_what_is_no_ordered_crystal_has_no_structure():
    disordered = Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    vacant = Structure(Lattice.cubic(3), [{"Na": 0.5}], [[0, 0, 0]])
    assert structure_bytes(disordered.as_dict()) == structure_bytes(vacant.as_dict()) == structure_bytes(None) == b""


def test_bands_survive():
    random = np.random.default_rng(0)
    distances = [np.linspace(i, i + 1, 301) for i in range(3)]
    frequencies = [random.normal(scale=5, size=(301, 4)) for _ in distances]
    frequencies[1][137, 2] = -40.0
    q = [np.zeros((301, 3))] * 3
    bands = Bands(q, distances, frequencies, ["GAMMA", "X", "Y", "Z"], [True, True, False])
    compact = compact_bands(bands)
    n = sum(compact.lengths)
    assert 150 <= n <= 170
    x = np.frombuffer(compact.data[: 4 * n], "<f4")
    steps = np.frombuffer(compact.data[4 * n :], np.uint8).reshape(2, -1)
    values = np.cumsum((steps[0] + 256 * steps[1].astype(int)).reshape(4, n), axis=1).astype(np.int16) * compact.scale
    # Every point kept is one of the band structure, and the ends of the segments and the lowest are kept.
    given = {
        round(float(d), 5): f
        for ds, fs in zip(distances, frequencies, strict=True)
        for d, f in zip(ds, fs, strict=True)
    }
    inner = [place for place, d in enumerate(x) if d not in {1.0, 2.0}]
    for place in inner:
        np.testing.assert_allclose(values[:, place], given[round(float(x[place]), 5)], atol=compact.scale)
    assert values.min() == pytest.approx(-40.0, abs=compact.scale)
    assert {0.0, 3.0} <= set(x.tolist())
    assert compact.ticks == [(0.0, "Γ"), (1.0, "X"), (2.0, "Y"), (3.0, "Z")]


def test_the_periodic_table_has_a_place_for_each():
    looks = element_looks()
    assert len(looks) == len({(look.row, look.column) for look in looks.values()}) == 118
    assert (looks["H"].row, looks["He"].column, looks["La"].row, looks["Lu"].column) == (1, 18, 9, 17)
    assert (looks["Hf"].row, looks["Hf"].column, looks["U"].row) == (6, 4, 10)
    assert all(re.fullmatch("#[0-9a-f]{6}", look.colour) for look in looks.values())


def test_conditions_with_any_name_and_any_number_of_values(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda figure, out, name: [])
    with synthetic.fill(tmp_path / "store", 120) as store:
        for number, document in enumerate(list(store.documents({"status": {"$in": ["stable", "unstable"]}}))):
            document.condition = {"../../out": number % 2, "stable": "yes", "energy": number / 7}
            store.put(document)
        crystals = read_crystals(store)
        contents = gather(crystals)
        page = write_report(store, crystals, tmp_path / "deep" / "down" / "report")
    conditions = {name: content for name, content in contents.items() if name.startswith("condition_")}
    assert list(conditions) == ["condition__out", "condition_energy", "condition_stable", "condition_target"]
    assert {name for name, content in conditions.items() if content.figure is None} == {"condition_energy"}
    assert {path.parent for path in tmp_path.rglob("*.csv")} == {page.parent / "tables"}
    shown = json.loads(inflated(page.read_text(), "data"))["breakdowns"]
    assert shown["condition__out"] == "../../out"
    assert "condition_energy" not in shown


def test_the_command(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda figure, out, name: [])  # it takes its time, and was tried above

    def invoke(*arguments: object):
        return CliRunner().invoke(app, ["report", *map(str, arguments)])

    done = invoke(folder, "--set", "Alpha", "--bands", 3, "--out", tmp_path / "alpha")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "alpha" / "report.html").read_text()
    assert "Dynamical stability of Alpha" in text
    assert "(3 of " in text
    shown = json.loads(inflated(text, "data"))
    assert set(shown["crystals"]["set"]) == {"Alpha"}
    assert len(shown["bands"]) == 3
    for wrong in (["--set", "Nobody"], ["--protocol", "none"]):
        result = invoke(folder, *wrong, "--out", tmp_path / "wrong")
        assert result.exit_code == 2
        assert "Traceback" not in result.output
    assert not (tmp_path / "wrong").exists()


def test_nothing_was_judged(tmp_path):
    with synthetic.fill(tmp_path / "store", 30) as store:
        store._calculations.remove_docs({"status": {"$in": ["stable", "unstable", "failed", "duplicate", "known"]}})
        assert store.count() > 0
    page = page_of(tmp_path / "store", tmp_path / "page.html")
    assert json.loads(inflated(page.read_text(), "data"))["overall"]["per_relaxed"] is None


# -- in a browser ----------------------------------------------------------------------------------------------


def cell(row: int, column: str) -> str:
    place = f"[...document.querySelectorAll('#crystal-table th')].findIndex((th) => th.id === 'column-{column}')"
    return f"document.querySelectorAll('#crystal-table tbody tr')[{row}].cells[{place}].textContent"


def board(browser: Browser) -> list[list[str]]:
    return browser.run(
        "[...document.querySelectorAll('#board tbody tr')].map((tr) => [...tr.cells].map((td) => td.textContent))"
    )


def total(browser: Browser) -> int:
    return int(
        re.search(r"of ([\d,]+)", browser.run("document.getElementById('page-text').textContent"))[1].replace(",", "")
    )


def set_value(browser: Browser, control: str, value: object) -> None:
    browser.run(
        f"(() => {{ const it = document.getElementById('{control}'); it.value = {json.dumps(value)}; "
        "it.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def check_untouched(browser: Browser, page: Path) -> None:
    """Nothing but the file was asked for, nothing went wrong, and no name became markup or script."""
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []
    assert browser.run("document.title").startswith("Dynamical stability of ")
    assert browser.run("document.querySelectorAll('img').length") == 0


def walk_through(browser: Browser, page: Path) -> None:
    """What a reader does with the page."""
    # The slider moves the leaderboard.
    before = board(browser)
    assert browser.run("document.getElementById('threshold-value').textContent") == "−0.001 THz"
    browser.run("document.getElementById('threshold').focus()")
    browser.press("End", 35)
    browser.wait("document.getElementById('threshold-value').textContent === '−1 THz'")
    after = board(browser)
    stable = {row[1]: int(row[4].replace(",", "")) for row in before}
    assert all(int(row[4].replace(",", "")) > stable[row[1]] for row in after)
    # The table sorts, numbers as numbers, and what has none comes last.
    browser.run("document.querySelector('#column-lowest button').click()")
    lowest = [float(browser.run(cell(row, "lowest")).replace("−", "-")) for row in range(3)]
    assert lowest == sorted(lowest)
    assert lowest[0] < -1
    browser.run("document.querySelector('#column-lowest button').click()")
    assert float(browser.run(cell(0, "lowest")).replace("−", "-")) > -0.001
    assert browser.run("document.getElementById('column-lowest').getAttribute('aria-sort')") == "descending"
    # The search and the filters narrow it.
    every = total(browser)
    set_value(browser, "search", "beta not_converged")
    assert 0 < total(browser) < every / 10
    assert browser.run(cell(0, "status")) == "failed"
    set_value(browser, "search", "")
    set_value(browser, "filter-status", "unstable")
    assert 0 < total(browser) < every
    # A row opens its band structure, with its imaginary part in red, and its structure; so does the keyboard.
    browser.run("document.getElementById('filter-bands').click()")
    browser.run("document.querySelector('#crystal-table tbody button').focus()")
    browser.press("Enter", 13)
    browser.wait("document.getElementById('detail').open")
    browser.wait("document.querySelectorAll('#bands-chart .trace').length >= 3")
    browser.wait("document.querySelectorAll('#structure-chart canvas').length === 1")
    assert "crystal=" in browser.run("location.hash")
    names = browser.run("document.getElementById('bands-chart').data.map((trace) => trace.name)")
    assert names[:2] == ["real", "imaginary"]
    assert (
        browser.run("Math.min(...document.getElementById('bands-chart').data[1].y.filter((y) => y !== null))") < -0.01
    )
    assert browser.run("document.getElementById('bands-chart').layout.xaxis.ticktext") == ["Γ", "X", "M|R", "Γ"]
    title = browser.run("document.getElementById('detail-title').textContent")
    browser.run("document.getElementById('detail-next').click()")
    assert browser.run("document.getElementById('detail-title').textContent") != title
    browser.press("Escape", 27)
    browser.wait("!document.getElementById('detail').open")
    # An element of the periodic table shows its crystals.
    set_value(browser, "filter-status", "")
    browser.run("document.getElementById('filter-bands').click()")
    browser.run(
        "[...document.querySelectorAll('#periodic button')].find((b) => b.textContent.startsWith('Ba')).click()"
    )
    assert 0 < total(browser) < every
    check_untouched(browser, page)


@pytest.mark.browser
def test_a_reader(browser, page):
    browser.open(page, READY)
    assert browser.run("document.getElementById('trouble').hidden")
    assert browser.run("document.querySelectorAll('.chart .main-svg').length") > 6
    walk_through(browser, page)


@pytest.mark.browser
def test_hostile_names_are_shown_as_they_are(browser, page, data):
    browser.open(page, READY)
    set_value(browser, "search", "onerror")
    assert total(browser) == sum(
        "onerror" in json.dumps([data["crystals"][c][i] for c in ("detail", "known_as", "source")]) for i in range(300)
    )
    browser.run("document.querySelector('#crystal-table tbody button').click()")
    browser.wait("document.getElementById('detail').open")
    assert synthetic.HOSTILE in browser.run("document.getElementById('facts').textContent")
    assert "=cmd" in browser.run("document.getElementById('board').textContent")
    check_untouched(browser, page)


@pytest.mark.browser
def test_cards_show_what_was_counted(browser, page, data):
    browser.open(page, READY)
    for card in data["cards"]:
        shown = browser.run(f"document.querySelector('[data-card=\"{card['set']}\"]').innerText")
        [hits] = [line for line in card["lines"] if line["name"] == "dsun"]
        assert f"{hits['count']} of {hits['total']}" in shown
        assert f"{100 * hits['rate']:.1f} %" in shown
        assert "none confirmed" in shown
    assert browser.complaints == []


@pytest.mark.browser
def test_a_script_that_got_in_would_not_run(browser, page):
    browser.open(page, READY)
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.evil = 1'}))"
    )
    assert browser.run("window.evil === undefined")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


@pytest.mark.browser
def test_small_and_dark(browser, page):
    browser.emulate(width=390, height=800, dark=True)
    try:
        browser.open(page, READY)
        assert browser.run("document.documentElement.dataset.theme") == "dark"
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.run("document.getElementById('theme').click()")
        assert browser.run("document.documentElement.dataset.theme") == "light"
        check_untouched(browser, page)
    finally:
        browser.emulate(width=1280, height=900)


@pytest.mark.browser
def test_nothing_to_draw(browser, tmp_path):
    with synthetic.fill(tmp_path / "store", 30) as store:
        store._calculations.remove_docs({"status": {"$ne": "rejected"}})
    page = page_of(tmp_path / "store", tmp_path / "page.html")
    browser.open(page, READY)
    assert browser.run("document.querySelectorAll('#crystal-table tbody tr').length") > 0
    check_untouched(browser, page)


@pytest.mark.browser
@pytest.mark.slow
def test_ten_thousand(browser, tmp_path):
    synthetic.fill(tmp_path / "store", 10_000, n_bands=500).close()
    page = page_of(tmp_path / "store", tmp_path / "page.html", n_bands=500)
    assert page.stat().st_size < 12e6
    assert browser.open(page, READY) < 30
    walk_through(browser, page)
    assert total(browser) > 1000
