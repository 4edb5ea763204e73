"""The published rule beside every verdict: in results.csv, on the terminal, in the card, and in bundles."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_documents import CONVERGED, CONVERGED_ID, POTENTIAL, crystal_of, make, make_exact, seen_exactly
from made_sets import fill, fill_exact, made_exact
from pymatgen.core import Lattice, Structure
from rich.console import Console
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.cli.display import crystal_table, exact_looks_table, funnel_table
from phononbench_flows.cluster.status import set_statuses
from phononbench_flows.documents import CalculationDocument, Origin
from phononbench_flows.results.bundle import BundleError, pack, unpack, verify
from phononbench_flows.results.card import card
from phononbench_flows.results.export import columns, write_documents
from phononbench_flows.results.published import JudgedAt, Published, judged_at, published_beside
from phononbench_flows.statistics import funnel
from phononbench_flows.steps import steps_of
from phononbench_flows.store import ResultsStore

DISPUTED = make_exact(3, -4.2, 0.76, formula_pretty="BaPdO2F")


def told(*tables: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(*tables)
    return console.file.getvalue()


def test_results_csv_has_both_verdicts_and_why():
    lenient = make_exact(6, -0.05, -2.0)
    plain = make(9)  # by another protocol
    stream = io.StringIO()
    write_documents(stream, [DISPUTED, lenient, plain, make(2, evidence={}, assessments=[])], steps_of(CONVERGED))
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [(row["status"], row["published_strict"], row["published_lenient"]) for row in rows] == [
        ("stable", "unstable", "unstable"),
        ("unstable", "unstable", "stable"),
        ("unstable", "stable", "stable"),
        ("failed", "", ""),
    ]
    assert [row["why"] for row in rows] == [DISPUTED.why, lenient.why, plain.why, ""]
    assert rows[0]["why"].startswith("stable: the lowest mode at 9 q-points where nothing is interpolated is 0.76 THz")
    assert {rows[0][name] for name in ("min_frequency_judged_thz", "min_frequency_path_thz")} == {"-4.2"}
    assert (rows[0]["min_frequency_exact_thz"], rows[0]["min_frequency_cured_thz"]) == ("0.76", "0.0")
    assert {"why", "published_strict"} < {column.name for column in columns([])}


def test_a_crystal_on_the_terminal():
    said = told(crystal_table(DISPUTED, None), exact_looks_table(DISPUTED))
    for text in (
        "verdict",
        "stable: the lowest mode at 9 q-points where nothing is interpolated is 0.76 THz",
        "published rule",
        "unstable at -0.001 THz, unstable at -0.1 THz (lowest on the path -4.2 THz",
        "at -0.1 THz",
        "softest elastic wave",
        "42 GPa along (0.00, 0.60, 0.80)",
        "123 GPa (Voigt, Reuss, Hill)",
        "exact frequencies",
        "interpolated (THz)",
    ):
        assert text in said, text
    [line] = [line for line in said.splitlines() if "<X>" in line]
    assert [text in line for text in ("(0.125, 0, 0)", "-4.2000", "0.7600", " 8")] == [True] * 4
    assert exact_looks_table(make(1)) is None
    assert "published rule" in told(crystal_table(make(1), None))


def test_the_card():
    text = card(DISPUTED, DISPUTED.why, None)
    assert "published rule: unstable at -0.001 THz" in text
    assert "&lt;X&gt;" in text
    assert "<X>" not in text
    assert "softest elastic wave: 42 GPa" in text
    assert "<table" not in card(make(1), "why", None)


@pytest.fixture(params=["embedded", "mongo"])
def store(request, tmp_path):
    spec = tmp_path / "made" if request.param == "embedded" else f"mongo:{request.getfixturevalue('mongo_database')}"
    with ResultsStore.open(spec, create=True) as opened:
        fill_exact(opened)
        fill(opened)
        yield opened


def test_how_crystals_were_judged(store):
    mine = {"protocol_id": CONVERGED_ID}
    assert judged_at(store, mine) == JudgedAt((-1e-3, -0.1), exact=True)
    assert judged_at(store, {"protocol_id": "p"}) == JudgedAt((-1e-3, -0.1), exact=False)
    assert judged_at(store, {"protocol_id": "nobody"}) == JudgedAt()
    assert published_beside(store, mine | {"set": "A"}) == Published(stable=1, disputed=2)
    assert published_beside(store, mine) == Published(stable=3, disputed=3)
    assert published_beside(store, {"protocol_id": "p"}) is None
    found = {(each.set, each.protocol_id): each.published for each in set_statuses(store)}
    assert found["A", CONVERGED_ID] == Published(stable=1, disputed=2)
    assert found["A", "p"] is None


def test_documents_of_before_say_it_too(tmp_path):
    """Assessments and evidence as they were written before exact frequencies decided."""
    rows = [make(number).model_dump(mode="json") for number in (0, 1)]
    for row in rows:
        row["assessments"] = [
            {name: each[name] for name in ("stability", "threshold", "where", "next")} for each in row["assessments"]
        ]
        row["evidence"] = {name: row["evidence"][name] for name in ("looks", "noise", "not_looked_at")}
    with ResultsStore.open(tmp_path, create=True) as store:
        store.put(make(0), make(1))
        store._calculations.update(rows)
        assert judged_at(store, {"protocol_id": "p"}) == JudgedAt((-0.1, -0.5), exact=False)
        first, second = store.documents(sort={"id": 1})
    assert (first, second) == tuple(map(CalculationDocument.model_validate, rows))
    assert first.why == make(0).why


def test_the_summary_of_a_run():
    counts = funnel([{"status": each.status, "stage": each.stage, "same_as": None} for each in made_exact()[:5]])
    said = told(funnel_table(counts, "A", Published(stable=1, disputed=2)))
    assert "stable per relaxed 60.0 % (23.1 to 88.2)" in said
    assert "by the published rule 20.0 % (3.6 to 62.4)" in said
    assert "2 verdicts are the opposite of the rule's" in said
    assert "published" not in told(funnel_table(counts, "A"))


def test_queries_from_the_command_line(tmp_path):
    with ResultsStore.open(tmp_path, create=True) as store:
        fill_exact(store)
    result = CliRunner().invoke(app, ["query", str(tmp_path), "--disputed", "--status", "stable", "--format", "jsonl"])
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["minimum"]["frequency"] for line in result.stdout.splitlines()} == {-0.05, -4.2}
    result = CliRunner().invoke(app, ["query", str(tmp_path), "--published", "stable"])
    assert "3 crystals" in result.output
    assert re.search(r"published\s", result.output)
    result = CliRunner().invoke(app, ["query", str(tmp_path), "--published", "maybe"])
    assert (result.exit_code, "no verdict of the published rule 'maybe'" in result.output) == (2, True)
    with ResultsStore.open(tmp_path) as store:
        [crystal_id] = [row["id"] for row in store.query({"minimum.frequency": -4.2}, ["id"])]
    result = CliRunner().invoke(app, ["show", crystal_id, str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "exact frequencies" in result.output


def test_bundles_of_verdicts_by_exact_frequencies(tmp_path):
    structure = Structure(Lattice.cubic(4.0), ["O"], [[0, 0, 0]]).as_dict()
    looks = {"q": np.array([[0.125, 0, 0]]), "matrices": np.eye(3)[None] * (1 + 2j), "tolerance": np.asarray(0.05)}
    with ResultsStore.open(tmp_path / "one", create=True) as store:
        refs = {"exact_looks": store.blobs.put(looks), "band_structure": store.blobs.put({"q": np.zeros((1, 3))})}
        documents = [
            make_exact(number, *lowest, set="left", relaxed_structure=structure, arrays=refs)
            for number, lowest in enumerate([(-4.2, 0.76), (0.0, -2.45), (0.0, 1e-5), (0.0, 3.0)])
        ]
        documents[0].origin = Origin(source="0.cif")
        store.put_crystals(*map(crystal_of, documents))
        store.put(*documents)
        manifest = pack(store, "left", tmp_path / "x.zip", force_constants=True)
        packed = list(store.documents(sort={"id": 1}))
    assert {document.status for document in packed} == {"stable", "unstable", "undecided"}
    assert (manifest.protocol_id, manifest.counts["undecided"]) == (CONVERGED.id_with(POTENTIAL.checkpoint_sha256), 1)
    assert verify(tmp_path / "x.zip") == manifest
    with ResultsStore.open(tmp_path / "two", create=True) as other:
        unpack(tmp_path / "x.zip", other)
        again = list(other.documents(sort={"id": 1}))
        kept = other.blobs.get(again[0].arrays["exact_looks"])
    assert [each.model_copy(update={"updated_at": None}) for each in again] == [
        each.model_copy(update={"updated_at": None}) for each in packed
    ]
    assert {name: kept[name].tolist() for name in kept} == {name: looks[name].tolist() for name in looks}


def test_a_verdict_that_exact_looks_do_not_bear_is_found(tmp_path: Path):
    with ResultsStore.open(tmp_path / "one", create=True) as store:
        forged = make_exact(0, -4.2, 0.76, set="left", relaxed_structure=None)
        forged.evidence = seen_exactly(-4.2, -0.76)
        store.put_crystals(crystal_of(forged))
        store.put(forged)
        pack(store, "left", tmp_path / "x.zip")
    with pytest.raises(BundleError, match="does not follow from its evidence"):
        verify(tmp_path / "x.zip")
