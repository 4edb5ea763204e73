"""The command line. Thin: every command parses, calls, and prints."""

from phononbench_flows.cli import care, cluster, local, results
from phononbench_flows.cli.common import app

__all__ = ["app", "care", "cluster", "local", "results"]
