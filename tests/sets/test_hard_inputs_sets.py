"""The hard inputs that lie beside the checkout, as far as they are about sets."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from second_runs import as_fresh, counts, documents, run

from phononbench_flows.store import ResultsStore

BIG_FIELD = "@hostile/big_field.csv"
KINDS = ("duplicates", "layers", "names", "not_finite", "rerun", "hostile")

pytestmark = pytest.mark.usefixtures("parsed_here")


@pytest.fixture(scope="module")
def hard(shared_data: Path) -> Path:
    found = shared_data / "hard_inputs"
    if not (found / "expected.csv").is_file():
        pytest.skip("no hard inputs beside the checkout")
    return found


@pytest.fixture(scope="module")
def hostile(hard, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    subprocess.run([sys.executable, hard / "make_hostile.py", folder], check=True, capture_output=True)
    return folder


def given(hard: Path, kind: str) -> dict[str, list[dict[str, str]]]:
    """Rows of a kind by what is handed in."""
    rows = defaultdict(list)
    with (hard / "expected.csv").open() as stream:
        for row in csv.DictReader(stream):
            if row["kind"] == kind and row["file"] != BIG_FIELD:
                rows[row["input"] or row["file"]].append(row)
    return rows


def paths(text: str, hard: Path, hostile: Path) -> list[Path]:
    return [
        hostile / part.removeprefix("@hostile/") if part.startswith("@") else hard / part for part in text.split("|")
    ]


def holds(row: dict[str, str], document: dict, sources: dict[str, str]) -> bool:
    """Whether a document says what a row expects."""
    allowed = {row["expected"], row["also_ok"]} - {""}
    status = document["status"]
    if status == "rejected":
        reasons = row["reason"].split("|") if row["reason"] else [document["reason"]]
        return "reject" in allowed and document["reason"] in reasons
    if status == "duplicate":
        return "duplicate_of" in allowed and sources[document["duplicate_of"]] == row["duplicate_of"]
    return "accept" in allowed and status == "pending"


def wrong(rows: list[dict[str, str]], store: ResultsStore, where: dict[str, str]) -> list[str]:
    """Rows that the store does not bear out; a file's crystals are told apart by their order.

    ``where`` says what to put in place of the beginning of a row's file to have its source.
    """
    found = sorted(documents(store).values(), key=lambda each: each["origin"]["source"])
    [(start, place)] = where.items()
    sources = {each["id"]: each["origin"]["source"].replace(place, start, 1) for each in found}
    misses = []
    for row in rows:
        of_file = [each for each in found if sources[each["id"]].startswith(row["file"])]
        number = int(row["crystal"] or 1) - 1
        if number >= len(of_file) or not holds(row, of_file[number], sources):
            misses.append(f"{row['file']} {row['crystal']}: {of_file[number : number + 1]}"[:600])
    return misses


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rerun"])
def test_rows_of_a_kind(hard, hostile, tmp_path, kind):
    misses = []
    for number, (text, rows) in enumerate(given(hard, kind).items()):
        inputs = paths(text, hard, hostile)
        with ResultsStore.open(tmp_path / f"results-{number}", create=True) as store:
            run(inputs, store)
            assert counts(store).generated == len(documents(store))
            misses += wrong(rows, store, {"@hostile": str(hostile)} if text[0] == "@" else {"": f"{hard}/"})
    assert not misses, "\n".join(misses)


def test_a_row_that_is_too_large_costs_itself(hostile, tmp_path):
    """Its rows are about reading; in a set the third repeats the first."""
    table = hostile / BIG_FIELD.removeprefix("@hostile/")
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        run([table], store)
        found = documents(store)
        assert counts(store).generated == 3
    by_source = {each["origin"]["source"]: each for each in found.values()}
    first, large, third = (by_source[f"{table}#{n}"] for n in (1, 2, 3))
    assert (first["id"], first["status"], first["formula_pretty"]) == ("S-1", "pending", "NiO")
    assert (large["status"], large["reason"]) == ("rejected", "file_too_large")
    assert large["detail"] == "The row has more than 8000000 bytes."
    assert (third["id"], third["status"], third["duplicate_of"]) == ("S-3", "duplicate", "S-1")


def test_second_runs(hard, tmp_path):
    misses = []
    for number, (text, rows) in enumerate(given(hard, "rerun").items()):
        place, name = tmp_path / f"inputs-{number}", Path(text.split(";")[0].split("|")[0]).parts[1]
        with ResultsStore.open(tmp_path / f"results-{number}", create=True) as store:
            for step, handed_in in zip(("step1", "step2"), text.split(";"), strict=True):
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(hard / "rerun" / name / step, place / "now")
                inputs = [place / part.replace(f"rerun/{name}/{step}", "now") for part in handed_in.split("|")]
                run(inputs, store)
            as_fresh(inputs, store, tmp_path / f"fresh-{number}")
            misses += wrong(rows, store, {f"rerun/{name}/step2": f"{place}/now"})
    assert not misses, "\n".join(misses)
