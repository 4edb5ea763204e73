"""Rows and tables over made-up crystals, counted by hand, from either store; and what they look like in files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_sets import crystal, evidence, fill, judged, system
from pydantic import ValidationError

from phononbench_flows.documents import SetDocument
from phononbench_flows.statistics import wilson
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables import frames, plots
from phononbench_flows.tables.files import markdown, write_table
from phononbench_flows.tables.rows import Crystals, SelectionError, read_crystals


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultsStore]:
    with ResultsStore.open(tmp_path / "store", create=True) as opened:
        fill(opened)
        yield opened


@pytest.fixture
def crystals(store: ResultsStore) -> Crystals:
    return read_crystals(store)


# ----------------------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------------------
def test_rows_hold_what_is_counted(crystals):
    rows = crystals.rows
    assert len(rows) == 23
    assert rows["status"].value_counts().to_dict() == {
        "unstable": 10,
        "stable": 6,
        "failed": 3,
        "rejected": 1,
        "duplicate": 1,
        "known": 1,
        "pending": 1,
    }
    assert rows["relaxed"].sum() == 17
    first = rows.iloc[2]
    assert (first["judged_thz"], first["path_thz"], first["mesh_thz"]) == (-0.05, -0.05, -0.5)
    assert pd.isna(first["commensurate_thz"])
    assert (first["elements"], first["nelements"], first["crystal_system"]) == (["Li"], 1, "Cubic")
    assert list(crystals.sets) == ["A", "B"]
    assert (crystals.judge.protocol_id, crystals.judge.protocol_name, crystals.judge.potential) == (
        "p",
        "paper",
        "test",
    )


def test_the_condition_of_a_set_holds_where_the_crystal_says_nothing(crystals):
    conditions = crystals.rows.loc[crystals.rows["set"] == "B", "condition"]
    assert [condition["band_gap"] for condition in conditions] == [1.5] * 8 + [0.5] * 4
    assert all(condition == {} for condition in crystals.rows.loc[crystals.rows["set"] == "A", "condition"])


def test_sets_and_protocols_are_chosen(store):
    store.put(judged(0.0, "A", protocol_id="q", protocol_name="commensurate", key="A-0@q"))
    with pytest.raises(SelectionError, match=r"choose one protocol: p \(paper, test\); q \(commensurate, test\)"):
        read_crystals(store)
    assert len(read_crystals(store, protocol="q").rows) == 1
    assert len(read_crystals(store, protocol="paper").rows) == 23
    assert set(read_crystals(store, sets=["B"]).rows["set"]) == {"B"}
    assert list(read_crystals(store, protocol="p").only(["A"]).sets) == ["A"]
    for wrong, why in (
        ({"protocol": "r"}, "no crystals under protocol 'r', only under p"),
        ({"sets": ["C"]}, "no such crystals"),
        ({"sets": ["A", "C"], "protocol": "p"}, "no crystals of set 'C'"),
    ):
        with pytest.raises(SelectionError, match=why):
            read_crystals(store, **wrong)


def test_one_name_of_two_protocols_is_not_enough(store):
    store.put(judged(0.0, "A", protocol_id="q", key="A-0@q"))
    with pytest.raises(SelectionError, match=r"choose one protocol: p \(paper, test\); q \(paper, test\)"):
        read_crystals(store, protocol="paper")


def test_nothing_to_read(tmp_path):
    with ResultsStore.open(tmp_path, create=True) as empty, pytest.raises(SelectionError, match="no such crystals"):
        read_crystals(empty)


def test_both_stores_give_the_same_tables(store, mongo_database):
    with ResultsStore.open(f"mongo:{mongo_database}") as server:
        documents, sets = list(store.documents()), store.sets()
        server.put(*documents)
        for about in sets:
            server.put_set(about)
        found = [read_crystals(each) for each in (store, server)]
    for name, table in all_tables(found[0]).items():
        pd.testing.assert_frame_equal(table, all_tables(found[1])[name])


def all_tables(crystals: Crystals) -> dict[str, pd.DataFrame]:
    funnels = frames.funnel_table(crystals)
    return {
        "funnels": funnels,
        "turns": frames.ranking_turns(funnels),
        "pairs": frames.pair_table(funnels),
        "samples": frames.samples_table(funnels),
        "convergence": frames.convergence_table(funnels),
        "thresholds": frames.threshold_table(crystals),
        "failures": frames.failure_table(crystals),
        "systems": frames.breakdown(crystals, "crystal_system"),
        "elements of crystals": frames.breakdown(crystals, "nelements"),
        "band gap": frames.condition_table(crystals, "band_gap"),
        "elements": frames.element_table(crystals),
        "speed": frames.speed_table(crystals.sets.values()),
        "architectures": frames.architecture_table(crystals.sets.values()),
    }


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------
def rate_of(row: pd.Series, name: str) -> tuple[float, float, float]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def expected(count: int, total: int) -> tuple[float, float, float]:
    found = wilson(count, total)
    assert found.rate is not None
    assert found.interval is not None
    return pytest.approx((found.rate, found.interval.low, found.interval.high))


def test_funnel_table(crystals):
    # A is not finished: it comes last, and has no rank.
    b, a = (row for _, row in frames.funnel_table(crystals).iterrows())
    assert (a["set"], b["set"]) == ("A", "B")
    counts = ["generated", "not_handed_in", "duplicate", "known", "unique", "rejected", "accepted", "pending"]
    counts += ["failed", "failed_relaxation", "relaxed", "judged", "stable", "unstable"]
    assert a[counts].to_list() == [20, 9, 1, 1, 9, 1, 8, 1, 3, 2, 5, 4, 2, 2]
    assert b[counts].to_list() == [12, 0, 0, 0, 12, 0, 12, 0, 0, 0, 12, 12, 4, 8]
    assert rate_of(a, "per_relaxed") == expected(2, 5)
    assert rate_of(a, "per_generated") == expected(2, 20)
    assert a[["rank_per_relaxed", "rank_per_generated"]].isna().all()
    assert b[["rank_per_relaxed", "rank_per_generated"]].to_list() == [1, 1]
    assert (a["model"], a["training_set"], b["condition"]) == ("M-Net", "MP-20", "band_gap = 0.5")
    assert pd.isna(a["condition"])
    assert pd.isna(b["model"])


def test_total_adds_up(crystals):
    found = frames.total(frames.funnel_table(crystals))
    assert (found["set"], found["generated"], found["relaxed"], found["stable"]) == (frames.ALL, 32, 17, 6)
    assert rate_of(found, "per_relaxed") == expected(6, 17)
    assert rate_of(found, "per_generated") == expected(6, 32)


def test_the_ranking_turns_with_the_denominator(crystals):
    (warning,) = frames.ranking_turns(frames.funnel_table(crystals))["warning"]
    assert warning == "A leads B per relaxed (40.0 to 33.3 %), but trails it per generated (10.0 to 33.3 %)."


@pytest.mark.parametrize("rates", [[(0.5, 0.5), (0.4, 0.4)], [(0.5, 0.3), (0.5, 0.4)], [(0.5, 0.4), (0.4, 0.4)]])
def test_a_tie_is_no_turn(rates):
    rows = [{"set": name, "per_relaxed": a, "per_generated": b} for name, (a, b) in zip("AB", rates, strict=True)]
    assert frames.ranking_turns(pd.DataFrame(rows)).empty


def test_pairs_are_corrected_for_their_number():
    rows = [{"set": name, "stable": k, "relaxed": n} for name, k, n in (("A", 30, 60), ("B", 20, 60), ("C", 5, 60))]
    table = frames.pair_table(pd.DataFrame([*rows, {"set": "D", "stable": 0, "relaxed": 0}]))
    assert list(zip(table["first"], table["second"], strict=True)) == [("A", "B"), ("A", "C"), ("B", "C")]
    assert table["difference"].to_list() == pytest.approx([10 / 60, 25 / 60, 15 / 60])
    assert ((table["difference_low"] < table["difference"]) & (table["difference"] < table["difference_high"])).all()
    assert table["p_holm"][1] == pytest.approx(3 * table["p_value"][1])
    assert table["p_holm"][0] == table["p_value"].max()


def test_samples_needed(crystals):
    b, a = frames.samples_table(frames.funnel_table(crystals), half_width=0.1).to_dict("records")
    # Wilson's interval for a rate of 0.4 is 0.2 wide from 90 crystals on; 1 of 4 generated was relaxed.
    assert (a["needed"], a["more_relaxed"], a["more_generated"]) == (89, 84, 336)
    assert a["half_width"] == pytest.approx((a["per_relaxed_high"] - a["per_relaxed_low"]) / 2)
    assert (b["more_relaxed"], b["more_generated"]) == (b["needed"] - 12, b["needed"] - 12)
    enough = frames.samples_table(frames.funnel_table(crystals), half_width=0.49)
    assert enough["more_relaxed"].to_list() == [0, 0]


def test_rate_by_threshold(crystals):
    table = frames.threshold_table(crystals, [-1e-7, -1e-5, -1e-3, -0.05, -0.1, -1.0])
    stable = table.pivot_table(index=["set", "q_points"], columns="threshold_thz", values="stable", sort=False)
    columns = [-1e-7, -1e-5, -1e-3, -0.05, -0.1, -1.0]
    # What lies on the threshold is stable.
    assert stable.loc[("A", "judged"), columns].to_list() == [1, 2, 2, 3, 3, 3]
    assert stable.loc[("A", "mesh"), columns].to_list() == [2, 2, 2, 2, 2, 4]
    assert stable.loc[("A", "commensurate"), columns].to_list() == [0] * 6
    assert stable.loc[("B", "path"), columns].to_list() == [3, 3, 4, 4, 7, 12]
    assert set(table.loc[table["set"] == "A", "relaxed"]) == {5}
    at_the_protocols = table[(table["threshold_thz"] == -1e-3) & (table["q_points"] == "judged")]
    funnels = frames.funnel_table(crystals).sort_values("set")
    assert at_the_protocols["per_relaxed"].to_list() == funnels["per_relaxed"].to_list()
    assert at_the_protocols["per_relaxed_low"].to_list() == pytest.approx(funnels["per_relaxed_low"].to_list())


def test_undecided_crystals_were_relaxed_and_are_neither_stable_nor_unstable(store):
    lost = {"minimum": None, "assessments": [{"threshold": -1e-3, "stability": "undecided", "next": ["path"]}]}
    seen = evidence(0.0, -0.5).model_dump()
    del seen["looks"]["path"]  # where the protocol looks
    store.put(crystal("undecided", "A", evidence=seen, elements=["Li"], **lost, **system("Cubic")))
    crystals = read_crystals(store)
    row = crystals.rows.iloc[-1]
    assert (row["status"], row["relaxed"], row["mesh_thz"]) == ("undecided", True, -0.5)
    assert row[["judged_thz", "path_thz"]].isna().all()
    a, _ = (row for _, row in frames.funnel_table(crystals).set_index("set").loc[["A", "B"]].iterrows())
    assert a[["generated", "relaxed", "judged", "stable", "unstable", "undecided"]].to_list() == [20, 6, 4, 2, 2, 1]
    assert rate_of(a, "per_relaxed") == expected(2, 6)
    assert frames.total(frames.funnel_table(crystals))["undecided"] == 1
    of_a = frames.breakdown(crystals.only(["A"]), "crystal_system").set_index("crystal_system")
    assert of_a.loc["Cubic", ["relaxed", "stable", "unstable", "undecided"]].to_list() == [4, 1, 1, 1]
    lithium = frames.element_table(crystals.only(["A"])).set_index("element").loc["Li"]
    assert lithium[["relaxed", "stable", "unstable", "undecided"]].to_list() == [3, 1, 1, 1]
    # Nothing is said of it where nothing was looked at; where something was, that counts.
    table = frames.threshold_table(crystals.only(["A"]), [-1e-3, -1.0]).set_index(["q_points", "threshold_thz"])
    assert table["stable"].to_dict() == {
        **{(place, -1e-3): n for place, n in (("judged", 2), ("path", 2), ("commensurate", 0), ("mesh", 2))},
        **{(place, -1.0): n for place, n in (("judged", 3), ("path", 3), ("commensurate", 0), ("mesh", 5))},
    }
    assert set(table["relaxed"]) == {6}


def test_thresholds_are_ten_to_a_decade():
    assert len(frames.THRESHOLDS) == 71
    assert {-1e-7, -1e-5, -1e-3, -0.01, -0.1, -1.0} < set(frames.THRESHOLDS)
    assert sorted(frames.THRESHOLDS, reverse=True) == list(frames.THRESHOLDS)


def test_convergence_ends_at_the_rate(crystals):
    table = frames.convergence_table(frames.funnel_table(crystals))
    for _, curve in table.groupby("set"):
        last = curve.iloc[-1]
        assert last["order_low"] == last["order_high"] == pytest.approx(last["per_relaxed"])
        assert last["sample_low"] < last["per_relaxed"] < last["sample_high"]
        assert (curve["order_low"] <= curve["per_relaxed"] + 1e-12).all()
        assert (curve["order_high"] >= curve["per_relaxed"] - 1e-12).all()


def test_failures_by_stage_and_reason(crystals):
    table = frames.failure_table(crystals)
    assert table.drop(columns="share").to_numpy().tolist() == [
        ["A", "failed", "screened", "not_converged", 2],
        ["A", "failed", "relaxation", "exception", 1],
        ["A", "rejected", "read", "unparsable", 1],
    ]
    assert table["share"].to_list() == pytest.approx([2 / 11, 1 / 11, 1 / 11])


def test_breakdown_by_crystal_system(crystals):
    table = frames.breakdown(crystals, "crystal_system").set_index(["set", "crystal_system"])
    assert table[["relaxed", "stable", "unstable"]].to_dict("index") == {
        ("A", "Cubic"): {"relaxed": 3, "stable": 1, "unstable": 1},
        ("A", "Triclinic"): {"relaxed": 2, "stable": 1, "unstable": 1},
        (frames.ALL, "Cubic"): {"relaxed": 3, "stable": 1, "unstable": 1},
        (frames.ALL, "Triclinic"): {"relaxed": 2, "stable": 1, "unstable": 1},
    }
    assert rate_of(table.loc[("A", "Cubic")], "per_relaxed") == expected(1, 3)
    assert table.loc["A", "share"].to_list() == pytest.approx([0.6, 0.4])


def test_a_set_called_all_is_not_all_sets(store):
    store.put(judged(0.0, "all", **system("Cubic")))
    table = frames.breakdown(read_crystals(store), "crystal_system").set_index(["set", "crystal_system"])
    assert table.loc[("all", "Cubic"), "relaxed"] == 1
    assert table.loc[(frames.ALL, "Cubic"), "relaxed"] == 4
    with pytest.raises(ValidationError, match="set"):
        SetDocument(set=frames.ALL)


def test_all_sets_together_come_last():
    """Whatever the names of the others."""
    table = pd.DataFrame({"set": [frames.ALL, "dft", "Z", frames.ALL, "dft"], "nelements": [2, 1, 3, 1, 2]})
    ordered = frames._by_set(table, ["set", "nelements"])
    assert ordered.to_numpy().tolist() == [["Z", 3], ["dft", 1], ["dft", 2], [frames.ALL, 1], [frames.ALL, 2]]


def test_breakdown_by_number_of_elements(crystals):
    table = frames.breakdown(crystals, "nelements")
    of_a = table[table["set"] == "A"]
    assert of_a[["nelements", "relaxed", "stable"]].to_numpy().tolist() == [[1, 3, 1], [2, 2, 1]]
    both = table[table["set"] == frames.ALL]
    assert both[["nelements", "relaxed", "stable"]].to_numpy().tolist() == [[1, 15, 5], [2, 2, 1]]
    # One set is not followed by itself under another name.
    assert set(frames.breakdown(crystals.only(["A"]), "nelements")["set"]) == {"A"}


def test_crystal_systems_come_in_their_order(store):
    store.put(judged(0.0, **system("Trigonal")), judged(0.0, **system("Hexagonal")))
    table = frames.breakdown(read_crystals(store, sets=["A"]), "crystal_system")
    assert table["crystal_system"].to_list() == ["Cubic", "Hexagonal", "Trigonal", "Triclinic"]


def test_conditions(crystals):
    table = frames.condition_table(crystals, "band_gap")
    assert table[["band_gap", "generated", "relaxed", "stable"]].to_numpy().tolist() == [[0.5, 4, 4, 1], [1.5, 8, 8, 3]]
    assert rate_of(table.iloc[1], "per_relaxed") == expected(3, 8)
    assert frames.condition_table(crystals, "pressure").empty


def test_what_was_not_handed_in_counts_for_the_one_condition_of_its_set(store):
    store.put_set(SetDocument(set="A", n_generated=20, condition={"band_gap": 0.5}))
    store.put_set(SetDocument(set="B", n_generated=99))
    table = frames.condition_table(read_crystals(store), "band_gap").set_index("band_gap")
    # All of A asked for 0.5 eV; which of B were not handed in for which of its two gaps is not known.
    assert table["not_handed_in"].to_dict() == {0.5: 9, 1.5: 0}
    assert table.loc[0.5, "generated"] == 20 + 1


@pytest.mark.parametrize("key", ["status", "set", "elements", "condition"])
def test_a_condition_may_have_any_name(store, key):
    store.put_set(SetDocument(set="A", condition={key: "asked", "stable": True}))
    crystals = read_crystals(store, sets=["A"])
    table = frames.condition_table(crystals, key)
    assert table[[key, "relaxed", "stable"]].to_numpy().tolist() == [["asked", 5, 2]]
    table = frames.condition_table(crystals, "stable")
    assert table[["condition_stable", "relaxed", "stable"]].to_numpy().tolist() == [[True, 5, 2]]


def test_elements(crystals):
    table = frames.element_table(crystals.only(["A"])).set_index("element")
    assert table[["relaxed", "stable", "unstable"]].to_dict("index") == {
        "O": {"relaxed": 4, "stable": 2, "unstable": 1},
        "Li": {"relaxed": 2, "stable": 1, "unstable": 1},
        "Na": {"relaxed": 1, "stable": 0, "unstable": 1},
    }
    assert list(table.index) == ["O", "Li", "Na"]
    assert rate_of(table.loc["O"], "per_relaxed") == expected(2, 4)


def test_speed_and_architecture(crystals):
    speed = frames.speed_table(crystals.sets.values())
    assert speed[["set", "generated", "hours", "per_minute"]].iloc[0].to_list() == ["A", 20, 120 / 3600, 10.0]
    assert speed.iloc[1][["generated", "hours", "per_minute"]].isna().all()
    table = frames.architecture_table(crystals.sets.values())
    assert table["parameters"].to_list() == [7, pd.NA]


def test_tables_of_a_set_that_has_only_begun(tmp_path):
    with ResultsStore.open(tmp_path, create=True) as store:
        store.put(crystal("pending"), crystal("rejected", reason="unparsable", elements=[], nelements=None))
        crystals = read_crystals(store)
    found = all_tables(crystals)
    assert found["funnels"]["relaxed"].to_list() == [0]
    assert pd.isna(found["funnels"]["per_relaxed"][0])
    for name in ("turns", "pairs", "samples", "convergence", "thresholds", "systems", "elements"):
        assert found[name].empty, name
    assert frames.total(found["funnels"])["per_relaxed"] is None


# ----------------------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------------------
def test_markdown_is_for_people():
    table = pd.DataFrame(
        {
            "set": ["a|b*", None],
            "relaxed": pd.array([10902, None], dtype="Int64"),
            "per_relaxed": [4469 / 10902, None],
            "per_relaxed_low": [0.4007, None],
            "per_relaxed_high": [0.4191, None],
            "agrees": [True, False],
        }
    )
    assert markdown(table).splitlines() == [
        "| set | relaxed | stable per relaxed | agrees |",
        "|---|---:|---:|---|",
        r"| a\|b\* | 10,902 | 41.0 % (40.1 to 41.9) | yes |",
        "|  |  |  | no |",
    ]


def test_a_narrow_interval_gets_a_second_digit():
    row = {"per_relaxed": 28119 / 108843, "per_relaxed_low": 0.25576, "per_relaxed_high": 0.26096}
    assert "| 25.83 % (25.58 to 26.10) |" in markdown(pd.DataFrame([row]))


def test_files_are_harmless_and_complete(tmp_path):
    table = pd.DataFrame({"set": ["=1+1", "<script>alert(1)</script>\n# x"], "relaxed": [1, None]})
    paths = write_table(table, tmp_path / "new", "table", "A title")
    with paths[0].open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [
            {"set": "'=1+1", "relaxed": "1.0"},
            {"set": "<script>alert(1)</script>\n# x", "relaxed": ""},
        ]
    text = paths[1].read_text()
    assert text.startswith("# A title\n\n| set |")
    assert r"\<script\>alert(1)\</script\> \# x" in text


def test_every_table_has_its_figure(crystals, tmp_path):
    found = all_tables(crystals)
    figures = {
        "rates": plots.rates_plot(found["funnels"]),
        "funnels": plots.funnel_plot(found["funnels"]),
        "thresholds": plots.threshold_plot(found["thresholds"]),
        "convergence": plots.convergence_plot(found["convergence"]),
        "failures": plots.failure_plot(found["failures"]),
        "systems": plots.groups_plot(found["systems"], "crystal_system"),
        "band gap": plots.groups_plot(found["band gap"], "band_gap"),
        "elements": plots.element_plot(found["elements"]),
        "speed": plots.speed_plot(found["speed"]),
        "parameters": plots.parameters_plot(found["architectures"]),
    }
    for name, figure in figures.items():
        figure.draw_without_rendering()
        assert figure.axes, name
    png, svg = plots.save(figures["rates"], tmp_path, "rates")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert "<!-- A -->" in text
    plots.save(plots.rates_plot(found["funnels"]), tmp_path, "rates")
    assert svg.read_text() == text


def bars(figure: Any) -> dict[str, list[float]]:
    """Heights of a figure's first axes' bars by their label."""
    (*containers,) = figure.axes[0].containers
    return {c.get_label(): [bar.get_height() for bar in c] for c in containers if hasattr(c[0], "get_height")}


def test_bars_are_the_counts_and_arms_the_interval(crystals):
    table = frames.breakdown(crystals.only(["A"]), "crystal_system")
    figure = plots.groups_plot(table, "crystal_system")
    assert bars(figure) == {"stable": [1, 1], "unstable": [1, 1], "failed after the relaxation": [1, 0]}
    (arms,) = (c for c in figure.axes[0].containers if c.get_label() == "95 % interval")
    (lines,) = arms.lines[2]
    low, high = table["per_relaxed_low"] * table["relaxed"], table["per_relaxed_high"] * table["relaxed"]
    assert [segment[:, 1].tolist() for segment in lines.get_segments()] == [
        pytest.approx(ends) for ends in zip(low, high, strict=True)
    ]


def test_figures_of_nothing_are_drawn(tmp_path):
    with ResultsStore.open(tmp_path / "store", create=True) as store:
        store.put(crystal("pending"))
        found = all_tables(read_crystals(store))
    figures = [
        plots.rates_plot(found["funnels"]),
        plots.funnel_plot(found["funnels"]),
        plots.threshold_plot(found["thresholds"]),
        plots.convergence_plot(found["convergence"]),
        plots.failure_plot(found["failures"]),
        plots.groups_plot(found["systems"], "crystal_system"),
        plots.element_plot(found["elements"]),
        plots.speed_plot(found["speed"]),
        plots.parameters_plot(found["architectures"]),
    ]
    for figure in figures:
        figure.draw_without_rendering()
