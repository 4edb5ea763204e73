"""A report over the crystals of a store: tables as CSV and Markdown, figures, and one page to look around in."""

from phononbench_flows.report.write import write_report

__all__ = ["write_report"]
