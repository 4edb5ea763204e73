"""The files that FireWorks and jobflow read while they are imported.

They are looked at first: a pipe or a bomb would hold the import up for ever, and a wrong value would end it somewhere
inside. Both packages are configured for all their users, so these files may be anybody's.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phononbench_flows.errors import PhononBenchError, problems
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SettingsFileError(PhononBenchError):
    """A file of settings that cannot be used; the message is a sentence."""


class _FireWorksSettings(BaseModel):
    """What our commands make use of in a ``FW_config.yaml``; the names of the rest are FireWorks' to check."""

    model_config = ConfigDict(strict=True, extra="allow")

    PING_TIME_SECS: _Seconds = 0
    RUN_EXPIRATION_SECS: _Seconds = 0
    RESERVATION_EXPIRATION_SECS: _Seconds = 0
    WFLOCK_EXPIRATION_SECS: _Seconds = 0
    SORT_FWS: str = ""
    STREAM_LOGLEVEL: Level = "INFO"
    ROCKET_STREAM_LOGLEVEL: Level = "INFO"
    CONFIG_FILE_DIR: str = "."
    LAUNCHPAD_LOC: str | None = None
    FWORKER_LOC: str | None = None
    QUEUEADAPTER_LOC: str | None = None
    GRIDFS_FALLBACK_COLLECTION: str | None = None
    MONGOMOCK_SERVERSTORE_FILE: str | None = None
    ADD_USER_PACKAGES: list[str] = []


def import_fireworks() -> None:
    """Import FireWorks, where it is installed and can be configured.

    Raises:
        SettingsFileError: its ``FW_config.yaml`` cannot be used.
    """
    file = _fireworks_file()
    if file is not None:
        given = _read(file)
        foreign = [str(key) for key in given if not (isinstance(key, str) and key.isupper())]
        if foreign:
            raise SettingsFileError(f"{file}: FireWorks has no setting {foreign[0]!r}")
        try:
            _FireWorksSettings.model_validate(given)
        except ValidationError as error:
            raise SettingsFileError(f"{file}: {problems(error)}") from error
    try:
        import fireworks  # noqa: F401
    except ImportError:
        raise
    except Exception as error:  # whatever it makes of a value
        raise SettingsFileError(f"FireWorks cannot be used as {file} says: {_line(error)}") from error


def import_jobflow() -> None:
    """Import jobflow, if it can be configured.

    Raises:
        SettingsFileError: its settings, by default ``~/.jobflow.yaml``, cannot be used.
    """
    named = os.environ.get("JOBFLOW_CONFIG_FILE")
    file = Path(named) if named is not None else Path("~/.jobflow.yaml").expanduser()
    if file.is_file() and file.stat().st_size:  # it takes a file without a byte, or one that is none, for no settings
        store = _read(file).get("JOB_STORE")
        if isinstance(store, str):
            _read(Path(store))
    try:
        import jobflow  # noqa: F401
    except Exception as error:  # whatever the modules that are named there do when imported
        raise SettingsFileError(f"jobflow cannot be used as {file} says: {_line(error)}") from error


def _fireworks_file() -> Path | None:
    """The file that FireWorks takes: the first that is there."""
    spec = find_spec("fireworks")
    places = [Path(), Path("~/.fireworks").expanduser()]
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent.parent)
    files = [place / "FW_config.yaml" for place in places]
    if "FW_CONFIG_FILE" in os.environ:
        files.append(Path(os.environ["FW_CONFIG_FILE"]))
    return next((file for file in files if file.exists()), None)


def _read(file: Path) -> dict[Any, Any]:
    try:
        return read_plain_yaml(file)
    except PlainYamlError as error:
        raise SettingsFileError(f"{file} cannot be read: {error}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
