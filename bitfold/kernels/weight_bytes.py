"""How much memory the weights of a step take in a row's own layout."""

import numpy as np

from bitfold.kernels.registry import kernel_rows
from bitfold.kernels.steps import ConvStep


def packed_weight_bytes(step: ConvStep, symbol: str) -> int:
    """Bytes of the weights of ``step`` and of the tables beside them, as ``symbol``'s row has them.

    numba's rows keep the weights as they are, a byte each.
    """
    row = next(row for row in kernel_rows() if row.symbol == symbol)
    if row.backend != "c":
        return step.weight.nbytes
    from bitfold.kernels.c_steps import pack_step

    packed = pack_step(step, row)
    weight = packed.fields.get("weight")
    tables = packed.extra[1].values() if packed.extra is not None else ()
    return sum(value.nbytes for value in (weight, *tables) if isinstance(value, np.ndarray))
