"""Memory contents and counters of one product on the emitted array, and what has to come out.

Operand words hold ROWS · LANES (left) or COLS · LANES (top) operands, the first one in the low
bits; result words hold COLS sums. Words lie in the order in which the controller reads them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import RangeError
from bitfold.fpga_sim.cycles import Gemm, ceil_div, visits
from bitfold.fpga_sim.rtl.design import COUNT_BITS, Design, fits, zero_or
from bitfold.ir.types import IntArray

Words = NDArray[np.uint8]  # (words, bytes), least byte first


@dataclass(frozen=True, slots=True)
class Stimulus:
    """Counters of the controller by name, operand words, result words."""

    counts: dict[str, int]
    left: Words
    top: Words
    golden: Words


def pack(fields: IntArray, bits: int) -> Words:
    """(words, fields) unsigned numbers of ``bits`` bits each → packed words."""
    planes = (fields[:, :, None] >> np.arange(bits)) & 1
    flat = planes.reshape(len(fields), -1).astype(np.uint8)
    return np.packbits(flat, axis=1, bitorder="little")


def unpack(words: Words, bits: int, *, fields: int) -> IntArray:
    """The ``fields`` two's complement numbers of ``bits`` bits of every word."""
    flat = np.unpackbits(words, axis=1, bitorder="little")[:, : fields * bits]
    planes = flat.reshape(len(words), fields, bits).astype(np.int64)
    weights = 1 << np.arange(bits, dtype=np.int64)
    weights[-1] = -weights[-1]
    return planes @ weights


def hex_text(words: Words) -> str:
    """One line of hexadecimal digits a word, for ``$readmemh``."""
    return "".join(bytes(word[::-1]).hex() + "\n" for word in words)


def parse_hex(text: str, *, bits: int) -> Words:
    """Words of ``bits`` bits as ``$fwrite("%h")`` prints them."""
    width = 2 * ceil_div(bits, 8)
    rows = [bytes.fromhex(line.strip().zfill(width))[::-1] for line in text.splitlines()]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), width // 2)


def _pad(x: IntArray, axis: int, *, multiple: int, fill: int) -> IntArray:
    missing = -x.shape[axis] % multiple
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    return np.pad(x, widths, constant_values=fill)


@dataclass(frozen=True, slots=True)
class _Operands:
    """Left (G, L, K) and top (G, T, K): codes as unsigned bits, K padded, and their product."""

    left: IntArray
    top: IntArray
    product: IntArray  # (G, L, T)
    left_bits: int
    top_bits: int


def _operands(a: IntArray, w: IntArray, design: Design) -> _Operands:
    """Codes a (G, P, K) and w (G, K, M), padded to whole folds, in the roles of the dataflow.

    Where neither operand has a code 0, a bit of a meets another bit of w: no match, no sum.
    """
    array = design.array
    pad_a, pad_w = zero_or(0, design.activation), zero_or(1, design.weight)
    swapped = array.dataflow == "is"
    rows = array.rows if array.dataflow == "os" else 1
    p_multiple, m_multiple = (array.cols, 1) if swapped else (rows, array.cols)
    a = _pad(a, 1, multiple=p_multiple, fill=design.activation.decode(pad_a))
    w = _pad(w.transpose(0, 2, 1), 1, multiple=m_multiple, fill=design.weight.decode(pad_w))
    product = a @ w.transpose(0, 2, 1)
    depth = array.lanes * (1 if array.dataflow == "os" else array.rows)
    sent_a = _pad(design.activation.encode(a), 2, multiple=depth, fill=pad_a)
    sent_w = _pad(design.weight.encode(w), 2, multiple=depth, fill=pad_w)
    bits_a, bits_w = design.activation.bits, design.weight.bits
    if swapped:
        return _Operands(sent_w, sent_a, product.transpose(0, 2, 1), bits_w, bits_a)
    return _Operands(sent_a, sent_w, product, bits_a, bits_w)


def _os_words(x: IntArray, size: int, lanes: int) -> IntArray:
    """(G, folds · size, K' · lanes) → (G · folds · K', size · lanes)."""
    groups, length, depth = x.shape
    cut = x.reshape(groups, length // size, size, depth // lanes, lanes)
    return cut.transpose(0, 1, 3, 2, 4).reshape(-1, size * lanes)


def _output_stationary(found: _Operands, design: Design) -> tuple[IntArray, IntArray, IntArray]:
    array = design.array
    groups, length, across = found.product.shape
    row_folds, col_folds = length // array.rows, across // array.cols
    tiles = found.product.reshape(groups, row_folds, array.rows, col_folds, array.cols)
    # Column folds outside, row folds inside, the bottom row first.
    golden = tiles[:, :, ::-1].transpose(0, 3, 1, 2, 4).reshape(-1, array.cols)
    return (
        _os_words(found.left, array.rows, array.lanes),
        _os_words(found.top, array.cols, array.lanes),
        golden,
    )


def _stationary(found: _Operands, design: Design) -> tuple[IntArray, IntArray, IntArray]:
    array = design.array
    groups, length, depth = found.left.shape
    folds = depth // (array.rows * array.lanes)
    row = array.rows * array.lanes
    full = min(length, array.acc_words)
    chunks = [
        found.left[g, start : start + full].reshape(-1, folds, row).swapaxes(0, 1).reshape(-1, row)
        for g in range(groups)
        for start in range(0, length, full)
    ]
    col_folds = found.top.shape[1] // array.cols
    cut = found.top.reshape(groups, col_folds, array.cols, folds, array.rows, array.lanes)
    # The first word loaded moves to the last row.
    words = cut[:, :, :, :, ::-1].transpose(0, 1, 3, 4, 2, 5).reshape(-1, array.cols * array.lanes)
    sums = found.product.reshape(groups, length, col_folds, array.cols).swapaxes(1, 2)
    return np.concatenate(chunks), words, sums.reshape(-1, array.cols)


def _counts(gemm: Gemm, design: Design) -> dict[str, int]:
    array = design.array
    counts = {"groups": gemm.groups, "depth": gemm.depth}
    if array.dataflow == "os":
        steps = ceil_div(gemm.depth, array.lanes)
        counts |= {
            "inner": steps,
            "inner_last": steps,
            "lefts": ceil_div(gemm.pixels, array.rows),
            "folds": 1,
            "tops": ceil_div(gemm.filters, array.cols),
        }
    else:
        found = visits(gemm, array)
        counts |= {
            "inner": found.full,
            "inner_last": found.rest,
            "lefts": found.chunks,
            "folds": ceil_div(gemm.depth, array.rows * array.lanes),
            "tops": found.sequences // gemm.groups,
        }
    too_large = {name: count for name, count in counts.items() if count >= 2**COUNT_BITS}
    if too_large:
        raise RangeError(f"counts beyond the controller's {COUNT_BITS} bits: {too_large}")
    return counts


def stimulus(a: IntArray, w: IntArray, design: Design) -> Stimulus:
    """What runs a (G, P, K) × w (G, K, M), codes, on ``design``.

    Raises RangeError where a sum does not fit into the accumulators.
    """
    gemm = Gemm(a.shape[1], a.shape[2], w.shape[2], len(a))
    if not fits(a @ w, design.acc_bits):
        raise RangeError(f"a sum does not fit into accumulators of {design.acc_bits} bits")
    found = _operands(a, w, design)
    order = _output_stationary if design.array.dataflow == "os" else _stationary
    left, top, golden = order(found, design)
    return Stimulus(
        counts=_counts(gemm, design),
        left=pack(left, found.left_bits),
        top=pack(top, found.top_bits),
        golden=pack(golden & (2**design.acc_bits - 1), design.acc_bits),
    )


def results(words: Words, shape: tuple[int, int, int], design: Design) -> IntArray:
    """(G, P, M) sums from result words in the order in which they come out."""
    array = design.array
    groups, pixels, filters = shape
    sums = unpack(words, design.acc_bits, fields=array.cols)
    if array.dataflow == "os":
        rows, cols = ceil_div(pixels, array.rows), ceil_div(filters, array.cols)
        tiles = sums.reshape(groups, cols, rows, array.rows, array.cols)[:, :, :, ::-1]
        whole = tiles.transpose(0, 2, 3, 1, 4).reshape(groups, rows * array.rows, -1)
        return whole[:, :pixels, :filters]
    streamed, across = (filters, pixels) if array.dataflow == "is" else (pixels, filters)
    folds = sums.reshape(groups, -1, streamed, array.cols).swapaxes(1, 2)
    whole = folds.reshape(groups, streamed, -1)[:, :, :across]
    return whole.swapaxes(1, 2) if array.dataflow == "is" else whole
