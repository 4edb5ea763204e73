"""Several potentials on the same crystals: what is counted, and what commands say."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_documents import crystal_of, make
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument, PotentialRecord
from phononbench_flows.statistics.committee import confusion, votes
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.committee import members_table, pairs_table, parted_table, read_committee, votes_table
from phononbench_flows.tables.rows import SelectionError

# What three potentials say of seven crystals; x has not been finished by the last one.
VERDICTS = {
    "a": ("stable", "stable", "stable"),
    "b": ("stable", "stable", "unstable"),
    "c": ("stable", "unstable", "unstable"),
    "d": ("unstable", "unstable", "unstable"),
    "e": ("undecided", "stable", "stable"),
    "f": ("unstable", "failed", "unstable"),
    "x": ("stable", "stable", "pending"),
}
POTENTIALS = ("sevennet-0", "chgnet-0.3.0", "another")


def calculation(name: str, potential: str, status: str, protocol: str = "paper") -> CalculationDocument:
    protocol_id = f"{protocol}-{potential}"
    return make(
        0,
        id=f"S-{name}",
        key=f"S-{name}@{protocol_id}",
        set="S",
        status=status,
        protocol_id=protocol_id,
        protocol_name=protocol,
        potential=PotentialRecord(name=potential, checkpoint_sha256=potential.ljust(64, "0")),
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    with ResultsStore.open(tmp_path, create=True) as store:
        for name, said in VERDICTS.items():
            documents = [calculation(name, *pair) for pair in zip(POTENTIALS, said, strict=True)]
            store.put_crystals(crystal_of(documents[0]))
            store.put(*documents)
    return tmp_path


def test_a_confusion_matrix_counts_what_both_judged():
    found = confusion(*zip(*[said[:2] for said in VERDICTS.values()], strict=True))
    assert (found.both_stable, found.first_stable, found.second_stable, found.both_unstable) == (3, 1, 0, 1)
    assert (found.open, found.judged) == (2, 5)
    assert found.agreement.rate == pytest.approx(4 / 5)
    # By chance: the first says stable 4 of 5 times, the second 3 of 5.
    chance = (4 * 3 + 1 * 2) / 25
    assert found.kappa == pytest.approx((0.8 - chance) / (1 - chance))


def test_kappa_is_unknown_where_nothing_is_left_to_chance():
    assert confusion(["stable"], ["stable"]).kappa is None
    assert confusion(["failed"], ["stable"]).agreement.rate is None


def test_votes_say_who_contradicts_whom():
    found = votes([VERDICTS[name] for name in "abcdef"])
    assert found.stable_under == [2, 1, 2, 1]
    assert (found.all_stable, found.all_unstable, found.parted, found.open) == (1, 1, 2, 2)


def test_tables_count_crystals_that_all_have_finished(folder):
    with ResultsStore.open(folder) as store:
        committee = read_committee(store)
    assert committee.left_out == 1
    members = members_table(committee).set_index("potential")
    assert members.loc["sevennet-0", "stable"] == 3
    assert members.loc["sevennet-0", "relaxed"] == 6
    assert members.loc["chgnet-0.3.0", "conductivity_srd"] == pytest.approx(-1.6822)
    assert members["conductivity_srd"].isna()["another"]  # nothing is known: not zero
    [row] = votes_table(committee).to_dict("records")
    assert (row["crystals"], row["stable_under_1"], row["stable_under_2"], row["stable_under_3"]) == (6, 4, 3, 1)
    assert (row["parted"], row["open"]) == (2, 2)
    assert len(pairs_table(committee)) == 3
    parted = parted_table(committee).set_index("crystal")
    assert list(parted.index) == ["S-b", "S-c"]
    assert parted.loc["S-c", "sevennet-0"].startswith("stable")


def test_two_protocols_have_to_be_chosen_from(folder):
    with ResultsStore.open(folder) as store:
        store.put(calculation("a", "sevennet-0", "stable", "converged"))
        with pytest.raises(SelectionError, match="choose one protocol"):
            read_committee(store)
        assert len(read_committee(store, protocols=["paper"]).members) == 3
        with pytest.raises(SelectionError, match="two potentials"):
            read_committee(store, protocols=["converged"])


def test_the_command_writes_what_it_says(folder, tmp_path):
    result = CliRunner().invoke(app, ["committee", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "matbench-discovery" in result.output
    names = {"committee", "committee_votes", "committee_pairs", "committee_parted"}
    assert {path.stem for path in (tmp_path / "out").glob("*.csv")} == names


@pytest.mark.parametrize(("number", "expected"), [(1, set("abcex")), (2, set("abex")), (3, {"a"}), (4, set())])
def test_query_finds_crystals_that_several_call_stable(folder, number, expected):
    asked = ["query", str(folder), "--stable-under", str(number), "--format", "csv"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    found = {line.split(",")[0].removeprefix("S-") for line in result.stdout.splitlines()[1:] if line.startswith("S-")}
    assert found == expected


def test_a_potential_counts_once_whatever_the_protocol(folder):
    with ResultsStore.open(folder) as store:
        store.put(calculation("c", "sevennet-0", "stable", "converged"))
    result = CliRunner().invoke(app, ["query", str(folder), "--stable-under", "2", "--format", "csv"])
    assert "S-c," not in result.stdout
