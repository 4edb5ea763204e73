"""On terminals of 80 and of 60 columns nothing is cut: ids, numbers and reasons are all there."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console
from screened import blank, crystal_set
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.cli.narrow import fitting, lines, width_of
from phononbench_flows.cli.workers import _refused, _status_lines
from phononbench_flows.cluster.refusals import Refusal
from phononbench_flows.cluster.status import SetStatus
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.store import ResultsStore

WIDTHS = pytest.mark.parametrize("width", [60, 80, 200])
ID = "a-set-with-a-name-of-forty-characters-or-4711"


def shown(renderable, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), markup=False)
    console.print(renderable)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


def joined(text: str) -> str:
    """As a reader takes it: words that were folded are one."""
    return "".join(text.split())


@WIDTHS
def test_the_status(width):
    counts = {"stable": 123_456, "unstable": 654_321, "undecided": 1, "failed": 98_765, "duplicate": 11_111}
    status = SetStatus(
        set="a-set-with-a-name-of-forty-characters-or",
        protocol_id="mattersim-v1-5m-converged-0123456789abcdef",
        waiting=100_000,
        passed={"relaxed": 40_000, "with force constants": 20_000},
        running=512,
        statuses=counts,
        reasons={reason.value: 12_345 for reason in Reason},
        per_hour=1234.5,
        seconds_left=300_000.0,
        fireworks={"READY": 1000, "WAITING": 3000, "RUNNING": 17, "FIZZLED": 2},
        needed={"gpu": 990, "cpu": 10},
        at_work={"gpu": 17},
    )
    text = joined(shown(lines(_status_lines(status)), width))
    for expected in (status.set, status.protocol_id, "123456stable", "12345killed_worker", "3000WAITING"):
        assert expected in text
    assert "cpuworkers:10jobsareready,noneisatwork" in text
    why = "potential mattersim-v1-5m: the weights are not at /a/very/long/path/" + "x" * 90
    refusal = Refusal("gpu", "phononbench-gpu", "potential", why, 12, "node-0815", datetime.now(UTC))
    assert joined(why) in joined(shown(lines([_refused(refusal)]), width))


@WIDTHS
def test_a_table_gives_up_columns_before_it_folds_what_counts(width):
    columns = {"crystal": [ID], "formula": ["Li4Fe4P4O16"], "reason": ["volume_out_of_range"], "lowest": ["-12.34"]}
    columns |= {"space group": ["P2_12_12_1"], "atoms": ["28"]}
    console = Console(width=width)
    table, left_out = fitting(console, columns, ("space group", "atoms", "formula"), right=("lowest",))
    text = joined(shown(table, width))
    for name in columns.keys() - set(left_out):
        assert columns[name][0] in text.replace("│", "") or name == "crystal"
    assert left_out == ([] if width == 200 else ["space group", "atoms", "formula"])
    assert (width_of(console, table) <= width) == (width > 60)


@WIDTHS
def test_the_query(width, tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        documents = [blank(crystal_set("a-set-with-a-name-of-forty-characters-or"), str(4711 + i)) for i in range(3)]
        for document in documents:
            document.status, document.reason = Status.FAILED, Reason.VOLUME_OUT_OF_RANGE
        store.put(*documents)
    command = ["query", str(tmp_path / "results")]
    result = CliRunner().invoke(app, command, env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout
    rows = [[cell.strip() for cell in row.split("│")] for row in result.stdout.splitlines() if "│" in row]
    columns = ["".join(cells) for cells in zip(*rows, strict=True)]
    assert columns[0] == "".join(document.id for document in documents)
    assert "volume_out_of_range" * 3 in columns
    wide = CliRunner().invoke(app, [*command, "--wide"], env={"COLUMNS": str(width)}).stdout
    assert documents[0].id in wide
    assert "space group" in wide
