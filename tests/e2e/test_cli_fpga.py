"""``simulate`` and ``explore``: pictures, traces, other tools' files, sweeps."""

import json

import pytest

from bitfold.cli.app import main
from bitfold.export import to_onnx
from bitfold.fpga_sim import live
from bitfold.fpga_sim.synthesis import Cells
from tests.unit.test_fpga_report import small_graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    to_onnx(small_graph(), path / "net.onnx")
    return path


@pytest.fixture
def run_json(capsys):
    def run(*arguments):
        code = main([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def fails(*arguments):
    return main([str(argument) for argument in arguments])


def test_simulate_draws_traces_and_takes_settings(folder, tmp_path, run_json):
    picture, trace = tmp_path / "cycles.png", tmp_path / "trace.json"
    code, fields = run_json(
        "simulate", folder / "net.onnx", "--set", "lanes=2", "--set", "depthwise=vector",
        "--array", "4x4", "--plot", picture, "--trace", trace,
    )  # fmt: skip
    assert code == 0
    assert fields["array"]["lanes"] == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    assert sum(event.get("tid") == 0 and event["ph"] == "X" for event in events) == len(
        fields["layers"]
    )


def test_simulate_writes_and_reads_scalesims_files(folder, tmp_path, run_json):
    topology, report = tmp_path / "t.csv", tmp_path / "r.csv"
    code, first = run_json(
        "simulate", folder / "net.onnx", "--mode", "scalesim", "--topology", topology,
        "--report-csv", report,
    )  # fmt: skip
    assert code == 0
    code, again = run_json("simulate", topology, "--mode", "scalesim")
    assert (code, again["cycles"]) == (0, first["cycles"])
    assert again["schema"] == "bitfold/simulate/1"
    assert len(report.read_text("utf-8").splitlines()) == 1 + len(first["layers"])
    code, _ = run_json("simulate", topology, "--mode", "scalesim", "--report-csv", tmp_path)
    written = sorted(path.name for path in tmp_path.glob("*_REPORT.csv"))
    assert written == ["BANDWIDTH_REPORT.csv", "COMPUTE_REPORT.csv", "DETAILED_ACCESS_REPORT.csv"]
    assert fails("simulate", topology) == 2
    assert fails("simulate", topology, "--mode", "scalesim", "--plot", "p.png") == 2


COUNTED = Cells(lut2=20, lut6=80, lutram=20, ff=60, carry4=5, ramb18=1, ramb36=1)


def test_simulate_reports_yosys_beside_the_model(folder, capsys, monkeypatch):
    monkeypatch.setattr(live, "yosys_version", lambda: "Yosys 0.23")
    monkeypatch.setattr(live, "synthesise", lambda units: [COUNTED] * len(units))
    assert main(["simulate", str(folder / "net.onnx"), "--array", "2x3", "--synth", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["synthesis"]
    # Three buffers and the design.
    assert found["resources"] == {"lut": 480, "lc": 440, "ff": 240, "dsp": 0, "bram18": 12}
    assert found["scope"] == "the whole design, and its buffers"
    assert found["left_out"] == ["digit passes"]
    monkeypatch.setattr(live, "WHOLE_LUTS", 0)
    assert main(["simulate", str(folder / "net.onnx"), "--array", "2x3", "--synth"]) == 0
    printed = capsys.readouterr()
    assert "one PE times 2 x 3" in printed.out
    assert "yosys: one PE" in printed.err


def test_synthesis_that_cannot_be_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for rest in ((), ("--mode", "scalesim"), ("--mode", "finn", "--config", "f.json")):
        assert fails("simulate", folder / "net.onnx", "--synth", *rest) == 2
        assert capsys.readouterr().out == ""


def test_simulate_estimates_a_finn_folding(folder, tmp_path, run_json):
    _, layers = run_json("simulate", folder / "net.onnx")
    path = tmp_path / "folding.json"
    path.write_text(
        json.dumps({f"MVAU_{i}": {"PE": 1, "SIMD": 1} for i in range(len(layers["layers"]))}),
        "utf-8",
    )
    code, fields = run_json("simulate", folder / "net.onnx", "--mode", "finn", "--config", path)
    assert code == 0
    assert fields["cycles"] == max(layer["macs"] for layer in layers["layers"])
    path.write_text("[]", "utf-8")
    assert fails("simulate", folder / "net.onnx", "--mode", "finn", "--config", path) == 2


def test_explore_writes_points_and_draws_the_front(folder, tmp_path, run_json):
    output, picture = tmp_path / "points.csv", tmp_path / "front.png"
    line = ("explore", folder / "net.onnx", "--jobs", "1", "--vary", "array=4x4,8x8", "--vary",
            "lanes=1,2", "-o", output, "--plot", picture, "--accuracy", "93")  # fmt: skip
    code, fields = run_json(*line)
    assert code == 0
    assert [*fields][:3] == ["schema", "device", "points"]
    promised = {"array", "dataflow", "clock_mhz", "latency_ms", "lut", "ff", "dsp", "bram36",
                "fits", "pareto"}  # fmt: skip
    promised |= {f"{key}_error" for key in ("cycles", "lut", "ff", "dsp", "bram36", "uram")}
    assert all(promised <= set(point) for point in fields["points"])
    assert promised <= set(output.read_text("utf-8").splitlines()[0].split(","))
    assert len(output.read_text("utf-8").splitlines()) == 1 + len(fields["points"]) == 25
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run_json(*line)[1]["resumed"] == 24
    assert fails(*line[:2], "--vary", "lane=1") == 2
    assert fails(*line[:2], "--variant", folder / "net.onnx", "--accuracy", "9") == 2
