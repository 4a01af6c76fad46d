"""Binding of steps to C rows: choice, refusals, batches, threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bitfold.errors import InputError, UsageError
from bitfold.ir import Grid
from bitfold.kernels import c_library
from bitfold.kernels.c_backend import c_rows, compile_c
from bitfold.kernels.c_library import LIBRARY_VARIABLE, find_library
from bitfold.kernels.features import host_features, parse_cpu_info
from bitfold.kernels.lines import LONG_BITS, SHORT_BITS, fit_line
from bitfold.kernels.steps import ConvStep, DequantizeStep, ToAccumulators
from tests.property.step_reference import Places, aligned_arena, expected_output, view

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]


@pytest.fixture
def small_network():
    """Pixels (5, 4, 3) → convolution → three float32 results; (steps, input, arena_bytes)."""
    rng, places = np.random.default_rng(3), Places()
    image, acc = places.buffer((5, 4, 3), "u8"), places.buffer((1, 1, 3), "i32")
    weight = rng.integers(-127, 128, (3, 5, 4, 3)).astype(np.int8)
    conv = ConvStep("conv", image, acc, Grid.pixels(120), weight, Grid.narrow(8),
                    np.arange(3), (1, 1), (0, 0, 0, 0), 1, ToAccumulators())  # fmt: skip
    result = places.buffer((3,), "f32")
    scale = np.array([0.5, 0.25, 3.0], np.float32)
    flat = type(acc)(acc.offset, (3,), "i32")
    return (conv, DequantizeStep("out", flat, result, scale)), image, places.arena_bytes


def compiled(network, force=None):
    steps, image, arena_bytes = network
    return compile_c(steps, input=image, arena_bytes=arena_bytes, force=force)


def expected_logits(network, images):
    steps, image, arena_bytes = network
    results = []
    for pixels in images:
        arena = aligned_arena(arena_bytes)
        view(arena, image)[:] = pixels
        for step in steps:
            view(arena, step.out)[:] = expected_output(step, arena)
        results.append(view(arena, steps[-1].out).copy())
    return np.array(results)


def run(program, images):
    logits = np.zeros((len(images), 3), np.float32)
    program.run(images, logits, aligned_arena(program.arena_bytes))
    return logits


@pytest.fixture
def images():
    return np.random.default_rng(4).integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)


def test_a_batch_is_run_image_by_image(small_network, images):
    assert (run(compiled(small_network), images) == expected_logits(small_network, images)).all()


def test_a_program_runs_in_several_threads_at_once(small_network, images):
    program, want = compiled(small_network), expected_logits(small_network, images)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(program, images), range(32)))
    assert all((result == want).all() for result in results)


def test_rows_whose_products_would_saturate_are_passed_over(small_network):
    if "avx2" not in host_features():
        pytest.skip("this CPU has no AVX2")
    assert compiled(small_network, "avx2").rows[0].layout not in {"direct", "packed"}
    forced = compiled(small_network, "bf_conv2d_direct__avx2")
    assert forced.rows[0].symbol != "bf_conv2d_direct__avx2"


def test_a_forced_isa_leaves_lesser_ones_to_the_steps_without_it(small_network):
    assert {row.isa for row in compiled(small_network, "scalar").rows} == {"scalar"}
    if "avx2" in host_features():
        assert [row.isa for row in compiled(small_network, "avx2").rows] == ["avx2", "scalar"]


def test_a_layout_can_be_forced_with_its_isa(small_network):
    rows = compiled(small_network, "bitserial:scalar").rows
    assert rows[0].symbol == "bf_conv2d_bitserial__scalar"


def test_an_unknown_kernel_is_refused_with_the_known_ones(small_network):
    with pytest.raises(UsageError, match=r"no kernel is called 'sse9'\nChoose one of .*scalar"):
        compiled(small_network, "sse9")


def test_arrays_of_the_wrong_size_are_refused(small_network, images):
    program = compiled(small_network)
    arena = aligned_arena(program.arena_bytes)
    with pytest.raises(UsageError, match="do not fit"):
        program.run(images, np.zeros((3, 3), np.float32), arena)
    with pytest.raises(UsageError, match="do not fit"):
        program.run(images.astype(np.int32), np.zeros((4, 3), np.float32), arena)
    with pytest.raises(UsageError, match="an arena of"):
        program.run(images, np.zeros((4, 3), np.float32), arena[:-64])
    with pytest.raises(UsageError, match="past one"):
        program.run_step(0, aligned_arena(program.arena_bytes + 64)[1:])
    with pytest.raises(UsageError, match="no step 2"):
        program.run_step(2, arena)


def test_a_library_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv(LIBRARY_VARIABLE, "/nowhere/libbitfold_kernels.so")
    with pytest.raises(InputError, match="no kernel library at /nowhere"):
        find_library()


def test_a_library_of_another_header_is_refused(monkeypatch, tmp_path):
    header = tmp_path / "bitfold_kernels.h"
    header.write_bytes(c_library._HEADER.read_bytes() + b"/* edited */\n")
    monkeypatch.setattr(c_library, "_HEADER", header)
    with pytest.raises(
        InputError, match=r"(?s)built from another header: .*Build the library again"
    ):
        c_library.load_library.__wrapped__(find_library())


def test_a_library_that_cannot_say_its_header_is_refused(monkeypatch):
    class Old:
        """What cffi makes of a library without the function."""

        def bf_abi(self):
            raise AttributeError("function 'bf_abi' not found")

        def bf_step_bytes(self):
            return 0

    with pytest.raises(InputError, match="is an older one"):
        c_library._check_abi(
            c_library.load_library(find_library()).ffi, Old(), "00", Path("lib.so")
        )


def test_cpu_flags_are_named_as_in_the_table():
    text = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni avx512_vpopcntdq\n"
    assert parse_cpu_info(text) == {"fpu", "avx2", "avx512vnni", "avx512vpopcntdq"}
    assert parse_cpu_info("nothing here") == frozenset()


def counted(table, acc):
    return (table[:, None] <= acc).sum(0)


def on_line(line, acc):
    clamped = np.clip(acc, line.low, line.high)
    return (clamped * line.slope + line.intercept) >> line.shift


@pytest.mark.parametrize("sum_bits", [SHORT_BITS, LONG_BITS])
@pytest.mark.parametrize("levels", [2, 4, 16, 256])
@pytest.mark.parametrize("gain", [(1, 7), (13, 50), (9, 10), (1, 1)])
def test_a_line_equals_its_table_over_the_whole_range(sum_bits, levels, gain):
    up, down = gain
    lo, hi = -700, 900
    acc = np.arange(lo, hi + 1)
    # Thresholds of floor(acc · up / down), clamped to the range as saturated ones are.
    table = np.clip(-((-np.arange(1, levels) * down) // up) - levels // 3, lo, hi + 1)
    line = fit_line(table, lo=lo, hi=hi, sum_bits=sum_bits)
    assert line is not None
    assert (on_line(line, acc) == counted(table, acc)).all()
    assert (on_line(line.negated(), -acc) == counted(table, acc)).all()


def test_a_bent_table_has_no_line():
    table = np.array([0, 1, 2, 3, 500, 1000])
    assert fit_line(table, lo=-2000, hi=2000, sum_bits=LONG_BITS) is None


@pytest.mark.parametrize("value", [-700, 0, 901])
def test_a_constant_channel_has_a_line(value):
    table = np.full(15, value)
    line = fit_line(table, lo=-700, hi=900, sum_bits=SHORT_BITS)
    assert line is not None
    acc = np.arange(-700, 901)
    assert (on_line(line, acc) == counted(table, acc)).all()
