"""Steps bound to numba kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend import NUMBA_ROWS, prefers_bitserial
from bitfold.kernels.numba_backend.add import add_integers
from bitfold.kernels.numba_backend.conv_bitserial import bind_bitserial, conv_bitserial
from bitfold.kernels.numba_backend.conv_direct import bind_direct, conv_direct
from bitfold.kernels.numba_backend.copy_channels import copy_channels
from bitfold.kernels.numba_backend.dequantize import dequantize
from bitfold.kernels.numba_backend.epilogue import bind_epilogue
from bitfold.kernels.numba_backend.geometry import bind_geometry
from bitfold.kernels.numba_backend.jit import Kernel
from bitfold.kernels.numba_backend.max_pool import max_pool
from bitfold.kernels.numba_backend.rescale import rescale_integers
from bitfold.kernels.numba_backend.sum_pool import sum_pool
from bitfold.kernels.numba_backend.thresholds import take_thresholds
from bitfold.kernels.program import Workers
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import (
    AddStep,
    Buffer,
    ConvStep,
    CopyStep,
    DequantizeStep,
    MaxPoolStep,
    RescaleStep,
    Step,
    SumPoolStep,
    ThresholdStep,
    ToIndices,
    ToWide,
)

Arena = NDArray[np.uint8]
BoundStep = Callable[[Arena], None]

_DTYPES = {"u8": np.uint8, "i32": np.int32, "f32": np.float32}
_ROWS = {row.symbol: row for row in NUMBA_ROWS}
_KERNELS = {
    f"numba.{kernel.__name__}": Kernel(kernel)
    for kernel in (
        conv_bitserial, conv_direct, take_thresholds, rescale_integers, add_integers,
        max_pool, sum_pool, copy_channels, dequantize,
    )
}  # fmt: skip

_SYMBOLS: dict[type[Step], str] = {
    ThresholdStep: "numba.take_thresholds",
    RescaleStep: "numba.rescale_integers",
    AddStep: "numba.add_integers",
    MaxPoolStep: "numba.max_pool",
    SumPoolStep: "numba.sum_pool",
    CopyStep: "numba.copy_channels",
    DequantizeStep: "numba.dequantize",
}


def view(arena: Arena, buffer: Buffer, *, rows: bool = False) -> NDArray[np.generic]:
    """The tensor of ``buffer`` in ``arena``, without a copy; ``rows`` folds it to (M, C)."""
    flat = arena[buffer.offset : buffer.offset + buffer.num_bytes].view(_DTYPES[buffer.kind])
    return flat.reshape((-1, buffer.shape[-1]) if rows else buffer.shape)


def _bind_conv(step: ConvStep, symbol: str) -> BoundStep:
    kernel, geometry = _KERNELS[symbol], bind_geometry(step)
    rule = bind_epilogue(step.epilogue)
    weights = (bind_direct if symbol == "numba.conv_direct" else bind_bitserial)(step)
    no_indices, no_integers = np.empty((1, 0, 0), np.uint8), np.empty((1, 0, 0), np.int32)
    addend = step.epilogue.add if isinstance(step.epilogue, ToWide) else None
    to_indices = isinstance(step.epilogue, ToIndices)

    def run(arena: Arena) -> None:
        out = view(arena, step.out)
        add = view(arena, addend) if addend else no_integers
        outs = (out, no_integers) if to_indices else (no_indices, out)
        kernel(view(arena, step.x), weights, geometry, rule, add, *outs)

    return run


def _bind_rescale(step: RescaleStep) -> BoundStep:
    kernel, rule = _KERNELS["numba.rescale_integers"], bind_epilogue(step.epilogue)
    addend, nothing = step.epilogue.add, np.empty((0, 0), np.int32)

    def run(arena: Arena) -> None:
        add = view(arena, addend, rows=True) if addend else nothing
        x, out = view(arena, step.x, rows=True), view(arena, step.out, rows=True)
        kernel(x, rule, step.x_lo, step.x_step, add, out)

    return run


def _bind_pool(step: MaxPoolStep | SumPoolStep, symbol: str) -> BoundStep:
    kernel = _KERNELS[symbol]
    if isinstance(step, MaxPoolStep):
        sizes = (step.kernel, step.stride, step.padding[:2])
        return lambda arena: kernel(view(arena, step.x), *sizes, view(arena, step.out))
    lo, scale = step.x_lo, step.x_step
    return lambda arena: kernel(
        view(arena, step.x), lo, scale, step.kernel, step.stride, view(arena, step.out)
    )


def _bind_rows(step: ThresholdStep | AddStep | CopyStep | DequantizeStep, symbol: str) -> BoundStep:
    """Steps that see their tensors as (M, C)."""
    kernel = _KERNELS[symbol]

    def rows(arena: Arena, buffer: Buffer) -> NDArray[np.generic]:
        return view(arena, buffer, rows=True)

    match step:
        case ThresholdStep():
            rule = bind_epilogue(step.epilogue)
            return lambda arena: kernel(rows(arena, step.x), rule, rows(arena, step.out))
        case AddStep():
            return lambda arena: kernel(
                view(arena, step.a).ravel(),
                view(arena, step.b).ravel(),
                view(arena, step.out).ravel(),
            )
        case CopyStep():
            span = (step.x_start, step.out_start, step.count)
            return lambda arena: kernel(rows(arena, step.x), rows(arena, step.out), *span)
        case DequantizeStep():
            scale = np.array(step.scale, np.float32)
            return lambda arena: kernel(rows(arena, step.x), scale, rows(arena, step.out))
        case _:
            assert_never(step)


def _layout_of(force: str | None) -> str:
    """``direct`` or ``bitserial`` where a forced layout, layout:isa or symbol names one."""
    return (force or "").removeprefix("numba.conv_").partition(":")[0]


def _symbol_of(step: Step, force: str | None) -> str:
    if not isinstance(step, ConvStep):
        return _SYMBOLS[type(step)]
    bitserial = prefers_bitserial(x_bits=step.x_grid.bits, weight_bits=step.weight_grid.bits)
    forced = {"direct": False, "bitserial": True}.get(_layout_of(force), bitserial)
    return "numba.conv_bitserial" if forced else "numba.conv_direct"


def _bind(step: Step, symbol: str) -> BoundStep:
    match step:
        case ConvStep():
            return _bind_conv(step, symbol)
        case RescaleStep():
            return _bind_rescale(step)
        case MaxPoolStep() | SumPoolStep():
            return _bind_pool(step, symbol)
        case _:
            return _bind_rows(step, symbol)


@dataclass(frozen=True, slots=True)
class NumbaProgram:
    """Steps bound to kernels; see ``bitfold.kernels.registry.Program`` for the contract."""

    rows: tuple[Row, ...]
    arena_bytes: int
    bound: tuple[BoundStep, ...]
    input: Buffer
    output: Buffer

    def start_workers(self) -> None:
        """None: numba's own threads take part in its parallel loops."""

    def run(
        self,
        images: NDArray[np.uint8],
        logits: NDArray[np.float32],
        arena: Arena,
        workers: Workers | None = None,
    ) -> None:
        """Images (N, H, W, C) → logits (N, …), one image at a time."""
        pixels, result = view(arena, self.input), view(arena, self.output).ravel()
        flat = logits.reshape(len(logits), result.size)
        for n in range(len(images)):
            pixels[...] = images[n]
            for step in self.bound:
                step(arena)
            flat[n] = result

    def run_step(self, i: int, arena: Arena) -> None:
        """Step ``i`` alone, on what the arena holds."""
        self.bound[i](arena)


def compile_numba(
    steps: Sequence[Step], *, input: Buffer, arena_bytes: int, force: str | None = None
) -> NumbaProgram:
    """Bind each step to its row; ``force`` names a layout (``direct``, ``bitserial``)."""
    symbols = [_symbol_of(step, force) for step in steps]
    return NumbaProgram(
        rows=tuple(_ROWS[symbol] for symbol in symbols),
        arena_bytes=arena_bytes,
        bound=tuple(_bind(step, symbol) for step, symbol in zip(steps, symbols, strict=True)),
        input=input,
        output=steps[-1].out,
    )
