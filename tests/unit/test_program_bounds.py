"""Sizes of a packed program that came from a file: nothing shorter than what kernels read."""

from dataclasses import replace

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows
from bitfold.kernels.c_steps import pack_step, row_fits
from bitfold.kernels.packed_step import PackedEpilogue, PackedProgram
from bitfold.kernels.program_bounds import check_bounds
from bitfold.kernels.steps import (
    AddStep,
    ConvStep,
    CopyStep,
    DequantizeStep,
    MaxPoolStep,
    RescaleStep,
    SumPoolStep,
    ThresholdStep,
    ToIndices,
    ToWide,
)
from tests.property.step_reference import Places

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

HUGE = 1 << 40
ONES = np.ones(32, np.int64)
# What C reads to know where to read and write; the others do not lead anywhere.
HARMLESS = {
    "x_kind", "has_flushes", "x_lo", "x_step", "w_lo", "w_step", "wide_form", "has_relu",
    "has_add", "flush", "factor", "shift", "multiplier", "window_factor", "w_planes",
}  # fmt: skip


def conv_step(layout, *, indices=True):
    """A step that rows of ``layout`` fit."""
    places, rng = Places(), np.random.default_rng(1)
    groups, kernel, size = (32, 3, 6) if layout == "depthwise" else (1, 3, 6)
    kernel, size = (1, 1) if layout == "vector" else (kernel, size)
    pad = (kernel // 2,) * 4
    x = places.buffer((size, size, 32), "u8")
    out = places.buffer((size, size, 32), "u8" if indices else "i32")
    add = places.buffer((size, size, 32), "i32")
    rule = ToIndices(np.tile(np.arange(5, dtype=np.int32), (32, 1)), np.ones(32, np.int32))
    weight = rng.integers(-1, 2, (32, kernel, kernel, 32 // groups)).astype(np.int8)
    return ConvStep(
        "conv", x, out, Grid.unsigned(2), weight, Grid.narrow(2), ONES, (1, 1), pad, groups,
        rule if indices else ToWide(ONES, ONES, 2, add=add, negative_multiplier=ONES),
    ), places.arena_bytes  # fmt: skip


def plain_steps():
    places = Places()
    codes, wide, other = (places.buffer((4, 4, 32), kind) for kind in ("u8", "i32", "i32"))
    half, result = places.buffer((2, 2, 32), "i32"), places.buffer((4, 4, 32), "f32")
    rule = ToIndices(np.tile(np.arange(5, dtype=np.int32), (32, 1)), np.ones(32, np.int32))
    steps = (
        ThresholdStep("thresholds", wide, codes, rule),
        RescaleStep("rescale", wide, other, ToWide(ONES, ONES, 2)),
        AddStep("add", wide, other, wide),
        MaxPoolStep("maxpool", wide, half, (2, 2), (2, 2), (0, 0, 0, 0)),
        SumPoolStep("sumpool", codes, half, (2, 2), (2, 2)),
        CopyStep("copy", wide, other, 0, 0, 32),
        DequantizeStep("dequantize", wide, result, np.ones(32, np.float32)),
    )
    return [(step, places.arena_bytes) for step in steps]


def cases():
    """(name, row, step, arena bytes) for every row that fits one of the steps, this CPU or not."""
    of_conv = [conv_step(layout) for layout in ("direct", "depthwise", "vector")]
    steps = [*of_conv, conv_step("direct", indices=False), *plain_steps()]
    for i, (step, arena_bytes) in enumerate(steps):
        for row in c_rows():
            if row_fits(row, step):
                yield pytest.param(row, step, arena_bytes, id=f"{i}-{row.symbol}")


def check(row, packed, arena_bytes, step):
    program = PackedProgram((row.symbol,), ("",), (packed,), step.out, step.out, arena_bytes)
    check_bounds(program, {row.symbol: row})


def variants(packed):
    """(what is changed, fields → a packed step), for each struct of the step."""
    yield packed.fields, lambda fields: replace(packed, fields=fields)
    yield packed.epilogue.fields, lambda f: replace(packed, epilogue=PackedEpilogue(f))
    if packed.extra is not None:
        name, extra = packed.extra
        yield extra, lambda fields: replace(packed, extra=(name, fields))


def test_every_layout_is_covered():
    conv = {case.values[0].layout for case in cases() if case.values[0].op == "conv2d"}
    assert conv == {row.layout for row in c_rows() if row.op == "conv2d"}
    assert {case.values[0].op for case in cases()} == {row.op for row in c_rows()}


@pytest.mark.parametrize(("row", "step", "arena_bytes"), [*cases()])
def test_nothing_may_be_shorter_or_larger_than_it_is(row, step, arena_bytes):
    packed = pack_step(step, row)
    check(row, packed, arena_bytes, step)
    harmless = HARMLESS | ({"stride_h", "stride_w"} if step.out.shape[:2] == (1, 1) else set())
    for fields, changed in variants(packed):
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                shorter = changed(fields | {name: value.reshape(-1)[:-17]})
                refused(row, shorter, arena_bytes, step, name)
            elif name not in harmless and value:
                refused(row, changed(fields | {name: HUGE}), arena_bytes, step, name)
    if packed.scratch_bytes:
        refused(row, replace(packed, scratch_bytes=0), arena_bytes, step, "scratch_bytes")
    if packed.segments:
        longer = replace(packed.segments[-1], num_quads=99)
        segments = (*packed.segments[:-1], longer)
        refused(row, replace(packed, segments=segments), arena_bytes, step, "segments")
        refused(row, replace(packed, segments=()), arena_bytes, step, "segments")


def refused(row, packed, arena_bytes, step, name):
    try:
        check(row, packed, arena_bytes, step)
    except (ValueError, KeyError):
        return
    pytest.fail(f"{row.symbol} was given another {name}")


@pytest.mark.parametrize(("row", "step", "arena_bytes"), [*cases()])
def test_a_smaller_arena_is_refused(row, step, arena_bytes):
    packed = pack_step(step, row)
    for smaller in (0, 64):
        refused(row, packed, smaller, step, "arena")


def test_an_addend_outside_the_arena_is_refused():
    step, arena_bytes = conv_step("direct", indices=False)
    for row in c_rows():
        if row_fits(row, step):
            packed = pack_step(step, row)
            rule = PackedEpilogue(packed.epilogue.fields | {"add": arena_bytes})
            refused(row, replace(packed, epilogue=rule), arena_bytes, step, "add")
