"""Resolve the dependencies as users would ask for them, without installing anything: a line each, and 1 if one fails.

Every extra alone and with `fireworks`, and every largest set of extras and dependency groups that `[tool.uv] conflicts`
lets go together; then the one lock of all, which `uv run` makes. Needs uv and a package index.

    uv run scripts/check_resolution.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, repeat
from pathlib import Path

ROOT = Path(__file__).parent.parent
UV = os.environ.get("UV") or shutil.which("uv")
_AT_ONCE = 4
Item = tuple[str, str]  # ("extra", "mace") or ("group", "dev")


def largest_sets(items: list[Item], conflicts: list[set[Item]]) -> list[list[Item]]:
    """The sets to which nothing can be added without having two items of one conflict."""
    found: list[list[Item]] = []
    for size in range(len(items), 0, -1):
        for chosen in map(list, combinations(items, size)):
            allowed = all(len(conflict.intersection(chosen)) < 2 for conflict in conflicts)
            if allowed and not any(set(chosen) <= set(larger) for larger in found):
                found.append(chosen)
    return found


def requests(pyproject: dict) -> list[list[Item]]:
    """What to resolve."""
    extras: list[Item] = [("extra", name) for name in pyproject["project"]["optional-dependencies"]]
    groups: list[Item] = [("group", name) for name in pyproject["dependency-groups"]]
    conflicts = [
        {(kind, name) for item in conflict for kind, name in item.items()}
        for conflict in pyproject["tool"]["uv"]["conflicts"]
    ]
    fireworks: Item = ("extra", "fireworks")
    alone = [[extra] for extra in extras]
    with_fireworks = [[extra, fireworks] for extra in extras if extra != fireworks]
    return [[], *alone, *with_fireworks, *largest_sets([*extras, *groups], conflicts)]


def resolves(name: str, arguments: list[str], folder: Path) -> bool:
    """Run uv in a folder and print a line."""
    start = time.perf_counter()
    command = [str(UV), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {time.perf_counter() - start:5.1f} s  {name}", flush=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
    return done.returncode == 0


def main() -> int:
    """Resolve everything."""
    if UV is None:
        print("uv is not installed", file=sys.stderr)
        return 1
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy)
        package = folder / "phononbench_flows"
        package.mkdir()
        (package / "__init__.py").touch()
        for name in ("pyproject.toml", "README.md", "LICENSE", ".python-version"):
            shutil.copy(ROOT / name, folder)
        compile_to = ["pip", "compile", "--quiet", "--output-file", os.devnull, "pyproject.toml"]
        asked = {
            " + ".join(name for _, name in items) or "no extra": [
                *compile_to,
                *(part for kind, name in items for part in (f"--{kind}", name)),
            ]
            for items in requests(pyproject)
        }
        asked["one lock of all, as `uv run` makes it"] = ["lock"]
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # uv mostly waits for the index
            answers = list(pool.map(resolves, asked.keys(), asked.values(), repeat(folder)))
    print(f"{answers.count(True)} of {len(answers)} resolve")
    return 0 if all(answers) else 1


if __name__ == "__main__":
    sys.exit(main())
