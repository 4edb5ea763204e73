"""Follow what the README tells of installing, with the wheel, in an environment and a folder that are empty.

    uv run --no-project scripts/check_readme.py

The commands of "Install" are run as they stand there; but what is installed is the wheel, built from this checkout.
Fails where one of them fails, or what it promises is not there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def commands(heading: str) -> str:
    """The console blocks under a heading of the README."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    if not found:
        sys.exit(f"the README has no commands under {heading!r}")
    return "".join(found)


def main() -> None:
    """Build, install, and do what a newcomer does."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        sys.exit("uv is not installed")
    with tempfile.TemporaryDirectory(prefix="phononbench-readme-") as name:
        folder = Path(name)
        work, env = folder / "work", folder / "env"
        work.mkdir()
        run(f"{uv} build --quiet --wheel --out-dir {folder} {ROOT}", {}, ROOT)
        run(f"{uv} venv --quiet --python 3.12 {env}", {}, ROOT)
        environment = {"PATH": f"{env / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(env)}
        [wheel] = folder.glob("*.whl")
        # As `pip` would, which is slower by minutes.
        script = commands("Install").replace("pip install '.[", f"{uv} pip install --quiet '{wheel}[")
        run(f"{script}phononbench --version", environment, work)
        for path in ("phononbench-results", "report/report.html", "mine/examples/quickstart/GaN_wurtzite.cif"):
            if not (work / path).exists():
                sys.exit(f"{path} is not there")


def run(script: str, environment: dict[str, str], folder: Path) -> None:
    """Run lines of a shell; the first that fails ends this."""
    print(script, flush=True)
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    command = ["/bin/bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, env=kept | environment, cwd=folder, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
