"""The files that a site makes its own: queue adapters, workers, settings of FireWorks and jobflow.

They come with the package, and lie in ``launchers/`` of a checkout.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import yaml

from phononbench_flows.files import replacing
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml
from phononbench_flows.settings_files import SettingsFileError

FIREWORKS_SETTINGS = "FW_config.yaml"


def packaged() -> Path:
    """Where the files are that came with this installation."""
    in_wheel = Path(str(files("phononbench_flows"))) / "launchers"
    return in_wheel if in_wheel.is_dir() else in_wheel.parents[1] / "launchers"


def copy_files(folder: Path) -> list[str]:
    """Put the files into a folder; gives the names of those that were not there. What is there is the user's own."""
    folder.mkdir(parents=True, exist_ok=True)
    new = [file for file in sorted(packaged().iterdir()) if file.is_file() and not (folder / file.name).exists()]
    for file in new:
        shutil.copyfile(file, folder / file.name)
    return [file.name for file in new]


def point_fireworks_to(launchpad_file: Path) -> str | None:
    """Have FireWorks use this file from any folder; gives a sentence if its settings say otherwise.

    Without it, FireWorks takes the ``my_launchpad.yaml`` of the folder that it is started in before that of its user:
    its commands look into CONFIG_FILE_DIR first, and only then at LAUNCHPAD_LOC.

    Raises:
        SettingsFileError: its settings cannot be read.
    """
    settings = launchpad_file.parent / FIREWORKS_SETTINGS
    places = {"CONFIG_FILE_DIR": str(launchpad_file.parent), "LAUNCHPAD_LOC": str(launchpad_file)}
    if not settings.exists():
        with replacing(settings) as partial:
            partial.write_text((packaged() / FIREWORKS_SETTINGS).read_text() + yaml.safe_dump(places))
        return None
    try:
        named = read_plain_yaml(settings)
    except PlainYamlError as error:
        raise SettingsFileError(f"{settings} cannot be read: {error}") from error
    missing = {name: place for name, place in places.items() if name not in named}
    if missing:
        with settings.open("a") as file:
            file.write(f"\n{yaml.safe_dump(missing)}")
    others = [f"{name} {named[name]}" for name, place in places.items() if named.get(name, place) != place]
    return f"{settings} says {' and '.join(others)}: FireWorks' commands look there" if others else None
