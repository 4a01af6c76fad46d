"""Sums and joins of two and more tensors.

On the stream, as a network of ours adds, or *fine*: two tensors of codes with scales s_a and s_b
are added as q·a + p·b in units of s_a/q, where p/q is the closest fraction to s_b/s_a that leaves
32 bits room. Its error, |s_b/s_a − p/q| < 1/(q·N) for denominators up to N, lies far below what
the float32 sum of the same codes rounds.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.export.lowering.builder import Builder, Pending, exactly
from bitfold.export.lowering.stream import add, on_stream, resolution, shifted
from bitfold.export.qgraph import Join, Sum
from bitfold.ir import Add, CodeTensor, Concat, Rescale

# What each operand of a fine sum may take of int32.
FINE_ROOM = 2**29


def lower_sum(build: Builder, node: Sum) -> None:
    """Two tensors of codes as ``node`` asks; else both on the stream and one exact addition."""
    if node.fine and _fine_sum(build, node):
        return
    a, b = on_stream(build, node.a), on_stream(build, node.b)
    build.known[node.name] = add(build, node.name, a, b)


def _fine_sum(build: Builder, node: Sum) -> bool:
    """Whether the sum was made: both operands are integers under one positive scale each."""
    a, b = build.known[node.a], build.known[node.b]
    if not (a.is_uniform and b.is_uniform):
        return False
    ratio = b.gain[0] / a.gain[0]
    largest_b = max(1, build.largest(b.name))
    most = min(
        Fraction(FINE_ROOM, max(1, build.largest(a.name))), Fraction(FINE_ROOM, largest_b) / ratio
    )
    if most < 1 or most * ratio < 1:
        return False
    closest = ratio.limit_denominator(int(most))
    if not closest:
        return False
    unit, channels = a.gain[0] / closest.denominator, len(a.gain)
    terms = [
        _weighted(build, f"{node.name}.{side}", x.name, factor=factor, unit=unit)
        for side, x, factor in (("a", a, closest.denominator), ("b", b, closest.numerator))
    ]
    build.emit(Add(node.name, *terms))
    missed = float(abs(ratio - closest) * a.gain[0] * largest_b)
    made = replace(exactly(node.name, unit, channels), error=a.error + b.error + missed)
    build.known[node.name] = made
    build.report(node.name, "sum", float(made.error.max()))
    return True


def _weighted(build: Builder, name: str, x: str, *, factor: int, unit: Fraction) -> str:
    channels = build.integers(x).shape[-1]
    zeros = np.zeros(channels, np.int64)
    node = Rescale(
        build.free_name(name), x, np.full(channels, factor), zeros, 0, float(unit)
    )  # fmt: skip
    build.emit(node)
    return node.name


def lower_join(build: Builder, node: Join) -> None:
    """Codes of one grid and scale as they are; anything else on the stream."""
    sources = [build.known[x] for x in node.xs]
    if not _is_one_coding(build, sources):
        sources = [on_stream(build, x) for x in node.xs]
        found = [resolution(build, source) for source in sources]
        bits = min(bits for bits in found if bits is not None)
        sources = [
            shifted(build, source, f"{node.name}.{i}", bits=bits)
            for i, source in enumerate(sources)
        ]
    build.emit(Concat(node.name, tuple(source.name for source in sources)))
    gain = sources[0].gain[0]
    channels = sum(len(source.gain) for source in sources)
    error = np.concatenate([source.error for source in sources])
    build.known[node.name] = replace(exactly(node.name, gain, channels), error=error)


def _is_one_coding(build: Builder, sources: list[Pending]) -> bool:
    kinds = [build.types[source.name] for source in sources]
    codings = {
        (kind.grid, kind.scale, source.gain[0])
        for kind, source in zip(kinds, sources, strict=True)
        if isinstance(kind, CodeTensor) and source.is_uniform
    }
    return len(codings) == 1 and all(
        isinstance(kind, CodeTensor) and source.is_uniform
        for kind, source in zip(kinds, sources, strict=True)
    )
