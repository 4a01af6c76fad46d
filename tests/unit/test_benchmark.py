"""Races of engines in processes of their own."""

import io
import json

import pytest

from bitfold.benchmark import (
    PEERS,
    BenchOptions,
    PeakMeter,
    engines,
    require_engines,
    run_bench,
    worker,
)
from bitfold.errors import BitfoldError, MissingDependencyError, UsageError
from bitfold.export import fold_network, to_onnx
from bitfold.models import NetSpec, Preprocessing, new_network

pytestmark = [pytest.mark.torch, pytest.mark.ort]
SHORT = BenchOptions(rounds=2, turn_s=0.001, cold_starts=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(8, 8, 1),
        class_names=("a", "b"),
        preprocessing=Preprocessing(100, 60),
    )
    path = tmp_path_factory.mktemp("bench") / "net.onnx"
    to_onnx(fold_network(new_network(spec, seed=0)).graph, path)
    return path


def test_every_engine_takes_part(model):
    for name in PEERS:
        pytest.importorskip(engines.ENGINES[name].imports[0])
    report = run_bench(model, against=PEERS, options=SHORT)
    assert [engine.name for engine in report.engines] == ["bitfold", *PEERS]
    assert set(report.ratios) == {f"{name}-int8" for name in PEERS}
    for engine in report.engines:
        assert 0 < engine.min_ms <= engine.p50_ms <= engine.p90_ms <= engine.p99_ms
        assert engine.peak_rss_mb > 10
        assert engine.cold_start_ms > 0
    assert report.weights.packed >= report.weights.least > 0


def test_rounds_are_reported_and_layers_beside_the_peak(model):
    seen = []
    report = run_bench(model, options=SHORT, report=seen.append)
    assert seen == [0, 1]
    assert report.ratios == {}
    assert sum(layer.share for layer in report.layers) == pytest.approx(1)  # sums of ratios
    if report.peak is not None:
        busiest = max(report.layers, key=lambda layer: layer.macs)
        assert busiest.peak_share == pytest.approx(busiest.gmac_per_s / report.peak.gmac_per_s)


@pytest.mark.cc
def test_the_peak_is_that_of_the_best_loop():
    meter = PeakMeter()
    meter.turn()
    peak = meter.peak
    assert peak is not None
    assert peak.gmac_per_s > 0.1
    if peak.clock_ghz is not None:
        assert 0.2 < peak.clock_ghz < 10


def test_an_unknown_engine_is_refused():
    with pytest.raises(UsageError, match="unknown engine tflite"):
        require_engines(("tflite",))


def test_a_missing_engine_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError) as caught:
        require_engines(("litert",))
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "litert is not installed\npackage ai-edge-litert\npip install 'bitfold[bench]'"
    )


def test_a_worker_that_fails_is_an_error_with_its_words(model, monkeypatch, tmp_path):
    broken = tmp_path / "peer.onnx"
    broken.write_bytes(b"nothing")
    monkeypatch.setattr("bitfold.benchmark.race.write_peer", lambda *args, **kwargs: broken)
    pytest.importorskip("onnxruntime")
    with pytest.raises(BitfoldError, match="onnxruntime failed: "):
        run_bench(model, against=("onnxruntime",), options=SHORT)


def test_a_worker_answers_line_by_line(model):
    request = {"engine": "bitfold", "model": str(model), "shape": [8, 8, 1]}
    request["options"] = {"rounds": 1, "turn_s": 0.001}
    answers = io.StringIO()
    worker.serve(io.StringIO(json.dumps(request) + "\n{}\n"), answers)
    hello, turn = map(json.loads, answers.getvalue().splitlines())
    assert set(hello) == {"version", "import_ms", "cold_start_ms"}
    assert len(turn["times"]) >= 1
    assert turn["peak_rss_mb"] > 10


def test_another_topology_may_race(model):
    pytest.importorskip("onnxruntime")
    report = run_bench(model, against=("onnxruntime",), options=SHORT, topology=model)
    assert report.ratios["onnxruntime-int8"] > 0


def test_the_roofline_is_a_png(model):
    pytest.importorskip("matplotlib")
    from bitfold.cli.bench_plot import draw_roofline

    assert draw_roofline(run_bench(model, options=SHORT)).startswith(b"\x89PNG")
