"""Where the aarch64 rows are exact, their flushes, and how they answer on CPUs that lack something.

Their arithmetic meets the tests of ``tests/property/test_kernels_c_rows.py`` under ``make neon``.
"""

import numpy as np
import pytest

from bitfold.ir import Grid
from bitfold.kernels.c_backend import allowed_rows
from bitfold.kernels.layouts import LAYOUTS
from bitfold.kernels.layouts.direct import conv_segments
from bitfold.kernels.layouts.direct_bytes import MIN_QUADS, byte_quads
from bitfold.kernels.layouts.direct_signed import signed_quads
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep, ToAccumulators
from tests.property.replayed_rows import compile_c, read_table, replay, replay_command
from tests.property.step_reference import Places, aligned_arena, expected_output, view

replayed = pytest.mark.skipif(
    not replay_command(), reason="the aarch64 rows run in `make neon`, with a cross compiler"
)
LEVELS = {"direct_bytes": (2, 4, 5, 16), "direct": (2, 16, 128), "direct_signed": (2, 128, 256)}


def row_called(layout, isa):
    return Row("conv2d", layout, isa, frozenset(), f"bf_conv2d_{layout}__{isa}", "c")


def one_pixel(depth, levels, weight, *, num_out=17):
    """A 1 x 1 convolution of ``depth`` channels with equal weights; (step, arena_bytes)."""
    places = Places()
    x, out = places.buffer((1, 1, depth), "u8"), places.buffer((1, 1, num_out), "i32")
    codes = np.full((num_out, 1, 1, depth), weight, np.int8)
    step = ConvStep("conv", x, out, Grid(0, levels - 1), codes, Grid(-128, 127),
                    np.arange(num_out), (1, 1), (0, 0, 0, 0), 1, ToAccumulators())  # fmt: skip
    return step, places.arena_bytes


@pytest.mark.parametrize("isa", ["neon", "neondot"])
def test_plain_signed_rows_take_indices_up_to_127(isa):
    row = row_called("direct", isa)
    assert LAYOUTS["direct"].fits(one_pixel(4, 128, 127)[0], row)
    assert not LAYOUTS["direct"].fits(one_pixel(4, 129, 1)[0], row)
    assert LAYOUTS["direct_signed"].fits(one_pixel(4, 256, -128)[0], row)
    assert not LAYOUTS["direct"].fits_every_step(row)
    assert LAYOUTS["direct_signed"].fits_every_step(row)


@pytest.mark.parametrize(("levels", "weight", "quads"), [
    (4, 1, 42), (4, -3, 14), (16, 1, 8), (8, 7, 2), (256, 1, 0), (2, -128, 0), (256, 0, 127),
])  # fmt: skip
def test_byte_sums_hold_so_many_products(levels, weight, quads):
    step, _ = one_pixel(4, levels, weight)
    assert byte_quads(step) == quads
    assert quads * (levels - 1) * abs(weight) <= 127
    fits = LAYOUTS["direct_bytes"].fits(step, row_called("direct_bytes", "neon"))
    assert fits == (quads >= MIN_QUADS)


@pytest.mark.parametrize(("weight", "quads"), [(-128, 1), (127, 2), (-1, 255), (0, 255)])
def test_sums_of_offset_products_fit_16_bits(weight, quads):
    step, _ = one_pixel(4, 256, weight)
    assert signed_quads(step, row_called("direct_signed", "neon")) == quads
    assert len(conv_segments(step, signed_quads(step, row_called("direct_signed", "neondot")))) == 1


@replayed
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("layout", "isa"), [
    ("direct_bytes", "neon"), ("direct", "neon"), ("direct_signed", "neon"),
    ("direct", "neondot"), ("direct_signed", "neondot"),
])  # fmt: skip
def test_sums_at_their_flushes_do_not_overflow(layout, isa, sign):
    row = next(row for row in replay().table.rows if (row.layout, row.isa) == (layout, isa))
    for levels in LEVELS[layout]:
        for weight in (1, 3, 7, 127, 128):
            step, _ = one_pixel(4, levels, max(-128, min(127, sign * weight)))
            if not LAYOUTS[layout].fits(step, row):
                continue
            limits = [s.num_quads for s in LAYOUTS[layout].pack(step, row).segments]
            limit = {"direct_bytes": byte_quads(step)}.get(layout, signed_quads(step, row))
            for quads in {1, 3, 4, 5, *limits, min(limit, 400), min(limit, 400) + 1}:
                runs_exactly(one_pixel(4 * quads - 1, levels, step.weight.flat[0]), row)


def runs_exactly(made, row):
    """The row on the greatest and on random indices."""
    step, arena_bytes = made
    program = compile_c([step], input=step.x, arena_bytes=arena_bytes, force=row.symbol)
    assert program.rows == (row,)
    arena, rng = aligned_arena(program.arena_bytes), np.random.default_rng(step.weight.size)
    for indices in (step.x_grid.levels - 1, rng.integers(0, step.x_grid.levels, step.x.shape)):
        view(arena, step.x)[:] = indices
        want = expected_output(step, arena)
        program.run_step(0, arena)
        assert (view(arena, step.out) == want).all(), (row.symbol, step.x, step.weight.flat[0])


@replayed
def test_a_cpu_without_dot_products_takes_the_rows_without_them():
    name, *rest = replay_command()
    library = read_table([name, "-cpu", "cortex-a72", *rest])
    assert library.features == {"asimd"}
    assert {row.isa for row in allowed_rows(library, None)} == {"neon", "scalar"}
    assert "asimddp" in replay().table.features


@replayed
def test_what_has_a_vector_row_takes_it_first():
    first = {(row.op, row.layout): row.isa for row in reversed(replay().table.rows)}
    assert first["conv2d", "direct"] == "neondot"
    assert first["conv2d", "depthwise"] == "neon"
    assert {first[op, "dense"] for op in ("thresholds", "rescale", "add")} == {"neon"}
