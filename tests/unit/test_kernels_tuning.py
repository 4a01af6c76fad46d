"""Timed choice of rows: trials, what is remembered, and what a cache file may not do."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bitfold.errors import UsageError
from bitfold.ir import Grid
from bitfold.kernels.c_backend import c_rows, compile_c, open_library
from bitfold.kernels.c_steps import pack_step, row_fits
from bitfold.kernels.features import cpu_model, host_features, parse_cpu_model
from bitfold.kernels.packed_step import constant_bytes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep, ToAccumulators, ToIndices, ToWide
from bitfold.kernels.tuning import tune_mode
from bitfold.kernels.tuning.cache import MAX_BYTES, Memory, cache_folder
from bitfold.kernels.tuning.chooser import AS_QUICK, memory_of
from bitfold.kernels.tuning.contenders import contenders, layer_key
from bitfold.kernels.tuning.trial import MOST_ROUNDS, time_runs
from tests.property.step_reference import Places, aligned_arena, expected_output, view

needs_c = pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built")
IDENTITY = {"cpu": "a CPU", "library": "00", "bitfold": "0"}
TIMES = {"bf_a": 1000, "bf_b": 2000}
HOST_ROWS = [row for row in c_rows() if row.runs_on(host_features())]


def row(layout, isa="avx2"):
    return Row("conv2d", layout, isa, frozenset(), f"bf_conv2d_{layout}__{isa}", "c")


def conv_step(epilogue=None, *, x_grid=None, weight_grid=None, seed=1, size=8):
    places, x_grid = Places(), x_grid or Grid.unsigned(2)
    weight_grid = weight_grid or Grid.narrow(2)
    codes = np.arange(weight_grid.lo, weight_grid.hi + 1, weight_grid.step)
    weight = np.random.default_rng(seed).choice(codes, (8, 3, 3, 16)).astype(np.int8)
    weight.flat[:2] = codes[0], codes[-1]
    x = places.buffer((size, size, 16), "u8")
    out = places.buffer((size, size, 8), "i32")
    return ConvStep(
        "conv", x, out, x_grid, weight, weight_grid, np.zeros(8, np.int64), (1, 1), (1, 1, 1, 1), 1,
        epilogue or ToAccumulators(),
    ), places  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFOLD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("BITFOLD_TUNE", raising=False)
    return tmp_path / "cache"


def compiled(step, places, *, tune="auto", force=None):
    return compile_c((step,), input=step.x, arena_bytes=places.arena_bytes, force=force, tune=tune)


# contenders


def test_of_a_layout_the_first_row_is_tried_and_no_scalar_row_beside_vectors():
    step, _ = conv_step()
    rows = (row("direct", "avx512vnni"), row("packed"), row("direct"), row("direct", "scalar"))
    assert contenders(step, rows) == rows[:2]
    assert contenders(step, (row("direct", "scalar"),)) == (row("direct", "scalar"),)
    scalars = (row("direct", "scalar"), row("packed", "scalar"))
    assert contenders(step, scalars) == scalars


def test_popcounts_of_many_planes_are_tried_only_where_nothing_else_fits():
    wide, _ = conv_step(x_grid=Grid.unsigned(8), weight_grid=Grid.narrow(8))
    assert contenders(wide, (row("bitserial"), row("direct"))) == (row("direct"),)
    assert contenders(wide, (row("bitserial"),)) == (row("bitserial"),)
    narrow, _ = conv_step()
    assert len(contenders(narrow, (row("bitserial"), row("direct")))) == 2


def test_layers_are_alike_whatever_their_weights_but_not_their_extent():
    same, other = conv_step(seed=1)[0], conv_step(seed=2)[0]
    assert layer_key(same) == layer_key(other)
    other.weight[...] = 0
    assert layer_key(same) != layer_key(other)


def test_layers_differ_by_shape_grid_and_epilogue():
    ones = np.ones(8, np.int64)
    epilogues = (
        ToAccumulators(),
        ToIndices(np.zeros((8, 3), np.int32), np.ones(8, np.int32)),
        ToIndices(np.zeros((8, 15), np.int32), np.ones(8, np.int32)),
        ToWide(ones, ones, 3),
        ToWide(ones, ones, 3, negative_multiplier=ones * 0),
        ToWide(ones, ones, 3, negative_multiplier=ones),
        ToWide(ones, ones, 3, add=conv_step()[0].out),
    )
    keys = {layer_key(conv_step(epilogue)[0]) for epilogue in epilogues}
    keys |= {layer_key(conv_step(size=9)[0]), layer_key(conv_step(x_grid=Grid.unsigned(3))[0])}
    assert len(keys) == len(epilogues) + 2


# trials


class Clock:
    """Advances by the cost of what runs."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def run(self, costs, log=None, name=""):
        costs = iter(costs)

        def go():
            self.now += next(costs)
            if log is not None:
                log.append(name)

        return go


def test_a_trial_takes_turns_and_keeps_the_least_time_after_a_warm_up():
    clock, log = Clock(), []
    runs = {
        "a": clock.run([500, 900, 800, *[850] * MOST_ROUNDS], log, "a"),
        "b": clock.run([1000, 600, 700, *[650] * MOST_ROUNDS], log, "b"),
    }
    times = time_runs(runs, prepare=lambda: None, clock=clock)
    assert times == {"a": 800, "b": 600}
    assert log == ["a", "b"] * (MOST_ROUNDS + 1)


def test_the_hopeless_run_once_and_long_trials_end_early():
    clock, log = Clock(), []
    long = 10**8
    runs = {
        "quick": clock.run([long] * 9, log, "quick"),
        "slow": clock.run([9 * long] * 9, log, "slow"),
    }
    times = time_runs(runs, prepare=lambda: None, clock=clock)
    assert times == {"quick": long, "slow": 9 * long}
    assert log == ["quick", "slow", "quick", "quick", "quick"]


def test_times_are_positive_on_a_coarse_clock():
    assert time_runs({"a": lambda: None}, prepare=lambda: None, clock=lambda: 7) == {"a": 1}


# where times are kept


def test_the_folder_is_the_named_one_else_the_user_s(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("BITFOLD_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() is None
    monkeypatch.setenv("HOME", "/there")
    assert cache_folder() == Path("/there/.cache/bitfold")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/there/.cache/bitfold")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/bitfold")
    monkeypatch.setenv("BITFOLD_CACHE_DIR", "/named")
    assert cache_folder() == Path("/named")


def test_other_systems_have_folders_of_their_own(monkeypatch):
    monkeypatch.delenv("BITFOLD_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/there")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path("/there/Library/Caches/bitfold")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache_folder() is None


def test_what_is_learned_is_known_to_the_next_process(tmp_path):
    first = Memory(tmp_path / "new" / "folder", IDENTITY)
    assert first.recall("layer") is None
    first.learn("layer", TIMES)
    first.save()
    again = Memory(tmp_path / "new" / "folder", IDENTITY)
    assert again.recall("layer") == TIMES
    assert len(again) == 1
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [again.path.name]


def test_two_processes_keep_each_other_s_layers(tmp_path):
    one, two = Memory(tmp_path, IDENTITY), Memory(tmp_path, IDENTITY)
    one.learn("first", TIMES)
    two.learn("second", TIMES)
    one.save()
    two.save()
    assert len(Memory(tmp_path, IDENTITY)) == 2


def test_another_cpu_library_or_version_has_a_file_of_its_own(tmp_path):
    memory = Memory(tmp_path, IDENTITY)
    memory.learn("layer", TIMES)
    memory.save()
    for key in IDENTITY:
        other = Memory(tmp_path, IDENTITY | {key: "another"})
        assert other.recall("layer") is None
        os.replace(memory.path, other.path)  # noqa: PTH105  # even under its name
        assert Memory(tmp_path, IDENTITY | {key: "another"}).recall("layer") is None
        os.replace(other.path, memory.path)  # noqa: PTH105


def written(layers, **changes):
    return json.dumps({"schema": "bitfold/tuning/1", **IDENTITY, "layers": layers, **changes})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"text"',
        "\x00\x01",
        b"\xff\xfe\x00",
        "[" * 100_000,
        '{"layers": {"layer": {"bf_a": ' + "9" * 5000 + "}}}",
        written({"layer": TIMES})[:-3],
        written({"layer": TIMES}, schema="bitfold/tuning/2"),
        written({"layer": TIMES}, cpu="another CPU"),
        written([TIMES]),
        written(None),
        written({"layer": []}),
        written({"layer": {}}),
        written({"layer": {"bf_a": -1}}),
        written({"layer": {"bf_a": 0}}),
        written({"layer": {"bf_a": True}}),
        written({"layer": {"bf_a": 1.5}}),
        written({"layer": {"bf_a": "fast"}}),
        written({"layer": {"bf_a": 10**30}}),
        written({"layer": {"bf_a": float("nan")}}),
        written({"layer": {f"bf_{i}": 5 for i in range(1000)}}),
        written({f"layer {i}": TIMES for i in range(10_000)} | {"layer": TIMES}),
        written({"layer": TIMES}) + " " * MAX_BYTES,
    ],
    ids=range(27),
)
def test_a_file_that_cannot_be_believed_is_passed_over_and_replaced(tmp_path, content):
    path = Memory(tmp_path, IDENTITY).path
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    memory = Memory(tmp_path, IDENTITY)
    assert memory.recall("layer") is None
    memory.learn("layer", TIMES)
    memory.save()
    assert Memory(tmp_path, IDENTITY).recall("layer") == TIMES


def test_one_bad_layer_does_not_spoil_the_others(tmp_path):
    path = Memory(tmp_path, IDENTITY).path
    path.write_text(written({"bad": {"bf_a": 0}, "good": TIMES}))
    memory = Memory(tmp_path, IDENTITY)
    assert (memory.recall("bad"), memory.recall("good")) == (None, TIMES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_folder_in_the_place_of_the_file_stops_nothing(tmp_path):
    path = Memory(tmp_path, IDENTITY).path
    for make, unmake in ((os.mkfifo, Path.unlink), (os.mkdir, Path.rmdir)):
        make(path)
        memory = Memory(tmp_path, IDENTITY)
        memory.learn("layer", TIMES)
        memory.save()
        assert memory.recall("layer") == TIMES
        unmake(path)


def test_without_a_place_to_write_times_live_in_the_process(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    for place in (None, blocked / "below"):
        memory = Memory(place, IDENTITY)
        memory.learn("layer", TIMES)
        memory.save()
        assert memory.recall("layer") == TIMES
    assert blocked.read_text() == "no folder"


def test_many_threads_learn_and_save_at_once(tmp_path):
    memory = Memory(tmp_path, IDENTITY)

    def work(i):
        memory.learn(f"layer {i}", TIMES)
        memory.save()
        return Memory(tmp_path, IDENTITY).path.exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert len(memory) == 64
    assert [path.name for path in tmp_path.iterdir()] == [memory.path.name]


# the choice


def test_the_words_for_tuning_are_three(monkeypatch):
    monkeypatch.delenv("BITFOLD_TUNE", raising=False)
    assert [tune_mode(word) for word in (None, "auto", "cached", "off")] == [
        "auto", "auto", "cached", "off",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no way of tuning is called 'fast'"):
        tune_mode("fast")


@needs_c
@pytest.mark.cc
def test_a_layer_is_timed_once_then_remembered(folder):
    step, places = conv_step()
    first, second = compiled(step, places), compiled(conv_step(seed=2)[0], places)
    if first.reasons[0] in ("the best row that fits", "the only row that fits"):
        pytest.skip("one row answers on this machine")
    assert first.reasons[0].startswith("timed: ")
    assert second.reasons[0].startswith("remembered: ")
    assert first.rows == second.rows
    [path] = folder.iterdir()
    [times] = json.loads(path.read_text())["layers"].values()
    assert 100 * times[first.rows[0].symbol] <= AS_QUICK * min(times.values())


@needs_c
@pytest.mark.cc
@pytest.mark.parametrize(("least", "most", "wins"), [(1000, 1100, True), (1000, 1101, False)])
def test_of_rows_that_take_equally_long_the_one_with_the_smallest_weights_runs(
    folder, least, most, wins
):
    step, places = conv_step()
    rivals = contenders(step, [row for row in HOST_ROWS if row_fits(row, step)])
    small = min(rivals, key=lambda row: constant_bytes(pack_step(step, row)))
    large = max(rivals, key=lambda row: constant_bytes(pack_step(step, row)))
    if len(rivals) < 3:
        pytest.skip("fewer than three rows answer on this machine")
    times = {row.symbol: 5000 for row in rivals} | {large.symbol: least, small.symbol: most}
    memory_of(open_library()).learn(layer_key(step), times)
    program = compiled(step, places)
    assert program.rows[0] == (small if wins else large)
    assert program.reasons[0].endswith(", in less memory") == wins


@needs_c
@pytest.mark.cc
def test_nothing_is_timed_where_tuning_is_off_or_a_row_is_forced(folder):
    step, places = conv_step()
    off, cached = compiled(step, places, tune="off"), compiled(step, places, tune="cached")
    forced = compiled(step, places, force="direct:scalar")
    assert off.rows == cached.rows
    assert off.reasons[0] in ("the first row that fits", "the only row that fits")
    assert forced.reasons == ("direct:scalar is forced",)
    assert not folder.exists()


@needs_c
@pytest.mark.cc
@pytest.mark.parametrize("change", [{"bf_unknown": 1}, {"bf_add_dense__scalar": 1}, None])
def test_a_remembered_row_that_does_not_fit_is_never_run(folder, monkeypatch, change):
    step, places = conv_step()
    rows = compiled(step, places).rows
    memory = memory_of(open_library())
    if not len(memory):
        pytest.skip("one row answers on this machine")
    document = json.loads(memory.path.read_text())
    [layer] = document["layers"]
    times = {"bf_unknown": 1} if change is None else document["layers"][layer] | change
    document["layers"][layer] = times
    other = folder.parent / "hostile"
    other.mkdir()
    (other / memory.path.name).write_text(json.dumps(document))
    monkeypatch.setenv("BITFOLD_CACHE_DIR", str(other))
    again = compiled(step, places, tune="cached")
    assert again.reasons == ("the first row that fits; not timed",)
    assert again.rows[0].op == rows[0].op == "conv2d"


@needs_c
@pytest.mark.cc
@pytest.mark.parametrize("tune", ["auto", "cached", "off"])
def test_the_result_is_the_same_however_a_row_is_chosen(folder, tune):
    ones = np.ones(8, np.int64)
    step, places = conv_step()
    add = places.buffer(step.out.shape, "i32")
    step, _ = conv_step(ToWide(ones * 3, ones, 1, add=add))
    program = compiled(step, places, tune=tune)
    arena = aligned_arena(program.arena_bytes)
    view(arena, step.x)[:] = np.random.default_rng(0).integers(0, 4, step.x.shape)
    view(arena, add)[:] = 5
    want = expected_output(step, arena)
    program.run_step(0, arena)
    assert (view(arena, step.out) == want).all()


@needs_c
@pytest.mark.cc
def test_tuning_needs_neither_a_home_nor_a_folder():
    program = "from tests.unit.test_kernels_tuning import *; print(*compiled(*conv_step()).reasons)"
    environment = {k: v for k, v in os.environ.items() if "CACHE" not in k and k != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"BITFOLD_TUNE": "auto"},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("timed: ", "the "))


def test_a_cpu_has_a_name():
    assert cpu_model()
    x86 = ["processor : 0", "model name : Fast 9000", "processor : 1", "model name : Fast 9000"]
    assert parse_cpu_model(x86) == "Fast 9000"
    arm = ["CPU implementer : 0x41", "CPU part : 0xd0c", "CPU implementer : 0x41"]
    assert parse_cpu_model(arm) == "0x41, 0xd0c"
    assert parse_cpu_model([]) == ""
