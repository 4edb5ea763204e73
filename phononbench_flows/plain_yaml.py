"""YAML of people: keys and plain values. What only an attack would write is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from phononbench_flows.files import read_regular

MAX_BYTES = 1_000_000
_DEEPEST = 100


class PlainYamlError(Exception):
    """A file that cannot be used; the message says why, and not which."""


class _Loader(yaml.SafeLoader):
    """Without aliases: ten lines of them stand for more values than memory holds. And not deeper than people write:
    how long it takes Python to give up depends on what other packages have set.
    """

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses aliases (*name): write the values out")
        if self._depth == _DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str):
            value.encode()  # half a character, which YAML can spell, no store and no terminal takes
        return value


def read_plain_yaml(path: Path, most: int = MAX_BYTES) -> dict[Any, Any]:
    """Keys and values of a YAML file.

    Raises:
        PlainYamlError: it cannot be read, is no YAML, or holds something else than keys and values.
    """
    try:
        given = yaml.load(read_regular(path, most).decode(), Loader=_Loader)  # noqa: S506  (it is a safe loader)
    except OSError as error:
        raise PlainYamlError(error.strerror or str(error)) from error
    except (ValueError, RecursionError, MemoryError, yaml.YAMLError) as error:
        raise PlainYamlError(" ".join(str(error).split())[:300] or type(error).__name__) from error
    if not isinstance(given, dict):
        raise PlainYamlError("it must hold keys and values")
    return given
