"""How a rate settles as more crystals are tested: a band over all orders in which they may have come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_STEPS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


def sample_sizes(total: int) -> np.ndarray:
    """Round numbers up to ``total``, about ten to a decade, and ``total`` itself; shape (n_sizes,)."""
    round_ones = {int(step * 10**decade) for decade in range(len(str(total))) for step in _STEPS}
    return np.array(
        sorted({size for size in round_ones if size < total} | ({total} if total > 0 else set())), dtype=int
    )


def order_band(stable: int, total: int, sizes: ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """Lower and upper end of the rate among the first ``sizes`` crystals, over all orders of the ``total``.

    The stable ones among the first n of a random order follow the hypergeometric distribution, so the quantiles over
    the orders need no drawing of orders. At n = ``total`` nothing is left to chance and the band has closed: it tells
    how the order of these crystals matters, not how well they stand for all that a model would make.

    Returns:
        two arrays of rates, of the shape of ``sizes``.

    Raises:
        ValueError: a size outside 1 to ``total``, or more stable crystals than there are.
    """
    sizes = np.asarray(sizes)
    if not 0 <= stable <= total or (sizes.size and not 1 <= sizes.min() <= sizes.max() <= total):
        raise ValueError(f"no band for {stable} stable among the first of {total} crystals")
    from scipy.stats import hypergeom

    tail = (1 - confidence) / 2
    first = hypergeom(total, stable, sizes)
    return first.ppf(tail) / sizes, first.ppf(1 - tail) / sizes
