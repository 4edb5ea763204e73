"""Published numbers that can be had from two places, and whether they agree. Needs no store."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from phononbench_flows.tables.published import disagreements
from phononbench_flows.tables.scripts import publish

PUBLISHED = Path(__file__).parent / "published"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    out = options.parse_args(arguments).out
    publish(out, "published_disagreements", "Published numbers held against each other", disagreements(PUBLISHED))


if __name__ == "__main__":
    main()
