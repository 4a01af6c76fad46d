"""Arithmetic on int32 tensors from the ONNX operators that every runtime computes exactly.

Runtimes differ in what they do in 32 bits and what they silently do in float32 (docs/onnx.md has
the list). Used are Add, Sub, Mul, Min, Max, BitwiseAnd and comparisons with 0, exact everywhere,
and float32 for integers below 2^24.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from bitfold.export.onnx.build import EXACT_FLOAT, FLOAT
from bitfold.export.onnx.digits import ProductPlan
from bitfold.export.onnx.emit import Emitter
from bitfold.ir.types import IntArray, Shape

INT32, BOOL = ir.DataType.INT32, ir.DataType.BOOL
SHIFT_STEP = 12


def int32(values: IntArray | int) -> np.ndarray[Shape, np.dtype[np.int32]]:
    """``values`` as int32, which must hold them."""
    array = np.asarray(values, dtype=np.int64)
    narrow = array.astype(np.int32)
    if (narrow != array).any():
        raise OverflowError("a constant does not fit int32")
    return narrow


class Int32Emitter(Emitter):
    """Shifts, products and sums in int32."""

    def _with(
        self, op: str, value: ir.Value, number: IntArray | int, *, out: str, key: str = ""
    ) -> ir.Value:
        """``op(value, number)``; the constant is called ``key``, by default after ``out``."""
        constant = self._constant(key or out.replace("/", ".") + ".by", int32(number))
        return self._binary(op, value, constant, out=out)

    def _binary(self, op: str, a: ir.Value, b: ir.Value, *, out: str) -> ir.Value:
        return self._op(op, [a, b], out=out, like=(INT32, shape_of(a)))

    def _apart(self, value: ir.Value, *, out: str) -> ir.Value:
        """The same integers behind a BitwiseAnd with −1.

        OpenVINO computes what follows a convolution, a product or a sum inside it, in float32; it
        does not do so with a BitwiseAnd.
        """
        return self._with("BitwiseAnd", value, -1, out=out)

    def _shifted(self, value: ir.Value, bits: int, *, size: int, out: str) -> ir.Value:
        """⌊value / 2^bits⌋ for |value| ≤ size: without its remainder float32 divides it exactly."""
        bits = min(bits, 31)
        if bits == 0:
            return self._op("Identity", [value], out=out, like=(INT32, shape_of(value)))
        if size >> bits >= EXACT_FLOAT:
            return self._shifted_in_steps(value, bits, size=size, out=out)
        rest = self._with("BitwiseAnd", value, (1 << bits) - 1, out=f"{out}/rest")
        even = self._binary("Sub", value, rest, out=f"{out}/multiple")
        real = self._cast(even, FLOAT, out=f"{out}/float")
        unit = self._constant(f"{out.replace('/', '.')}.unit", np.float32(0.5**bits))
        like = (FLOAT, shape_of(value))
        return self._cast(
            self._op("Mul", [real, unit], out=f"{out}/quotient", like=like), INT32, out=out
        )

    def _shifted_in_steps(self, value: ir.Value, bits: int, *, size: int, out: str) -> ir.Value:
        """The same for results of 2^24 and more: upper and lower bits apart."""
        lower = self._with("BitwiseAnd", value, (1 << SHIFT_STEP) - 1, out=f"{out}/lower")
        upper = self._shifted(value, SHIFT_STEP, size=size, out=f"{out}/upper")
        high = self._with("Mul", upper, 1 << (SHIFT_STEP - bits), out=f"{out}/high")
        low = self._shifted(lower, bits, size=1 << SHIFT_STEP, out=f"{out}/low")
        return self._binary("Add", high, low, out=out)

    def _product(
        self,
        value: ir.Value,
        plan: ProductPlan,
        x: str,
        *,
        ends: tuple[int, int],
        prefix: str,
        out: str,
    ) -> ir.Value:
        """(m·value + c) >> shift as ``plan`` says, in tensor ``out``.

        Gains and offsets are one a channel of tensor ``x``; ``value`` lies in ``ends``.
        """
        digits = self._digits(value, plan, ends=ends, prefix=prefix)
        kept: list[ir.Value] = []
        carry: ir.Value | None = None
        last = len(plan.sizes) - 1
        for p, size in enumerate(plan.sizes):
            total = self._position(digits, plan, x, p=p, prefix=prefix)
            if carry is not None:
                total = self._binary("Add", carry, total, out=f"{prefix}/total{p}")
            if p == last:
                kept.append(total)
            elif p >= plan.first:
                mask = (1 << plan.bits) - 1
                kept.append(self._with("BitwiseAnd", total, mask, out=f"{prefix}/digit{p}"))
            if p < last:
                carry = self._shifted(total, plan.bits, size=size, out=f"{prefix}/carry{p}")
        return self._joined(kept, plan, prefix=prefix, out=out)

    def _digits(
        self, value: ir.Value, plan: ProductPlan, *, ends: tuple[int, int], prefix: str
    ) -> list[ir.Value]:
        digits, rest, size = [], value, max(-ends[0], ends[1])
        for i in range(plan.num_digits - 1):
            mask = (1 << plan.bits) - 1
            digits.append(self._with("BitwiseAnd", rest, mask, out=f"{prefix}/x{i}"))
            rest = self._shifted(rest, plan.bits, size=size, out=f"{prefix}/above{i}")
            size = (size >> plan.bits) + 1
        return [*digits, rest]

    def _position(
        self, digits: Sequence[ir.Value], plan: ProductPlan, x: str, *, p: int, prefix: str
    ) -> ir.Value:
        """Σ_{i+j=p} x_i·m_j + c_p; a position above all products holds c_p alone."""
        pairs = [(i, p - i) for i in range(len(digits)) if 0 <= p - i < len(plan.gains)]
        offset = self._per_channel(plan.offsets[p], x).astype(np.int64)
        if not pairs:
            return self._constant(f"{prefix}.offset{p}", int32(offset))
        total: ir.Value | None = None
        for i, j in pairs:
            factor = self._gain(plan.gains[j], x, key=f"{prefix}.multiplier{j}")
            term = self._binary("Mul", digits[i], factor, out=f"{prefix}/x{i}m{j}")
            if total is not None:
                term = self._binary("Add", total, term, out=f"{prefix}/x{i}m{j}/sum")
            total = term
        assert total is not None
        return self._with("Add", total, offset, out=f"{prefix}/sum{p}", key=f"{prefix}.offset{p}")

    def _gain(self, gain: IntArray, x: str, *, key: str) -> ir.Value:
        if key in self._values:
            return self._values[key]
        return self._constant(key, int32(self._per_channel(gain, x).astype(np.int64)))

    def _joined(
        self, kept: Sequence[ir.Value], plan: ProductPlan, *, prefix: str, out: str
    ) -> ir.Value:
        """The digits from ``first`` on, put together and shifted by what is left."""
        if len(kept) == 1:
            return self._shifted(kept[0], plan.rest, size=plan.sizes[-1], out=out)
        size = (1 << plan.bits) - 1
        total = self._shifted(kept[0], plan.rest, size=size, out=f"{prefix}/digit")
        for i, digit in enumerate(kept[1:], 1):
            power = 1 << (plan.bits * i - plan.rest)
            term = self._with("Mul", digit, power, out=f"{prefix}/high{i}")
            name = out if i == len(kept) - 1 else f"{prefix}/joined{i}"
            total = self._binary("Add", term, total, out=name)
        return total


def shape_of(value: ir.Value) -> list[int | str]:
    """Dimensions of ``value``, symbolic ones by name."""
    assert value.shape is not None
    return [d if isinstance(d, int) else str(d.value) for d in value.shape]
