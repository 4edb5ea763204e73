"""Names of sets: that of the crystals that were made of a set's, and back."""

from __future__ import annotations

_SUFFIX = ".children"


def children_of(set_name: str) -> str:
    """Name of the set of what was made of the crystals of a set, or of those that were."""
    return generated_of(set_name) + _SUFFIX


def generated_of(set_name: str) -> str:
    """Name of the set that those were generated in of which the crystals of a set were made; else its own."""
    return set_name.removesuffix(_SUFFIX)


def is_children_set(set_name: str) -> bool:
    """Whether a set holds crystals that were made of others."""
    return set_name.endswith(_SUFFIX)
