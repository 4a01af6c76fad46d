"""Sweeps: grids, the front, and results that survive what a kill leaves behind."""

import copy
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.errors import BitfoldError, InputError, UsageError
from bitfold.export import read_onnx, to_onnx
from bitfold.fpga_sim import map_graph, simulate, tiling_search
from bitfold.fpga_sim.explore import (
    ExploreRequest,
    Sweep,
    Variant,
    explore,
    open_results,
    pareto_front,
    read_sweep,
)
from bitfold.fpga_sim.explore.run import COUNTED
from bitfold.fpga_sim.explore.sweep import changes_of
from bitfold.fpga_sim.report import configure
from bitfold.fpga_sim.resources import estimate
from tests.unit.test_fpga_report import small_graph

AXES = {"array": ("4x4", "8x2"), "lanes": (1, 3, 5), "pe": ("auto", "dsp")}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    to_onnx(small_graph(), path)
    return path


def request_of(model, folder, **changes):
    fields = {"variants": (Variant(model),), "device": "zu3eg", "load": read_onnx,
              "results": folder / "results", "sweep": Sweep(AXES), "jobs": 1}  # fmt: skip
    return ExploreRequest(**(fields | changes))


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=40))
def test_the_front_is_what_no_other_point_beats(costs):
    def beaten(row):
        return any(all(x <= y for x, y in zip(other, row, strict=True)) and other != row
                   for other in costs)  # fmt: skip

    assert pareto_front(costs).tolist() == [not beaten(row) for row in costs]


def test_every_point_of_a_grid_has_its_own_settings():
    sweep = Sweep(AXES)
    assert sweep.size == 12
    found = [sweep.settings(n) for n in sweep.numbers()]
    assert found[0] == {"array": "4x4", "lanes": 1, "pe": "auto"}
    assert found[1] == {"array": "4x4", "lanes": 1, "pe": "dsp"}
    assert len({tuple(point.values()) for point in found}) == 12


def test_a_sample_is_drawn_by_its_seed_without_repetition():
    samples = [Sweep(AXES, points=5, seed=seed).numbers() for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert all(len(set(sample)) == 5 for sample in samples)
    assert list(Sweep(AXES, points=99).numbers()) == list(range(12))


@pytest.mark.parametrize(
    ("axes", "what"),
    [({"lane": (1,)}, "'lane' is no setting"), ({"lanes": ()}, r"lanes is \[\]"),
     ({"lanes": (1, 1)}, "lanes is"), ({"array": ("4",)}, "array '4' is no size"),
     ({"mode": ("finn",)}, "'mode' is no setting")],
)  # fmt: skip
def test_a_wrong_axis_is_a_usage_error(axes, what):
    with pytest.raises(UsageError, match=what):
        Sweep(axes)


def test_a_sweep_is_read_from_toml(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('[sweep]\narray = ["4x4"]\nlanes = [1, 2]\ndrain = "shadow"\n', "utf-8")
    assert read_sweep(path) == {"array": ("4x4",), "lanes": (1, 2), "drain": ("shadow",)}
    path.write_text("lanes = [1]\n", "utf-8")
    with pytest.raises(InputError, match="one table"):
        read_sweep(path)


def test_points_are_what_simulate_says_and_refused_ones_say_why(model, tmp_path):
    found = explore(request_of(model, tmp_path))
    assert (len(found.points), len(found.refused), found.resumed) == (6, 6, 0)
    assert "do not divide into DSP blocks" in found.refused[0]["refused"]
    graph = small_graph()
    for point in found.points:
        rows, cols = map(int, point["array"].split("x"))
        report = simulate(graph, array=(rows, cols), lanes=point["lanes"])
        assert (point["cycles"], point["latency_ms"]) == (report.cycles, report.latency_ms)
        assert {k: point[k] for k in ("lut", "ff", "dsp", "bram36")} == {
            k: v for k, v in report.resources.counts().items() if k != "uram"
        }
        assert point["fits"] == report.fits
        errors = report.resources.errors()
        assert {k: point[f"{k}_error"] for k in COUNTED} == {k: errors[k] for k in COUNTED}
        assert point["cycles_error"] == report.model_error.cycles > 0
        assert point["lut_error"] > 0
    costs = [(p["latency_ms"], p["lut"], p["bram36"]) for p in found.points]
    assert [p["pareto"] for p in found.points] == pareto_front(costs).tolist()


def test_what_is_kept_between_points_changes_no_report():
    graph, axes = small_graph(), dict(AXES) | {
        "dataflow": ("os", "ws", "is"), "clock_mhz": (50, 300), "map_words": (64, 4096),
        "edge": ("wide", "passes"), "dram_bits": (8, 64),
    }  # fmt: skip
    sweep = Sweep(axes, points=60, seed=3)
    for number in sweep.numbers():
        changes = changes_of(sweep.settings(number))
        try:
            array = configure(None, changes)
            kept = simulate(graph, config=array).to_dict()
        except BitfoldError as error:
            with pytest.raises(type(error), match=re.escape(error.what)):
                simulate(copy.copy(graph), config=configure(None, changes))
            continue
        tiling_search._known.cache_clear()
        fresh = copy.copy(graph)
        assert simulate(fresh, config=array).to_dict() == kept
        # Resources are kept for all clocks and ports: these must not enter them.
        assert (
            estimate(fresh, map_graph(fresh, array)).counts().items() <= kept["resources"].items()
        )


def test_what_is_known_is_not_simulated_again(model, tmp_path):
    first = explore(request_of(model, tmp_path))
    path = tmp_path / "results"
    whole = path.read_bytes()
    again = explore(request_of(model, tmp_path))
    assert again.resumed == 12
    assert again.points == first.points
    assert path.read_bytes() == whole
    with pytest.raises(UsageError, match="device differ"):
        explore(request_of(model, tmp_path, device="u250"))


@given(data=st.data())
def test_a_results_file_cut_anywhere_or_with_a_spoilt_tail_is_repaired(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "results"
    known = open_results(path, {"device": "d"})
    known.append([{"model": 0, "number": i, "lut": 7} for i in range(4)])
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    tail = data.draw(st.sampled_from([b"", b"\x00\x00", b"{\n", b'{"model": 0}\n', b"7\n"]))
    path.write_bytes(whole[:cut] + tail)
    if whole[:cut].count(b"\n") == 0 and (tail.endswith(b"\n")):
        with pytest.raises((InputError, UsageError)):
            open_results(path, {"device": "d"})
        return
    again = open_results(path, {"device": "d"})
    assert len(again.rows) >= max(0, whole[:cut].count(b"\n") - 1)
    assert all(known.rows[key] == row for key, row in again.rows.items())
    again.append([{"model": 0, "number": 9, "lut": 1}])
    assert open_results(path, {"device": "d"}).rows == again.rows
    assert open_results(path, {"device": "d"}).dropped == 0


def test_a_file_of_something_else_is_never_overwritten(tmp_path):
    path = tmp_path / "results"
    path.write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(InputError, match="not the results of a sweep"):
        open_results(path, {})
    assert path.read_text("utf-8") == "a,b\n1,2\n"


def test_a_more_accurate_model_stays_on_the_front(model, tmp_path):
    variants = (Variant(model, 93.0), Variant(model, 94.0))
    found = explore(request_of(model, tmp_path, variants=variants))
    best = {point["accuracy"] for point in found.front}
    assert best == {94.0}
    assert {json.dumps(p["array"]) for p in found.points} == {'"4x4"', '"8x2"'}


def test_the_front_is_sorted_by_latency(model, tmp_path):
    latencies = [point["latency_ms"] for point in explore(request_of(model, tmp_path)).front]
    assert latencies
    assert np.all(np.diff(latencies) >= 0)
