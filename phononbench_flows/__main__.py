"""``python -m phononbench_flows`` is the command ``phononbench``."""

from phononbench_flows.cli import main

main()
