"""Build the documentation site, every tutorial executed; a warning is an error.

    uv run --group docs --extra sevennet python scripts/build_docs.py [OUT]

The tutorial on clusters takes the MongoDB that PHONONBENCH_MONGO_URI names, else a server of the tests' kind that is
started for it. Only CPUs are used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
STARTUP = """
import os
import subprocess

from IPython.core.magic import register_cell_magic

os.environ.pop("FORCE_COLOR", None)  # a kernel asks programs for colours, which pages cannot show


@register_cell_magic
def bash(options, cell):
    # IPython's own hands on what is written in pieces of a hundred bytes, and each gets a frame of its own in the page.
    done = subprocess.run(["bash", *options.split()], input=cell, text=True, capture_output=True)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(done.stderr)
"""
"""What kernels do at their start."""


@contextmanager
def mongo() -> Iterator[str]:
    """The address of a server, started where none is named."""
    if given := os.environ.get("PHONONBENCH_MONGO_URI"):
        yield given
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from servers import MongoServer

    with tempfile.TemporaryDirectory(prefix="phononbench-docs-") as folder:
        server = MongoServer(Path(folder) / "files")
        try:
            yield server.uri
        finally:
            server.kill()


def main() -> None:
    """Build, into the folder that is given or docs/_build."""
    out = sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "_build"
    with mongo() as uri, tempfile.TemporaryDirectory(prefix="phononbench-docs-") as home:
        startup = Path(home) / "profile_default" / "startup" / "plain.py"
        startup.parent.mkdir(parents=True)
        startup.write_text(STARTUP, encoding="utf-8")
        environment = os.environ | {
            "IPYTHONDIR": home,
            # The commands of this environment, which need not be activated.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PHONONBENCH_MONGO_URI": uri,
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "100",
        }
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
        done = subprocess.run([*command, str(ROOT / "docs"), str(out)], env=environment, check=False)  # noqa: S603
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
