"""Settings of a potential: which there are, and whether they can be had here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from phononbench_flows.potentials.source import Option, PotentialError, Setting, Source, is_installed

ACCELERATE = "accelerate"
AUTO, MEASURE, NEVER = "auto", "measure", "never"

ACCELERATION = Option(
    f"whether faster forms of the network are tried: {AUTO} on a GPU, {MEASURE} anywhere, {NEVER}", default=AUTO
)
"""The option of a potential that has faster forms."""


def parse_settings(pairs: Iterable[str]) -> dict[str, Setting]:
    """Settings from ``NAME=VALUE``, where a value is JSON (``true``, ``2``, ``0.5``) or else a string.

    Raises:
        PotentialError: not a pair, a name twice, or a value that is neither a number, a string nor true or false.
    """
    settings: dict[str, Setting] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise PotentialError(f"a setting is NAME=VALUE, not {pair!r}")
        if name in settings:
            raise PotentialError(f"the setting {name} is given twice")
        value = _value(text)
        if not isinstance(value, bool | int | float | str):
            raise PotentialError(f"the setting {name} has to be a number, a string, true or false, not {text}")
        settings[name] = value
    return settings


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def checked(name: str, source: Source, settings: Mapping[str, Any] | None) -> dict[str, Setting]:
    """The settings that differ from their defaults, sorted by name.

    Raises:
        PotentialError: the potential has no such setting, or it is of another type.
    """
    unknown = set(settings or ()) - set(source.options)
    if unknown:
        raise PotentialError(f"{name} has no setting {', '.join(sorted(unknown))}: {_known(source)}")
    given = {key: _typed(key, source.options[key], value, source) for key, value in sorted((settings or {}).items())}
    return {key: value for key, value in given.items() if value != source.options[key].default}


def _typed(key: str, option: Option, value: Any, source: Source) -> Setting:
    kind = type(option.default)
    if kind is float and type(value) is int:
        return float(value)
    if key == ACCELERATE and value not in {AUTO, MEASURE, NEVER}:
        raise PotentialError(f"the setting {key} has to be {AUTO}, {MEASURE} or {NEVER}, not {value!r}")
    if type(value) is not kind:
        raise PotentialError(f"the setting {key} has to be of type {kind.__name__}, not {value!r}: {_known(source)}")
    return value


def _known(source: Source) -> str:
    if not source.options:
        return "it has none"
    described = (
        f"{key} ({option.summary}; {json.dumps(option.default)} if not given)" for key, option in source.options.items()
    )
    return "it has " + ", ".join(described)


def require(source: Source, settings: Mapping[str, Setting], device: str) -> None:
    """Make sure that what settings need is here.

    Raises:
        PotentialError: a package that is not installed, or no GPU.
    """
    for key in settings:
        option = source.options[key]
        if option.package and not is_installed(option.package):
            raise PotentialError(
                f"the setting {key} needs the package {option.package}, which is not installed: {option.install}"
            )
        if option.gpu and not device.startswith("cuda"):
            raise PotentialError(f"the setting {key} needs a GPU, and the potential was asked for on {device}")
