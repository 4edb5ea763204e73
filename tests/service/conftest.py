from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server


@pytest.fixture(scope="module")
def server(folder) -> Iterator[Server]:
    """Serves the store that a file of tests has in its ``folder``."""
    found = Server(folder)
    yield found
    found.kill()
