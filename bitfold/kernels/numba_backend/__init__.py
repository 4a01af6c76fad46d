"""The numba backend: portable reference kernels, one file an operation.

Listing the rows costs nothing; numba is loaded by ``bitfold.kernels.numba_backend.program``.
"""

from bitfold.kernels.rows import Row

MAX_BITSERIAL_PAIRS = 4  # plane pairs up to which AND + popcount beats 32-bit dot products


def _row(op: str, layout: str, symbol: str) -> Row:
    return Row(op, layout, "numba", frozenset(), symbol, "numba")


NUMBA_ROWS: tuple[Row, ...] = (
    _row("conv2d", "depthwise", "numba.conv_depthwise"),
    _row("conv2d", "bitserial", "numba.conv_bitserial"),
    _row("conv2d", "direct", "numba.conv_direct"),
    _row("thresholds", "dense", "numba.take_thresholds"),
    _row("rescale", "dense", "numba.rescale_integers"),
    _row("add", "dense", "numba.add_integers"),
    _row("maxpool", "dense", "numba.max_pool"),
    _row("sumpool", "dense", "numba.sum_pool"),
    _row("copy", "dense", "numba.copy_channels"),
    _row("dequantize", "dense", "numba.dequantize"),
)


def prefers_bitserial(*, x_bits: int, weight_bits: int) -> bool:
    """Whether a convolution of these widths has few enough plane pairs for the bit-serial row."""
    return x_bits * weight_bits <= MAX_BITSERIAL_PAIRS


__all__ = ["MAX_BITSERIAL_PAIRS", "NUMBA_ROWS", "prefers_bitserial"]
