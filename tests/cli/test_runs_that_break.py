"""`phononbench run` where the machine is broken, where crystals are, and where their files change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import toy_potentials
import yaml
from click.testing import Result
from jobflow import JobStore
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.flows import ChunkMaker
from phononbench_flows.protocol import Protocol
from phononbench_flows.store import ResultsStore, full_spec

SMALL = {"name": "small", "spectrum": {"path_points": 11, "mesh": [4, 4, 4]}}
OTHER = SMALL | {"name": "other", "judgement": {"threshold": -0.2}}


@pytest.fixture(autouse=True)
def no_calls_yet(monkeypatch):
    monkeypatch.setattr(toy_potentials, "calls", count(1))


@pytest.fixture
def folder(tmp_path, fcc, cu3au, simple_cubic) -> Path:
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name, structure in {
        "fcc": fcc,
        "cu3au": cu3au,
        "simple_cubic": simple_cubic,
        "kr": Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords),
        "krcu3": Structure(fcc.lattice, ["Kr"] + ["Cu"] * 3, fcc.frac_coords),
    }.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    return folder


@pytest.fixture
def run(folder, tmp_path) -> Callable[..., Result]:
    def run(*options: str, out: str = "results", protocol: dict = SMALL) -> Result:
        file = tmp_path / "protocol.yaml"
        file.write_text(yaml.safe_dump({"preset": "paper"} | protocol))
        arguments = [folder, "--set", "toys", "--potential", "toy_potentials:lj", "--protocol", file]
        arguments += ["--out", tmp_path / out, *options]
        return CliRunner().invoke(app, ["run", *map(str, arguments)])

    return run


@pytest.fixture
def found(tmp_path) -> Callable[..., dict[str, CalculationDocument]]:
    def found(out: str = "results", protocol: dict = SMALL) -> dict[str, CalculationDocument]:
        with ResultsStore.open(tmp_path / out) as store:
            name = Protocol.model_validate(protocol).name
            return {d.id.removeprefix("toys-"): d for d in store.documents({"protocol_name": name})}

    return found


def outcomes(documents: dict[str, CalculationDocument]) -> dict[str, dict]:
    """What was computed, without when and where."""
    apart = {"created_at", "updated_at", "timings", "provenance", "provenance_by_step"}
    return {name: document.model_dump(exclude=apart) for name, document in documents.items()}


def last_words(result: Result) -> str:
    return result.stderr.splitlines()[-1]


def test_a_device_that_breaks_at_any_time_costs_no_verdict_and_the_same_command_finishes(run, found, monkeypatch):
    # One crystal in a call, so that results do not depend on who else is computed, to the last digit.
    alone = ("--batch-atoms", "4")
    monkeypatch.setenv("TOY_BEARS_KRYPTON", "1")
    assert run(*alone, out="undisturbed").exit_code == 0
    expected = outcomes(found("undisturbed"))
    assert {each["status"] for each in expected.values()} == {"stable", "unstable"}
    calls = next(toy_potentials.calls)
    for at in (1, calls // 5, calls - 3):
        out = f"broken at {at}"
        monkeypatch.setattr(toy_potentials, "calls", count(1))
        monkeypatch.setenv("TOY_BREAKS_AT", str(at))
        broken = run(*alone, out=out)
        assert broken.exit_code == 2
        assert last_words(broken) == (
            "phononbench: the device failed: CUDA error: an illegal memory access was encountered"
        )
        assert "Traceback" not in broken.output
        left = found(out)
        assert {d.status for d in left.values()} <= {"pending", "stable", "unstable"}
        assert {d.attempts for d in left.values()} == {0}
        assert "pending" in {d.status for d in left.values()}
        assert (at == 1) == ({d.stage for d in left.values()} == {"screened"})

        monkeypatch.delenv("TOY_BREAKS_AT")
        again = run(*alone, out=out)
        assert again.exit_code == 0, again.output
        assert "0 new" in again.output
        assert outcomes(found(out)) == expected


def test_where_a_healthy_crystal_fails_as_well_the_machine_is_at_fault(run, found, monkeypatch, caplog):
    monkeypatch.setenv("TOY_OUT_OF_ORDER", "1")
    for _ in range(2):
        broken = run()
        assert broken.exit_code == 2
        assert last_words(broken).startswith("phononbench: this machine cannot compute: toys-")
        assert last_words(broken).endswith(
            "failed (ValueError: out of order), and a healthy crystal fails too (PotentialError: toy_potentials:lj on "
            "cpu, for a healthy crystal of MgO, raises ValueError: out of order)"
        )
        assert {(d.status, d.attempts, d.stage) for d in found().values()} == {("pending", 0, "screened")}
    assert len(tracebacks(caplog)) == 1
    monkeypatch.delenv("TOY_OUT_OF_ORDER")
    assert run().exit_code == 0
    assert {name: d.status for name, d in found().items()} == {
        "fcc": "stable",
        "cu3au": "stable",
        "simple_cubic": "unstable",
        "kr": "failed",
        "krcu3": "failed",
    }


def tracebacks(caplog) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    return [message for message in messages if "Traceback" in message]


def test_a_crystal_whose_computing_raises_is_failed_told_once_and_tried_again_when_asked(
    run, found, monkeypatch, caplog
):
    assert run().exit_code == 0
    first = found()
    failed = {name: (d.status, d.reason, d.detail) for name, d in first.items() if d.elements != ["Cu"]}
    raised = ("failed", "exception", "RuntimeError: this potential cannot bear krypton")
    assert {name for name, why in failed.items() if why == raised} == {"kr", "krcu3"}
    assert {d.status for name, d in first.items() if name not in {"kr", "krcu3"}} == {"stable", "unstable"}
    (told,) = tracebacks(caplog)
    assert told.splitlines()[0] in {
        f"toys-{name}: RuntimeError: this potential cannot bear krypton" for name in ("kr", "krcu3")
    }
    assert told.splitlines()[1].startswith("Traceback")
    assert "toy_potentials.py" in told
    assert told.splitlines()[-1] == "RuntimeError: this potential cannot bear krypton"

    untouched = {name: d for name, d in first.items() if d.status != "failed"}
    assert "0 new, 0 changed since the last run\n" in run().stderr, "nothing is tried again unasked"
    assert found() == first
    assert "0 tried again" not in run("--retry", "not_converged").stderr
    assert found() == first
    for reason in ("exception", "all-failed"):
        calls = next(toy_potentials.calls)
        assert "2 tried again" in run("--retry", reason).stderr
        assert next(toy_potentials.calls) > calls + 1, "it was not computed again"
        assert {d.status for name, d in found().items() if name not in untouched} == {"failed"}
    monkeypatch.setenv("TOY_BEARS_KRYPTON", "1")
    assert "2 tried again" in run("--retry", "not_converged", "--retry", "exception").stderr
    now = found()
    assert {name: now[name] for name in untouched} == untouched
    assert {(now[name].status, now[name].reason, now[name].detail) for name in ("kr", "krcu3")} == {
        ("stable", None, None)
    }


def test_an_unknown_reason_is_a_sentence_before_anything_is_done(run, tmp_path):
    refused = run("--retry", "bad_luck")
    assert refused.exit_code == 2
    assert last_words(refused).startswith(
        "phononbench: there is no reason 'bad_luck' to retry; there are all-failed, proven, unreadable_file, "
    )
    assert not (tmp_path / "results").exists()


def compute(keys: list[str], store: Path) -> None:
    """Compute crystals that wait, as a worker does."""
    protocol = Protocol.model_validate(SMALL).model_dump(mode="json")
    maker = ChunkMaker(store=full_spec(store), protocol=protocol, potential="toy_potentials:lj", device="cpu")
    run_locally(maker.make(keys), store=JobStore(MemoryStore()), log=False, raise_immediately=True)


def test_a_crystal_whose_file_changed_under_another_protocol_is_computed_when_it_is_handed_in_again(
    run, found, folder, cu3au, monkeypatch
):
    monkeypatch.setenv("TOY_BREAKS_AT", "1")
    assert run().exit_code == 2
    monkeypatch.delenv("TOY_BREAKS_AT")
    monkeypatch.setenv("TOY_BEARS_KRYPTON", "1")
    waiting = found()
    silver = Structure(cu3au.lattice, ["Ag", "Cu", "Cu", "Cu"], cu3au.frac_coords)
    CifWriter(silver).write_file(folder / "cu3au.cif")
    assert run(protocol=OTHER).exit_code == 0
    other = found(protocol=OTHER)
    assert {d.status for d in other.values()} == {"stable", "unstable"}
    assert other["cu3au"].elements == ["Ag", "Cu"]
    # Where the crystals wait under the first protocol, as a worker would that was to compute them.
    compute([d.key for d in waiting.values()], folder.parent / "results")
    stale = found()
    assert (stale["cu3au"].status, stale["cu3au"].reason) == ("failed", "input_changed")
    assert "hand the set in again" in stale["cu3au"].detail
    assert (stale["cu3au"].content_hash, stale["cu3au"].attempts) == (waiting["cu3au"].content_hash, 0)
    assert {d.status for name, d in stale.items() if name != "cu3au"} == {"stable", "unstable"}
    again = run()
    assert again.exit_code == 0
    assert "0 new, 1 changed" in again.output
    now = found()
    assert (now["cu3au"].status, now["cu3au"].reason, now["cu3au"].detail) == ("stable", None, None)
    assert now["cu3au"].content_hash == other["cu3au"].content_hash
    assert now["cu3au"].minimum.frequency == pytest.approx(other["cu3au"].minimum.frequency, abs=1e-3)
    assert {name: d for name, d in now.items() if name != "cu3au"} == {
        name: d for name, d in stale.items() if name != "cu3au"
    }
