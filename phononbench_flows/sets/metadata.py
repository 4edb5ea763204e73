"""What is known of a set beyond its crystals: read from ``set.yaml`` and options, kept in the store.

The tables need to know which model made a set, what it was trained on, what it was asked for, how many crystals it
made, and how long that took. A file ``set.yaml`` in a folder of crystals says it, or ``--about`` does::

    model: MatterGen
    training_set: MP20
    architecture: GNN
    parameters: 53700000
    condition: {band_gap: 1.5}        # eV
    n_generated: 16000
    generation_seconds: 72720
    generation_hardware: 1x RTX 4090
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from phononbench_flows.documents import SetDocument
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

SET_FILE = "set.yaml"
KEYS = tuple(name for name in SetDocument.model_fields if name not in {"set", "updated_at"})

_MAX_BYTES = 16_000


class SetError(PhononBenchError):
    """Metadata that cannot be used; the message is a sentence."""


def describe_set(
    store: ResultsStore,
    name: str,
    inputs: Sequence[Path],
    about: Iterable[str] = (),
    condition: Mapping[str, str | float | int | bool] | None = None,
) -> SetDocument:
    """Put together what is known of a set, write it to the store if it is anything, and give it back.

    Later sources go before earlier ones, key by key: what the store already knows, ``set.yaml`` in those of the
    inputs that are folders, ``about`` in its order, ``condition``.

    Args:
        store: where the set's document is kept.
        name: name of the set.
        inputs: where its crystals come from.
        about: ``KEY=VALUE``, or paths of YAML files with the same keys.
        condition: what the generator was asked for, key by key.

    Raises:
        SetError: a file that cannot be read, a key that does not exist, or a value that its key does not take.
    """
    there = store.get_set(name)
    known: dict[str, Any] = there.model_dump(include=set(KEYS), exclude_none=True) if there else {}
    files = [path / SET_FILE for path in inputs if path.is_dir() and (path / SET_FILE).is_file()]
    _refuse_contradiction(files)
    for given in [*map(_read, files), *map(_about, about), {"condition": dict(condition or {})}]:
        known |= given | {"condition": known.get("condition", {}) | given.get("condition", {})}
    document = _document(name, known, "the set's metadata")
    if any(known.values()):
        store.put_set(document)
    return document


def check_about(about: Iterable[str]) -> None:
    """Make sure that these can be used, without a store.

    Raises:
        SetError: as :func:`describe_set`.
    """
    for text in about:
        _about(text)


def _refuse_contradiction(files: Sequence[Path]) -> None:
    """Two folders of one set must not say different things of it."""
    said: dict[str, tuple[Any, Path]] = {}
    for file in files:
        for key, value in _read(file).items():
            before, where = said.setdefault(key, (value, file))
            if before != value:
                raise SetError(f"{where} and {file} say different things of {key!r}")


def _about(text: str) -> dict[str, Any]:
    """What one ``--about`` says."""
    key, separator, value = text.partition("=")
    if not separator:
        return _read(Path(text))
    if key == "condition":
        raise SetError("--about condition=...: what the generator was asked for is given by --condition KEY=VALUE")
    return _checked({key: value}, f"--about {text!r}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return _checked(read_plain_yaml(path, _MAX_BYTES), str(path))
    except PlainYamlError as error:
        raise SetError(f"{path} cannot be read: {error}") from error


def _checked(given: dict[Any, Any], where: str) -> dict[str, Any]:
    """The values in their types; those that are null left out."""
    unknown = [str(key) for key in given if key not in KEYS]
    if unknown:
        raise SetError(f"{where}: there is no key {unknown[0]!r}, only {', '.join(KEYS)}")
    return _document("any", given, where).model_dump(include=set(given), exclude_none=True)


def _document(name: str, values: Mapping[str, Any], where: str) -> SetDocument:
    try:
        return SetDocument.model_validate({"set": name, **values})
    except ValidationError as error:
        problem = error.errors()[0]
        raise SetError(f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
