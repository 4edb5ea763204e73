"""The files that come with the package for users to make theirs: launchers, analysis scripts, examples.

They are at the top of a checkout, and in ``shipped/`` of an installed package.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

FOLDERS = ("launchers", "analysis", "examples")


def shipped(name: str) -> Path:
    """Where one of the folders is that came with this installation."""
    package = Path(str(files("phononbench_flows")))
    in_wheel = package / "shipped" / name
    return in_wheel if in_wheel.is_dir() else package.parent / name


def copy_shipped(folder: Path) -> list[str]:
    """Put the files into a folder; gives the paths in it that were not there. What is there is the user's own."""
    new = []
    for name in FOLDERS:
        source = shipped(name)
        for file in sorted(file for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts):
            place = folder / name / file.relative_to(source)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
                new.append(str(place.relative_to(folder)))
    return new
