"""FireWorks' own settings."""

from __future__ import annotations

from pathlib import Path

import yaml

from phononbench_flows.files import replacing
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml
from phononbench_flows.settings_files import SettingsFileError
from phononbench_flows.shipped import shipped

FIREWORKS_SETTINGS = "FW_config.yaml"


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
            partial.write_text((shipped("launchers") / FIREWORKS_SETTINGS).read_text() + yaml.safe_dump(places))
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
