"""PhononBench's released layout: relaxed crystals, and a file of labels in the folder beside them.

``<model>/relaxed/gpuN_partM/`` holds ``NAME_relaxed.cif`` and ``Lable.txt`` (so spelt by the released scripts), with
a line ``NAME<tab>Stable`` or ``unStable`` for each crystal, also for those whose relaxation failed, which have no CIF.
"""

from __future__ import annotations

from collections.abc import Mapping

from phononbench_flows.structures.text import as_text

SAYS = "phononbench"
"""Who says it: the key under which a crystal keeps its label."""

MAX_BYTES = 50_000_000

_NAMES = ("lable.txt", "label.txt", "labels.txt")
_RELAXED = "_relaxed"


def is_label_file(name: str) -> bool:
    """Whether a name is that of a file of labels."""
    return name.rsplit("/", 1)[-1].lower() in _NAMES


def read_labels(data: bytes) -> dict[str, str]:
    """Labels by the names of crystals; lines of another kind say nothing."""
    pairs = (line.rsplit(None, 1) for line in as_text(data).splitlines())
    return {pair[0].strip(): pair[1] for pair in pairs if len(pair) == 2 and pair[1].lower() in {"stable", "unstable"}}


def labelled_name(name: str) -> str:
    """Folder and name under which the labels know a file: ``a/x_relaxed.cif`` is ``a/x``."""
    folder, slash, base = name.rpartition("/")
    stem = base.rsplit(".cif", 1)[0]
    return folder + slash + stem.removesuffix(_RELAXED)


class Labels:
    """Labels of all folders of an input, and which of them have found their crystal."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._found: set[str] = set()

    def add(self, name: str, data: bytes) -> None:
        """Take the labels of a file of that name."""
        folder, slash, _ = name.rpartition("/")
        self._labels |= {folder + slash + crystal: label for crystal, label in read_labels(data).items()}

    def of(self, name: str) -> Mapping[str, str]:
        """What is said of a crystal's file; nothing if no label is there for it."""
        key = labelled_name(name)
        if key not in self._labels:
            return {}
        self._found.add(key)
        return {SAYS: self._labels[key]}

    def without_crystal(self) -> list[str]:
        """Names that have a label, and no file."""
        return [name for name in self._labels if name not in self._found]
