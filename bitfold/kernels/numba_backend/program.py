"""Steps bound to numba kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend import NUMBA_ROWS, prefers_bitserial
from bitfold.kernels.numba_backend.add import add_integers
from bitfold.kernels.numba_backend.conv_bitserial import bind_bitserial, conv_bitserial
from bitfold.kernels.numba_backend.conv_depthwise import (
    bind_depthwise,
    conv_depthwise,
    is_depthwise,
)
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
from bitfold.kernels.numba_backend.workers import ALONE, NumbaWorkers, Share, part_of
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
BoundStep = Callable[[Arena, Share], None]

# Work of a step (multiply-accumulates, or 16 an element) from which threads pay for waking them.
SHARED_WORK = 2**21

_DTYPES = {"u8": np.uint8, "i32": np.int32, "f32": np.float32}
_ROWS = {row.symbol: row for row in NUMBA_ROWS}
_KERNELS = {
    f"numba.{kernel.__name__}": Kernel(kernel)
    for kernel in (
        conv_bitserial, conv_depthwise, conv_direct, take_thresholds, rescale_integers,
        add_integers, max_pool, sum_pool, copy_channels, dequantize,
    )
}  # fmt: skip

_CONVOLUTIONS = {
    "depthwise": bind_depthwise,
    "bitserial": bind_bitserial,
    "direct": bind_direct,
}
_SYMBOLS: dict[type[Step], str] = {
    ThresholdStep: "numba.take_thresholds",
    RescaleStep: "numba.rescale_integers",
    AddStep: "numba.add_integers",
    MaxPoolStep: "numba.max_pool",
    SumPoolStep: "numba.sum_pool",
    CopyStep: "numba.copy_channels",
    DequantizeStep: "numba.dequantize",
}


def view(arena: Arena, buffer: Buffer) -> NDArray[np.generic]:
    """The tensor of ``buffer`` in ``arena``, without a copy."""
    flat = arena[buffer.offset : buffer.offset + buffer.num_bytes].view(_DTYPES[buffer.kind])
    return flat.reshape(buffer.shape)


def view_part(arena: Arena, buffer: Buffer, share: Share) -> NDArray[np.generic]:
    """The share's part of ``view`` folded to (M, C)."""
    rows = view(arena, buffer).reshape(-1, buffer.shape[-1])
    return rows[part_of(len(rows), share)]


def _bind_conv(step: ConvStep, symbol: str) -> BoundStep:
    kernel, geometry = _KERNELS[symbol], bind_geometry(step)
    rule = bind_epilogue(step.epilogue)
    weights = _CONVOLUTIONS[_ROWS[symbol].layout](step)
    no_indices, no_integers = np.empty((1, 0, 0), np.uint8), np.empty((1, 0, 0), np.int32)
    addend = step.epilogue.add if isinstance(step.epilogue, ToWide) else None
    to_indices = isinstance(step.epilogue, ToIndices)

    def run(arena: Arena, share: Share) -> None:
        part = part_of(geometry.oh, share)
        out = view(arena, step.out)
        add = view(arena, addend) if addend else no_integers
        outs = (out, no_integers) if to_indices else (no_indices, out)
        rows = (part.start, part.stop)
        kernel(view(arena, step.x), weights, geometry, rows, rule, add, *outs)

    return run


def _bind_rescale(step: RescaleStep) -> BoundStep:
    kernel, rule = _KERNELS["numba.rescale_integers"], bind_epilogue(step.epilogue)
    addend, nothing = step.epilogue.add, np.empty((0, 0), np.int32)

    def run(arena: Arena, share: Share) -> None:
        add = view_part(arena, addend, share) if addend else nothing
        x, out = view_part(arena, step.x, share), view_part(arena, step.out, share)
        kernel(x, rule, step.x_lo, step.x_step, add, out)

    return run


def _bind_max_pool(step: MaxPoolStep) -> BoundStep:
    kernel, (top, left) = _KERNELS["numba.max_pool"], step.padding[:2]

    def run(arena: Arena, share: Share) -> None:
        part = part_of(step.out.shape[0], share)
        start = (top - part.start * step.stride[0], left)
        kernel(view(arena, step.x), step.kernel, step.stride, start, view(arena, step.out)[part])

    return run


def _bind_sum_pool(step: SumPoolStep) -> BoundStep:
    kernel, lo, scale = _KERNELS["numba.sum_pool"], step.x_lo, step.x_step

    def run(arena: Arena, share: Share) -> None:
        part = part_of(step.out.shape[0], share)
        x = view(arena, step.x)[part.start * step.stride[0] :]
        kernel(x, lo, scale, step.kernel, step.stride, view(arena, step.out)[part])

    return run


def _bind_rows(step: ThresholdStep | AddStep | CopyStep | DequantizeStep, symbol: str) -> BoundStep:
    """Steps that see their tensors as (M, C)."""
    kernel = _KERNELS[symbol]
    match step:
        case ThresholdStep():
            rule = bind_epilogue(step.epilogue)
            return lambda arena, share: kernel(
                view_part(arena, step.x, share), rule, view_part(arena, step.out, share)
            )
        case AddStep():
            starts = (step.a_start, step.b_start)
            return lambda arena, share: kernel(
                view_part(arena, step.a, share),
                view_part(arena, step.b, share),
                view_part(arena, step.out, share),
                *starts,
            )
        case CopyStep():
            span = (step.x_start, step.out_start, step.count, step.repeats)
            return lambda arena, share: kernel(
                view_part(arena, step.x, share), view_part(arena, step.out, share), *span
            )
        case DequantizeStep():
            scale = np.array(step.scale, np.float32)
            return lambda arena, share: kernel(
                view_part(arena, step.x, share), scale, view_part(arena, step.out, share)
            )
        case _:
            assert_never(step)


def _layout_of(force: str | None) -> str:
    """The layout that a forced layout, layout:isa or symbol names."""
    return (force or "").removeprefix("numba.conv_").partition(":")[0]


def _symbol_of(step: Step, force: str | None) -> str:
    if not isinstance(step, ConvStep):
        return _SYMBOLS[type(step)]
    if step.is_wide:
        return "numba.conv_direct"
    forced = _layout_of(force)
    if forced in ("direct", "bitserial"):
        return f"numba.conv_{forced}"
    if is_depthwise(step):
        return "numba.conv_depthwise"
    bitserial = prefers_bitserial(x_bits=step.x_grid.bits, weight_bits=step.weight_grid.bits)
    return "numba.conv_bitserial" if bitserial else "numba.conv_direct"


def _bind(step: Step, symbol: str) -> BoundStep:
    match step:
        case ConvStep():
            return _bind_conv(step, symbol)
        case RescaleStep():
            return _bind_rescale(step)
        case MaxPoolStep():
            return _bind_max_pool(step)
        case SumPoolStep():
            return _bind_sum_pool(step)
        case _:
            return _bind_rows(step, symbol)


def _work_of(step: Step) -> int:
    if isinstance(step, ConvStep):
        return step.out.num_elements * int(step.weight[0].size)
    return 16 * step.out.num_elements


@dataclass(frozen=True, slots=True)
class NumbaProgram:
    """Steps bound to kernels; see ``bitfold.kernels.registry.Program`` for the contract."""

    rows: tuple[Row, ...]
    arena_bytes: int
    bound: tuple[BoundStep, ...]
    shared: tuple[bool, ...]  # which steps are large enough to be shared among threads
    input: Buffer
    output: Buffer
    threads: int

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each step runs on its row."""
        reasons = {"depthwise": "one filter a channel", "dense": "the only row"}
        return tuple(reasons.get(row.layout, "by its width") for row in self.rows)

    def start_workers(self) -> NumbaWorkers | None:
        """Threads that ``run`` shares large steps with; None where there is one, the caller."""
        return NumbaWorkers(self.threads) if self.threads > 1 else None

    def run(
        self,
        images: NDArray[np.uint8],
        logits: NDArray[np.float32],
        arena: Arena,
        workers: Workers | None = None,
    ) -> None:
        """Images (N, H, W, C) → logits (N, …), one image at a time; ``workers`` share each."""
        pixels, result = view(arena, self.input), view(arena, self.output).ravel()
        flat = logits.reshape(len(logits), result.size)
        for n in range(len(images)):
            pixels[...] = images[n]
            for step, shared in zip(self.bound, self.shared, strict=True):
                if shared and isinstance(workers, NumbaWorkers):
                    workers.share_out(partial(step, arena))
                else:
                    step(arena, ALONE)
            flat[n] = result

    def run_step(self, i: int, arena: Arena) -> None:
        """Step ``i`` alone, on what the arena holds."""
        self.run_share(i, arena, share=ALONE)

    def run_share(self, i: int, arena: Arena, *, share: Share) -> None:
        """Part i of n of step ``i``, whatever its size."""
        self.bound[i](arena, share)


def compile_numba(
    steps: Sequence[Step],
    *,
    input: Buffer,
    arena_bytes: int,
    force: str | None = None,
    threads: int = 1,
) -> NumbaProgram:
    """Bind each step to its row; ``force`` names a layout (``direct``, ``bitserial``)."""
    symbols = [_symbol_of(step, force) for step in steps]
    return NumbaProgram(
        rows=tuple(_ROWS[symbol] for symbol in symbols),
        arena_bytes=arena_bytes,
        bound=tuple(_bind(step, symbol) for step, symbol in zip(steps, symbols, strict=True)),
        shared=tuple(_work_of(step) >= SHARED_WORK for step in steps),
        input=input,
        output=steps[-1].out,
        threads=threads,
    )
