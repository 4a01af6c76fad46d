import logging

import numpy as np
import pytest

from bitfold.errors import UsageError
from bitfold.kernels import (
    Remembered,
    explain_choice,
    host_features,
    kernel_rows,
    registry,
    remembered,
)
from bitfold.kernels.numba_backend import NUMBA_ROWS, prefers_bitserial
from bitfold.kernels.registry import choose_backend, compile_program, forced_kernel
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import AddStep, Buffer

BUFFERS = [Buffer(128 * i, (4,), "i32") for i in range(3)]
ADD = AddStep("sum", *BUFFERS)
PLAIN = Row("add", "dense", "scalar", frozenset(), "bf_add_dense__scalar", "c")
EXOTIC = Row("add", "dense", "avx9", frozenset({"avx9"}), "bf_add_dense__avx9", "c")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(registry.FORCE_VARIABLE, raising=False)
    monkeypatch.delenv("BITFOLD_TUNE", raising=False)
    registry._warn_once.cache_clear()


@pytest.fixture
def without_c(monkeypatch):
    monkeypatch.setattr(registry, "_c_rows", lambda: ((), "no library"))


@pytest.fixture
def with_rows(monkeypatch):
    monkeypatch.setattr(registry, "_c_rows", lambda: ((EXOTIC, PLAIN), ""))
    monkeypatch.setattr(registry, "host_features", lambda: frozenset({"sse"}))


def test_rows_are_c_first_then_numba():
    backends = [row.backend for row in kernel_rows()]
    assert backends == sorted(backends)
    assert kernel_rows()[-len(NUMBA_ROWS) :] == NUMBA_ROWS


def test_symbols_are_unique():
    symbols = [row.symbol for row in kernel_rows()]
    assert len(set(symbols)) == len(symbols)


def test_features_are_names():
    assert all(isinstance(name, str) for name in host_features())


def test_numba_answers_without_c_and_says_so_once(without_c, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_backend("auto", force=None) == "numba"
        assert choose_backend("auto", force=None) == "numba"
    assert [r.getMessage() for r in caplog.records] == [
        "no C kernels (no library): the numba kernels answer, which are slower"
    ]


def test_asking_for_numba_warns_of_nothing(without_c, caplog):
    assert choose_backend("numba", force=None) == "numba"
    assert not caplog.records


def test_asking_for_c_without_c_is_an_error(without_c):
    with pytest.raises(UsageError, match="no C kernel answers: no library"):
        choose_backend("c", force=None)


def test_c_is_chosen_where_the_host_covers_a_row(with_rows):
    assert choose_backend("auto", force=None) == "c"
    assert choose_backend("auto", force="scalar") == "c"
    assert choose_backend("auto", force="numba") == "numba"


def test_forcing_a_row_past_this_cpu_is_an_error(with_rows):
    with pytest.raises(UsageError, match="avx9 needs avx9"):
        choose_backend("auto", force="avx9")


def test_forcing_a_c_row_on_numba_is_an_error(with_rows):
    with pytest.raises(UsageError, match="the numba backend has no kernel scalar"):
        choose_backend("numba", force="scalar")


def test_unknown_names_are_refused_with_the_known_ones(without_c, monkeypatch):
    with pytest.raises(UsageError, match="no kernel is called 'mmx'") as caught:
        forced_kernel("mmx")
    assert "bitserial, dense, depthwise, direct, numba" in caught.value.todo
    monkeypatch.setenv(registry.FORCE_VARIABLE, "mmx")
    with pytest.raises(UsageError) as caught:
        forced_kernel()
    assert caught.value.where == registry.FORCE_VARIABLE
    with pytest.raises(UsageError, match="no backend is called 'gpu'"):
        choose_backend("gpu", force=None)


def test_the_environment_forces_a_backend_and_the_argument_wins(monkeypatch):
    monkeypatch.setenv(registry.FORCE_VARIABLE, "numba")
    program = compile_program([ADD], input=BUFFERS[0], arena_bytes=512)
    assert program.rows[0].backend == "numba"
    assert forced_kernel("direct") == "direct"


def test_explanations_cover_every_row(with_rows):
    choices = explain_choice()
    assert [c.row for c in choices] == [EXOTIC, PLAIN, *NUMBA_ROWS]
    assert [c.chosen for c in choices] == [False, True] + [False] * len(NUMBA_ROWS)
    assert choices[0].reason == "this CPU has no avx9"
    assert choices[1].reason == "first row whose needs this CPU covers"
    assert choices[2].reason == "the c backend answers"


@pytest.fixture
def with_convolutions(monkeypatch):
    names = ("direct:avx2", "direct_wide:avx2", "bitserial:avx2", "bitserial:scalar")
    parts = [name.split(":") for name in names]
    rows = tuple(Row("conv2d", a, b, frozenset(), f"{a}:{b}", "c") for a, b in parts)
    monkeypatch.setattr(registry, "_c_rows", lambda: (rows, ""))


def test_a_row_that_fits_every_step_shadows_those_behind_it(with_convolutions):
    choices = explain_choice(tune="off")[:4]
    assert [c.reason for c in choices] == [
        "where it fits",
        "first row whose needs this CPU covers",
        "direct_wide:avx2 comes first",
        "direct_wide:avx2 comes first",
    ]
    assert [c.chosen for c in choices] == [True, True, False, False]


def test_timed_rows_are_all_that_may_be_the_fastest(with_convolutions):
    choices = explain_choice(tune="auto")[:4]
    timed = "where it fits and is the fastest: timed layer by layer"
    assert [c.reason for c in choices] == [timed] * 3 + ["only where no vector row fits"]
    assert [c.chosen for c in choices] == [True, True, True, False]


def test_a_forced_layout_rules_the_others_out(with_convolutions):
    choices = explain_choice(force="bitserial")[:4]
    assert [c.reason for c in choices] == [
        "bitserial is forced",
        "bitserial is forced",
        "first row whose needs this CPU covers",
        "bitserial:avx2 comes first",
    ]


def test_the_word_for_tuning_comes_from_the_argument_then_the_environment(monkeypatch):
    monkeypatch.setenv("BITFOLD_TUNE", "cached")
    assert remembered().mode == "cached"
    assert remembered(tune="off").mode == "off"
    monkeypatch.setenv("BITFOLD_TUNE", "always")
    with pytest.raises(UsageError, match="no way of tuning is called 'always'") as caught:
        remembered()
    assert caught.value.where == "BITFOLD_TUNE"
    assert "auto, cached, off" in caught.value.todo


def test_nothing_is_remembered_without_c(without_c):
    assert remembered(tune="auto") == Remembered("auto", None, 0)


def test_explanations_name_what_is_forced(without_c):
    reasons = {c.row.symbol: c.reason for c in explain_choice(force="direct")}
    assert reasons["numba.conv_bitserial"] == "direct is forced"
    assert reasons["numba.conv_direct"] == "chosen for every width: direct is forced"
    assert reasons["numba.add_integers"] == "first row whose needs this CPU covers"


def test_explanations_say_where_numba_switches_rows(without_c):
    reasons = {c.row.symbol: c.reason for c in explain_choice()}
    assert reasons["numba.conv_bitserial"] == "chosen up to 4 plane pairs"
    assert reasons["numba.conv_direct"] == "chosen above 4 plane pairs"


def test_bitserial_is_preferred_up_to_four_plane_pairs():
    assert prefers_bitserial(x_bits=2, weight_bits=2)
    assert not prefers_bitserial(x_bits=4, weight_bits=2)


def test_a_program_of_one_step_adds():
    program = compile_program([ADD], input=BUFFERS[0], arena_bytes=512, backend="numba")
    arena = np.zeros(512, np.uint8)
    a, b, out = (arena[128 * i : 128 * i + 16].view(np.int32) for i in range(3))
    a[:], b[:] = [1, -2, 3, 2**30], [10, 20, -30, 5]
    program.run_step(0, arena)
    assert out.tolist() == [11, 18, -27, 2**30 + 5]
