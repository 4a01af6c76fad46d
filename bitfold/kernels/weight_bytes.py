"""How much memory the weights of a step take in a row's own layout."""

from bitfold.kernels.packed_step import constant_bytes
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

    return constant_bytes(pack_step(step, row))
