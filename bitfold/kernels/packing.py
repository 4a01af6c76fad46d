"""Bytes in memory: the normative description of everything that kernels read.

*Indices* lie one unsigned byte each, (H, W, C) dense. Every buffer is followed by 64 bytes that
may be read (never written), so vector loads may run over its end. *Bit planes* hold one bit of
every index: element i is bit i mod 64 of word i div 64, little-endian, zero past the end; as
32-bit words (which kernels read) that is bit i mod 32 of word i div 32.

*Fields* hold indices of b = 1 to 4 bits, 256 of them in 32·b bytes. Index 32·j + i of the 256 is
the j mod 4-th pair of bits of byte i of 32-byte register j div 4 (b = 2), likewise with halves of
bytes (b = 4) and bits (b = 1); b = 3 is b = 2 for the low bits, then b = 1 for the high ones.

A *block* is 16 output channels of one group, a *lane* one of them. Lanes count over all groups,
each group rounded up to whole blocks; per-lane constants are arrays over lanes. A *panel* holds
the weights of one block. Its layouts, outermost index first:

* ``direct``      [kernel row][quad][16 lanes][4]: int8. A quad is four consecutive bytes of the
  input row of kernel_w · C bytes; the last quad of a row is filled up with zero weights.
* ``direct_wide`` [kernel row][pair][16 lanes][2]: int16. A pair is two consecutive
  indices of the row, read as 16-bit words.
* ``packed``      ``direct`` as fields of weight indices, filled up to a multiple of 256.
* ``bitserial``   [plane][kernel row][32-bit word][16 lanes]: planes of the weight indices, or of
  other bits (layouts/bitserial.py), over a kernel row of pixels of C bits rounded up to bytes.
* ``dictionary``  [kernel row][column][channels][32 or 64 lanes]: one index for several channels, of
  4 bits (two to a byte, the first low) or 8; vectors of two or four blocks, of which byte 2i is
  lane i, byte 2i + 1 lane i of the upper half.
"""

import numpy as np
from numpy.typing import NDArray

LANES = 16
QUAD, PAIR = 4, 2
WORD_BITS = 64

UInt64Array = NDArray[np.uint64]
ByteArray = NDArray[np.uint8]
WeightArray = NDArray[np.int8]


def round_up(value: int, multiple: int) -> int:
    """Least multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


def pack_planes(indices: ByteArray, bits: int) -> UInt64Array:
    """Bit planes (…, bits, words) of indices (…, K); words = ceil(K / 64)."""
    count = indices.shape[-1]
    padded = np.zeros((*indices.shape[:-1], round_up(count, WORD_BITS)), dtype=np.uint8)
    padded[..., :count] = indices
    planes = np.stack([(padded >> plane) & 1 for plane in range(bits)], axis=-2)
    packed = np.packbits(planes, axis=-1, bitorder="little")
    words: UInt64Array = np.ascontiguousarray(packed).view("<u8")
    return words


def unpack_planes(planes: UInt64Array, count: int) -> ByteArray:
    """Indices (…, count) of bit planes (…, bits, words)."""
    as_bytes = np.ascontiguousarray(planes, dtype="<u8").view(np.uint8)
    unpacked = np.unpackbits(as_bytes, axis=-1, bitorder="little")[..., :count]
    weights = np.uint8(1) << np.arange(planes.shape[-2], dtype=np.uint8)
    indices: ByteArray = (unpacked * weights[:, None]).sum(axis=-2, dtype=np.uint8)
    return indices


def pack_fields(indices: ByteArray, *, bits: int) -> ByteArray:
    """Fields (…, n · bits / 8) of indices (…, n) below 2^bits; n is a multiple of 256."""
    runs = indices.reshape(*indices.shape[:-1], -1, 8, 32)
    if bits == 3:
        low, high = (indices & 3).astype(np.uint8), (indices >> 2).astype(np.uint8)
        fields_of = (pack_fields(low, bits=2), pack_fields(high, bits=1))
        parts = [part.reshape(*runs.shape[:-2], -1) for part in fields_of]
        return np.concatenate(parts, axis=-1).reshape(*indices.shape[:-1], -1)
    per_byte = 8 // bits
    split = runs.reshape(*runs.shape[:-2], bits, per_byte, 32)
    shifts = (bits * np.arange(per_byte, dtype=np.uint8))[:, None]
    fields: ByteArray = (split << shifts).sum(axis=-2, dtype=np.uint8)
    return fields.reshape(*indices.shape[:-1], -1)


def to_lanes(values: NDArray[np.generic], *, groups: int, fill: int = 0) -> NDArray[np.generic]:
    """Per-channel values (O, …) as per-lane values (lanes, …), filled up with ``fill``."""
    per_group = len(values) // groups
    shape = (groups, round_up(per_group, LANES), *values.shape[1:])
    lanes = np.full(shape, fill, dtype=values.dtype)
    lanes[:, :per_group] = values.reshape(groups, per_group, *values.shape[1:])
    return lanes.reshape(shape[0] * shape[1], *values.shape[1:])


def to_blocks(values: NDArray[np.generic], *, groups: int) -> NDArray[np.generic]:
    """Values (O, J) as [block][j][16 lanes]."""
    lanes = to_lanes(values, groups=groups)
    blocks = lanes.reshape(len(lanes) // LANES, LANES, lanes.shape[1])
    return np.ascontiguousarray(blocks.swapaxes(1, 2))


def direct_panels(weight: WeightArray, *, groups: int) -> NDArray[np.int8]:
    """Layout ``direct`` of codes (O, KH, KW, C/groups): (blocks, KH, quads, 16, 4) int8."""
    return _runs(weight, groups=groups, length=QUAD).astype(np.int8)


def direct_wide_panels(weight: NDArray[np.int16], *, groups: int) -> NDArray[np.int16]:
    """Layout ``direct_wide`` of weights (O, KH, KW, C/groups): (blocks, KH, pairs, 16, 2) int16."""
    return _runs(weight, groups=groups, length=PAIR).astype(np.int16)


def _runs(weight: NDArray[np.generic], *, groups: int, length: int) -> NDArray[np.generic]:
    """Weights (O, KH, KW, C/groups) as (blocks, KH, runs, 16, length), rows filled up with 0."""
    num_out, rows, columns, depth = weight.shape
    row = columns * depth
    flat = np.zeros((num_out, rows, round_up(row, length)), dtype=weight.dtype)
    flat[:, :, :row] = weight.reshape(num_out, rows, row)
    lanes = to_lanes(flat, groups=groups)
    blocks = lanes.reshape(-1, LANES, rows, lanes.shape[2] // length, length)
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 1, 4))


def bitserial_panels(planes: ByteArray, *, groups: int) -> NDArray[np.uint32]:
    """Layout ``bitserial`` of bits (planes, O, KH, KW, C/groups): (blocks, planes, words, 16)."""
    count, num_out, rows, columns, depth = planes.shape
    filled = np.zeros((num_out, count, rows, columns, round_up(depth, 8)), dtype=np.uint8)
    filled[..., :depth] = np.moveaxis(planes, 0, 1)
    runs = filled.reshape(num_out, count, rows, -1)
    padded = np.zeros((*runs.shape[:3], round_up(runs.shape[3], 32)), dtype=np.uint8)
    padded[..., : runs.shape[3]] = runs
    words = np.packbits(padded, axis=-1, bitorder="little").view("<u4")
    lanes = to_lanes(words.reshape(num_out, count, -1), groups=groups)
    blocks = lanes.reshape(-1, LANES, *lanes.shape[1:])
    return np.ascontiguousarray(np.moveaxis(blocks, 1, -1)).astype(np.uint32)
