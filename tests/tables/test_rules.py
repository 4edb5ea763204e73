"""Interpolation or instability: three rules side by side, in tables, figures, the report and the script."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from made_documents import CONVERGED_ID, seen_exactly
from made_sets import exact, fill, fill_exact

from phononbench_flows.report import write_report
from phononbench_flows.report.contents import RULES_BY, gather
from phononbench_flows.statistics import wilson
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables import frames, plots
from phononbench_flows.tables.files import markdown
from phononbench_flows.tables.rows import Crystals, read_crystals

COUNTS = ["relaxed", "stable_by_rule", "stable_by_cured", "stable_by_exact", "undecided"]


@pytest.fixture
def folder(tmp_path) -> Path:
    with ResultsStore.open(tmp_path / "made", create=True) as store:
        fill_exact(store)
    return tmp_path / "made"


@pytest.fixture
def crystals(folder) -> Crystals:
    with ResultsStore.open(folder) as store:
        return read_crystals(store)


def counts(table: pd.DataFrame, by: str) -> dict[object, list[object]]:
    rows = table.to_dict("records")
    return {(row["set"], row[by]): [row[name] for name in COUNTS] for row in rows}


def test_rates_by_three_rules(crystals):
    table = frames.rules_table(crystals).set_index("set")
    assert table[COUNTS].T.to_dict("list") == {"A": [5, 1, 2, 3, 0], "B": [2, 2, 2, 0, 1], "all sets": [7, 3, 4, 3, 1]}
    for rule in frames.RULES:
        for name, row in table.iterrows():
            found = wilson(int(row[f"stable_{rule}"]), int(row["relaxed"]))
            expected = (found.rate, found.interval.low, found.interval.high)
            assert [row[rule], row[f"{rule}_low"], row[f"{rule}_high"]] == pytest.approx(expected), (name, rule)
    one = frames.rules_table(crystals.only(["A"]))
    assert list(one["set"]) == ["A"]


def test_by_system_symmetry_and_size(crystals):
    systems = counts(frames.rules_table(crystals, "crystal_system"), "crystal_system")
    assert systems["A", "Triclinic"] == [2, 0, 1, 2, 0]
    assert systems["all sets", "Cubic"] == [4, 2, 2, 1, 0]
    operations = counts(frames.rules_table(crystals, "operations"), "operations")
    assert operations["A", 1] == systems["A", "Triclinic"]
    assert operations["A", 48] == systems["A", "Cubic"]
    cells = counts(frames.rules_table(crystals, "cell"), "cell")
    assert cells["B", "17 to 32"] == [1, 1, 1, 0, 1]
    assert list(frames.rules_table(crystals, "cell")["cell"])[:2] == ["1 to 4", "17 to 32"]


def test_where_the_cured_minimum_is_not_known_there_is_no_rate(folder):
    with ResultsStore.open(folder) as store:
        store.put(exact(-0.2, 0.3, evidence=seen_exactly(-0.2, 0.3, cured=None)))
        table = frames.rules_table(read_crystals(store)).set_index("set")
    assert table.loc["B", "stable_by_cured"] == 2
    assert table.loc["A", ["stable_by_cured", "by_cured", "by_cured_low"]].isna().all()
    assert table.loc["A", "stable_by_exact"] == 4
    plots.rules_plot(table.reset_index()).draw_without_rendering()


def test_crystals_in_dispute(crystals):
    table = frames.disputed_table(crystals)
    assert table[["status", "path_thz", "exact_thz"]].to_numpy().tolist() == [
        ["stable", -4.2, 0.76],
        ["unstable", 0.0, -2.45],
        ["stable", -0.05, 0.8],
    ]
    assert set(table["path_q"]) == {"(0.125, 0, 0)"}
    assert "| lowest exact (THz) |" in markdown(table)


def test_both_rates_stand_beside_each_other_where_exact_frequencies_decide(crystals, folder):
    table = frames.funnel_table(crystals).set_index("set")
    assert table.loc["A", ["stable", "stable_by_rule"]].to_list() == [3, 1]
    assert (table.loc["A", "per_relaxed"], table.loc["A", "by_rule"]) == (0.6, 0.2)
    assert frames.total(table.reset_index())["stable_by_rule"] == 3
    plots.rates_plot(table.reset_index()).draw_without_rendering()
    with ResultsStore.open(folder) as store:
        fill(store)
        other = read_crystals(store, protocol="p")
    assert not {"by_rule", "stable_by_rule"} & set(frames.funnel_table(other))
    assert not [name for name in gather(other) if name.startswith("rules") or name == "disputed"]


def test_the_report_shows_them(crystals, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda figure, out, name: figure.draw_without_rendering())
    with ResultsStore.open(folder) as store:
        page = write_report(store, crystals, tmp_path / "report").read_text()
    names = ["rules", *(f"rules_by_{by}" for by in RULES_BY), "disputed"]
    assert {f"{name}.csv" for name in names} < {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    packed = re.search(r'id="data">([^<]+)<', page)[1]
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert data["exact"] is True
    assert data["rules"] == {f"rules_by_{by}": by for by in RULES_BY}
    assert list(data["thresholds"]["kinds"]) == ["verdict", "path", "commensurate", "mesh"]
    assert set(data["thresholds"]["kinds"]["verdict"]["curves"]["A"]["per_relaxed"]) == {0.6}
    at = data["thresholds"]["grid"].index(-1e-3)
    assert data["thresholds"]["kinds"]["path"]["curves"]["A"]["per_relaxed"][at] == 0.2
    columns = data["crystals"]
    row = columns["path"].index(-4.2)
    assert (columns["status"][row], columns["published"][row]) == ("stable", ["unstable", "unstable"])
    assert columns["why"][row].startswith("stable: the lowest mode at 9 q-points")
    assert columns["looks"][row][0] == ["<X>", [0.125, 0.0, 0.0], -4.2, 0.76, 8]
    assert (columns["wave"][row], columns["bulk"][row], columns["cured"][row]) == (42.0, 123.0, -1.5)
    failed = columns["status"].index("failed")
    assert columns["why"][failed] is None


def test_the_script_needs_exact_frequencies(run, folder, tmp_path, capsys):
    with ResultsStore.open(folder) as store:
        fill(store)
    printed = run("interpolation_or_instability", folder, "--protocol", CONVERGED_ID)
    assert "| A | 5 | 1 | 20.0 % (3.6 to 62.4) | 2 | 40.0 % (11.8 to 76.9) | 3 | 60.0 % (23.1 to 88.2) | 0 |" in printed
    assert (tmp_path / "out" / "rules_by_cell.png").is_file()
    with pytest.raises(SystemExit):
        run("interpolation_or_instability", folder, "--protocol", "p")
    assert "does not judge by exact frequencies" in " ".join(capsys.readouterr().err.split())


@pytest.mark.browser
def test_a_reader_sees_both_verdicts(browser, crystals, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda figure, out, name: [])
    with ResultsStore.open(folder) as store:
        page = write_report(store, crystals, tmp_path / "report")
    browser.open(page, "document.documentElement?.dataset.ready === 'charts'")
    text = "document.getElementById('{}').textContent".format
    assert "60.0 % 23.1 to 88.2published rule: 20.0 % (3.6 to 62.4)" in browser.run(text("board"))
    assert browser.run("document.getElementById('threshold').disabled") is True
    assert browser.run("document.getElementById('rules').hidden") is False
    assert "Interpolation or instability, by cell size" in browser.run(text("rules-list"))
    for name, value in (("filter-published", "unstable"), ("filter-status", "stable")):
        place = f"document.getElementById('{name}')"
        browser.run(f"{place}.value = '{value}', {place}.dispatchEvent(new Event('input'))")
    browser.run("document.getElementById('column-lowest').firstChild.click()")
    assert "0.7600" in browser.run(text("crystal-table"))  # the lowest exact one
    assert browser.run(text("page-text")) == "1–2 of 2 (7 in all)"
    browser.run("document.querySelector('#crystal-table tbody button').click()")
    browser.wait("document.getElementById('detail').open")
    facts = browser.run(text("facts"))
    assert "verdictstable: the lowest mode at 9 q-points where nothing is interpolated" in facts
    assert "published ruleunstable at −0.001 THz, unstable at −0.1 THz" in facts
    assert "bulk modulus123 GPa" in facts
    assert "<X>(0.125, 0, 0)−4.20000.76008" in browser.run(text("looks"))
    assert browser.complaints == []
