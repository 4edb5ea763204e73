"""The command line. Thin: every command parses, calls, and prints."""

import atexit
import os
import sys

from phononbench_flows.cli import cluster, confirm, credibility, following, local, results, serve, workers
from phononbench_flows.cli.common import app

__all__ = ["app", "cluster", "confirm", "credibility", "following", "local", "main", "results", "serve", "workers"]


def main() -> None:
    """The command ``phononbench``, as a process of its own.

    It ends at once: to take apart what was imported, object by object, would take three seconds more.
    """
    code = 0
    try:
        app()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):  # a sentence, which Python prints
            raise
        code = ended.code or 0
    atexit._run_exitfuncs()  # noqa: SLF001 (as multiprocessing does at the end of its processes)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
