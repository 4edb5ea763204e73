"""Items in lists of bounded size: crystals in chunks, systems in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator


def bounded[T](
    items: Iterable[T], size: Callable[[T], float], limit: float, most: float = math.inf
) -> Iterator[list[T]]:
    """Items, in order, in lists of at most ``limit`` in all and ``most`` in number; a larger item goes alone."""
    taken: list[T] = []
    total = 0.0
    for item in items:
        if taken and (total + size(item) > limit or len(taken) == most):
            yield taken
            taken, total = [], 0.0
        taken.append(item)
        total += size(item)
    if taken:
        yield taken
