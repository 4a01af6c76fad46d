"""The points that no other point beats."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pareto_front(costs: Sequence[Sequence[float]]) -> NDArray[np.bool_]:
    """(N,) whether no other row of (N, D) costs is at most as large everywhere and less somewhere.

    Equal rows are all kept. Rows are visited in lexicographic order, where nothing later can beat
    anything earlier, so that each is compared with the front so far alone.
    """
    if not costs:
        return np.zeros(0, dtype=np.bool_)
    table = np.asarray(costs, dtype=np.float64)
    kept = np.zeros(len(table), dtype=np.bool_)
    front = np.empty_like(table)
    size = 0
    for i in np.lexsort(table.T[::-1]):
        row, known = table[i], front[:size]
        beaten = (known <= row).all(axis=1) & (known < row).any(axis=1)
        if not beaten.any():
            kept[i] = True
            front[size] = row
            size += 1
    return kept
