"""A set that is still being computed has no rank, and says so wherever its rate is shown."""

from __future__ import annotations

import pandas as pd

from phononbench_flows.tables.files import markdown
from phononbench_flows.tables.unfinished import pending_by_set, ranks, unfinished_note

FUNNELS = pd.DataFrame(
    {
        "set": ["A", "B", "C"],
        "generated": [100, 100, 1000],
        "pending": [0, 67, 0],
        "per_relaxed": [0.5, 0.9, 0.6],
        "per_relaxed_low": [0.4, 0.8, 0.5],
        "per_relaxed_high": [0.6, 1.0, 0.7],
    }
)


def test_only_finished_sets_are_ranked():
    assert ranks(FUNNELS, "per_relaxed").tolist() == [2, pd.NA, 1]
    assert pending_by_set(FUNNELS) == {"B": 67}
    assert unfinished_note(FUNNELS) == (
        "Still being computed: B (67 of 100 crystals pending). Their rates are provisional, and they are not ranked."
    )
    assert unfinished_note(FUNNELS[FUNNELS["pending"] == 0]) is None


def test_a_table_says_what_is_pending():
    rows = markdown(FUNNELS.assign(rank_per_relaxed=ranks(FUNNELS, "per_relaxed"))).splitlines()
    assert rows[3] == "| B | 100 | 67 | 90.0 % (80.0 to 100.0), 67 pending | pending |"
    assert "pending" not in rows[2] + rows[4]
