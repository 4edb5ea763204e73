"""The scripts over a store with documents of the published counts: the published tables come out, digit for digit."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from published_counts import HOLDERS, SYSTEMS, TABLE_3, TABLE_4, documents, fill

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.outcomes import Status
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables import scripts
from phononbench_flows.tables.rows import Crystals, read_crystals

pytestmark = pytest.mark.usefixtures("no_figures")

# As printed: model, relaxed, dynamically stable, input script success, unique CIFs, total generated.
PRINTED_3 = """
CrystalFlow-MP20      8,533   1,428  8,852   9,952   16,000
CrystalFormer-Alex20  8,642   2,969  8,807   8,986   40,000
CrystalFormer-MP20    4,408   510    4,990   5,143   20,000
CrystaLLM-MP20        1,951   58     2,074   2,074   16,000
DiffCSP-MP20          9,163   2,488  9,959   10,000  16,000
InvDesFlow-AL-Alex20  22,755  8,743  24,997  25,000  30,000
MatterGen-Alex20      10,902  4,469  11,829  11,829  16,000
MatterGen-MP20        9,279   2,278  10,000  10,000  16,000
"""
# Band gap, relaxed, stable, generated, and the rate of Figure 3a.
PRINTED_4 = """
0.5  6,524  1,532  10,000  23.5
1.5  9,478  1,448  16,000  15.3
2.5  6,133  816    10,000  13.3
3.5  5,735  763    10,000  13.3
4.5  5,340  617    10,000  11.6
"""
PRINTED_SYSTEMS = {
    "Cubic": "49.2",
    "Hexagonal": "35.8",
    "Trigonal": "35.4",
    "Tetragonal": "35.0",
    "Orthorhombic": "32.6",
    "Monoclinic": "26.5",
    "Triclinic": "17.0",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Crystals]:
    """The store, and its crystals read once for all scripts."""
    path = tmp_path_factory.mktemp("published")
    with fill(path, (*TABLE_3, *TABLE_4)) as store:
        return path, read_crystals(store)


@pytest.fixture
def published_store(published: tuple[Path, Crystals], monkeypatch: pytest.MonkeyPatch) -> Path:
    path, crystals = published

    def read_once(store: ResultsStore, *, sets: list[str] | None, protocol: str | None) -> Crystals:
        assert store.spec["path"] == str(path)
        return crystals.only(sets) if sets else crystals

    monkeypatch.setattr(scripts, "read_crystals", read_once)
    return path


def lines(text: str) -> list[list[str]]:
    """The cells of the first Markdown table, its headings first."""
    found = text[text.index("\n| ") + 1 :].split("\n\n", maxsplit=1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in found if not line.startswith("|--")]


def table(text: str, first: str) -> dict[str, str]:
    """The row of the first Markdown table that begins with ``first``, by heading."""
    columns, *rows = lines(text)
    (row,) = [row for row in rows if row[0] == first]
    return dict(zip(columns, row, strict=True))


def test_the_helper_writes_real_documents():
    seen = set()
    for raw in documents(TABLE_3[0], iter(range(10**6))):
        if raw["status"] not in seen:
            seen.add(raw["status"])
            CalculationDocument.model_validate(raw)
    assert seen == {"stable", "unstable", "failed", "rejected"}
    assert sum(each.relaxed for each in (*TABLE_3, *TABLE_4)) == 108_843
    assert [sum(counts) for counts in zip(*SYSTEMS.values(), strict=True)] == [8642, 2969]
    assert {element: len(holders) for element, holders in HOLDERS.items()} == {"O": 10272, "Li": 5792, "F": 5236}


def test_table_3(run, published_store):
    printed = run("funnel_per_model", published_store)
    names = ["relaxed", "stable", "usable", "unique", "generated"]
    for line in PRINTED_3.split("\n")[1:-1]:
        model, *numbers = line.split()
        row = table(printed, model)
        assert [row[name] for name in names] == numbers
        assert [row[f"{name}, published"] for name in names] == numbers
        assert row["agrees"] == "yes"
    # Printed without a comma, and not a set of its own.
    resampled = next(line for line in printed.splitlines() if "| InvDesFlow-AL | MP20 |" in line)
    assert "| 8,000 |" in resampled
    assert "| 2,176 |" in resampled
    assert "five samples of 8000" in resampled


def test_sums(run, published_store):
    printed = run("funnel_per_model", published_store)
    sums = printed[printed.index("Sums over sets") :]
    assert table(sums, "without condition")["relaxed"] == "75,633"
    assert table(sums, "with condition")["relaxed"] == "33,210"
    everything = table(sums, "all")
    assert (everything["relaxed"], everything["stable"], everything["generated"]) == ("108,843", "28,119", "226,000")
    assert everything["stable per relaxed"].startswith("25.83 % (")
    assert table(sums, "with condition")["stable per relaxed"].startswith("15.6 % (")


def test_table_4(run, published_store):
    printed = run("band_gap_conditions", published_store)
    for line in PRINTED_4.split("\n")[1:-1]:
        gap, relaxed, stable, generated, percent = line.split()
        row = table(printed, gap)
        assert (row["relaxed"], row["stable"], row["generated"]) == (relaxed, stable, generated)
        assert row["stable per relaxed"].startswith(f"{percent} % (")
        assert (row["stable per relaxed (%), published"], row["agrees"]) == (percent, "yes")
    assert "1523" in table(printed, "0.5")["note"]


def test_stability_by_model(run, published_store, tmp_path):
    printed = run("stability_by_model", published_store)
    for model, percent in (
        ("MatterGen-Alex20", "41.0"),
        ("InvDesFlow-AL-Alex20", "38.4"),
        ("CrystalFormer-Alex20", "34.4"),
        ("CrystalFlow-MP20", "16.7"),
        ("CrystaLLM-MP20", "3.0"),
    ):
        row = table(printed, model)
        assert row["stable per relaxed"].startswith(f"{percent} % (")
        assert (row["stable per relaxed (%), published"], row["agrees"]) == (percent, "yes")
    assert (
        "MatterGen-Alex20 leads InvDesFlow-AL-Alex20 per relaxed (41.0 to 38.4 %), "
        "but trails it per generated (27.9 to 29.1 %)." in printed
    )
    with (tmp_path / "out" / "pairs.csv").open(newline="") as stream:
        pairs = list(csv.DictReader(stream))
    assert len(pairs) == 13 * 12 / 2


def test_crystal_systems(run, published_store):
    columns, *rows = lines(run("stability_by_crystal_system", published_store, "--set", "CrystalFormer-Alex20"))
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["crystal system"] for row in found] == list(PRINTED_SYSTEMS)
    for row, percent in zip(found, PRINTED_SYSTEMS.values(), strict=True):
        assert row["stable per relaxed"].startswith(f"{percent} % (")
        assert row["agrees"] == "yes"


def test_elements(run, published_store):
    printed = run("elements_of_stable_crystals", published_store)
    for element, number in (("O", "10,272"), ("Li", "5,792"), ("F", "5,236")):
        row = table(printed, element)
        assert (row["stable"], row["stable, published"], row["agrees"]) == (number, number, "yes")


def test_published_numbers_that_disagree(run):
    printed = run("published_disagreements")
    _, *rows = lines(printed)
    assert [row[:4] for row in rows if row[-1] == "no"] == [
        ["generated in all", "221,000", "Results and Figure 1", "226,000"],
        ["stable at 0.5 eV", "1,523", "Results", "1,532"],
        ["models", "8", "Figure 1", "6"],
        ["models", "9", "Supplementary section 2", "6"],
        ["InvDesFlow-AL generated", "25,000", "Table 1", "30,000"],
        ["CrystaLLM generated", "30,000", "Table 1", "16,000"],
        ["CrystalFormer per minute", "6.0", "Table 1", "7.516"],
    ]
    right = {row[0] for row in rows if row[-1] == "yes"}
    assert {"relaxed in all", "stable in all", "stable per relaxed in all (%)", "relaxed with a band gap"} < right


def test_one_crystal_less_does_not_agree(run, tmp_path):
    (crystallm,) = (each for each in TABLE_3 if each.model == "CrystaLLM")
    with fill(tmp_path / "store", [crystallm]) as store:
        (document,) = store.documents({"id": "CrystaLLM-MP20-0"})
        document.status = Status.UNSTABLE
        store.put(document)
    row = table(run("funnel_per_model", tmp_path / "store"), "CrystaLLM-MP20")
    assert (row["stable"], row["stable, published"], row["agrees"]) == ("57", "58", "no")
    assert row["relaxed"] == row["relaxed, published"] == "1,951"
