from __future__ import annotations

import pytest

from phononbench_flows.sets import ingest, looking
from phononbench_flows.structures import duplicates, parse


@pytest.fixture
def parsed_here(monkeypatch):
    """Files are parsed in this process: workers take seconds to start, and have tests of their own."""

    def parse_all(raws):
        return ((raw, raw.rejection or parse(raw.format, raw.data)) for raw in raws)

    for module in (ingest, looking, duplicates):
        monkeypatch.setattr(module, "parse_all", parse_all)
