"""The verbs on a small network, from checkpoint to certificate, and on broken files."""

import errno
import json
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfold.cli import main

pytestmark = [pytest.mark.torch, pytest.mark.ort]

ROOT = Path(__file__).parents[2]
NEW = ["new", "--net", "resnet8", "--bits", "2,2", "--width", "0.5", "--input", "12x12x1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a checkpoint, its ONNX file and a few images."""
    place = tmp_path_factory.mktemp("cli")
    assert main([*NEW, "--classes", "3", "-o", str(place / "net.pt"), "-q"]) == 0
    assert main(["export", str(place / "net.pt"), "-o", str(place / "net.onnx"), "-q"]) == 0
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), dtype=np.uint8)
    np.save(place / "images.npy", images)
    np.savez(place / "images.npz", images=images, labels=np.arange(6) % 3)
    return place


@pytest.fixture
def run_json(capsys):
    """``run_json(words)`` → (exit code, the one JSON object on stdout)."""

    def run(*words):
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        fields = json.loads(lines[0])
        assert next(iter(fields)) == "schema"
        assert fields["schema"] == f"bitfold/{words[0]}/1"
        return code, fields

    return run


def fails(capsys, *words):
    """Exit code and error block of a call that must fail without a traceback or output."""
    capsys.readouterr()
    code = main([*map(str, words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.startswith(f"bitfold {words[0]}: error: ")
    assert "a bug in bitfold" not in captured.err
    return code, captured.err


def test_new_writes_the_same_checkpoint_for_the_same_seed(tmp_path, run_json):
    checkpoints = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        code, fields = run_json(*NEW, "--seed", seed, "-o", tmp_path / f"{name}.pt")
        assert code == 0
        assert fields["bits"] == {"w": 2, "a": 2}
        checkpoints.append((tmp_path / f"{name}.pt").read_bytes())
    assert checkpoints[0] == checkpoints[1] != checkpoints[2]


def test_export_reports_layers_macs_and_bytes(folder, tmp_path, run_json):
    code, fields = run_json("export", folder / "net.pt", "-o", tmp_path / "a.onnx")
    assert code == 0
    promised = [
        "schema", "checkpoint", "method", "net", "bits", "output", "profile", "opset", "layers",
        "macs", "packed_weight_bytes", "exact_layers", "bounded_layers", "warnings",
    ]  # fmt: skip
    assert list(fields)[: len(promised)] == promised
    assert fields["method"] == "pact-sawb"
    assert fields["net"] == "resnet8"
    assert fields["bits"] == {"w": 2, "a": 2}
    assert fields["profile"] == "qcdq"
    assert fields["layers"] == 10
    assert fields["exact_layers"] == 3
    assert fields["bounded_layers"] == len(fields["bounds"])
    assert (tmp_path / "a.onnx").read_bytes() == (folder / "net.onnx").read_bytes()


def test_inspect_says_the_same_of_checkpoint_and_onnx_file(folder, run_json):
    _, from_onnx = run_json("inspect", folder / "net.onnx")
    _, from_checkpoint = run_json("inspect", folder / "net.pt")
    for mine, theirs in zip(from_onnx["layers"], from_checkpoint["layers"], strict=True):
        chosen = {"kernel", "why"}  # by time: two kernels may be equally fast
        assert {k: v for k, v in mine.items() if k not in chosen} == {
            k: v for k, v in theirs.items() if k not in chosen
        }
    layers = {layer["name"]: layer for layer in from_onnx["layers"]}
    conv = layers["layer1.0.conv1"]
    assert (conv["op"], conv["shape"], conv["w_bits"], conv["a_bits"]) == (
        "Conv2d",
        [12, 12, 8],
        2,
        2,
    )
    assert conv["macs"] == 12 * 12 * 8 * 8 * 9
    assert conv["packed_bytes"] == 8 * 8 * 9 * 2 // 8
    assert conv["lo"] < 0 < conv["hi"] < 2 ** (conv["acc_bits"] - 1)
    assert conv["kernel"]
    weighted = [layer for layer in layers.values() if layer["w_bits"]]
    assert from_onnx["macs"] == sum(layer["macs"] for layer in weighted)
    assert from_onnx["num_layers"] == len(weighted)


def test_inspect_without_json_is_a_table(folder, capsys):
    assert main(["inspect", str(folder / "net.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "layer1.0.conv1" in shown
    assert "10 layers with weights" in shown
    assert "\x1b" not in shown


def test_run_gives_the_same_logits_on_every_backend(folder, tmp_path, run_json):
    results = {}
    for backend in ("auto", "numba", "oracle"):
        output = tmp_path / f"{backend}.npz"
        words = ("--input", folder / "images.npy", "-o", output, "--backend", backend)
        code, fields = run_json("run", folder / "net.onnx", *words, "--threads", 2)
        assert code == 0
        assert fields["images"] == 6
        assert fields["top1"] is None
        assert fields["threads"] == 2
        results[backend] = np.load(output)
    assert results["auto"]["logits"].dtype == np.float32
    assert results["auto"]["logits"].shape == (6, 3)
    for found in results.values():
        assert (found["logits"] == results["oracle"]["logits"]).all()
        assert (found["top1"] == found["logits"].argmax(1)).all()


def test_run_counts_hits_where_there_are_labels(folder, tmp_path, run_json):
    output = tmp_path / "out.npz"
    _, fields = run_json("run", folder / "net.onnx", "--data", folder / "images.npz", "-o", output)
    hits = (np.load(output)["top1"] == np.arange(6) % 3).mean()
    assert fields["top1"] == hits
    assert fields["backend"] in ("c", "numba")


def test_verify_writes_a_certificate_that_holds(folder, tmp_path, run_json):
    output = tmp_path / "certificate.json"
    code, fields = run_json(
        "verify", folder / "net.onnx", "--data", folder / "images.npz", "--limit", 3,
        "--checkpoint", folder / "net.pt", "-o", output,
    )  # fmt: skip
    assert code == 0
    assert fields["ok"] is True
    assert fields["images"] == 3
    assert {"onnxruntime", "fpga array"} <= {stage["name"] for stage in fields["stages"]}
    for stage in fields["stages"]:
        assert {"name", "against", "compared", "mismatches", "max_abs_diff", "first"} <= set(stage)
    assert json.loads(output.read_text()) == fields


def test_verify_of_another_networks_checkpoint_is_no_traceback(folder, tmp_path, capsys):
    other = tmp_path / "other.pt"
    assert main([*NEW, "--classes", "3", "--seed", "9", "-o", str(other), "-q"]) == 0
    code, shown = fails(
        capsys, "verify", folder / "net.onnx", "--data", folder / "images.npz", "--limit", 2,
        "--checkpoint", other, "-q",
    )  # fmt: skip
    assert code == 1
    assert "layer" in shown


def test_bench_measures_both_engines_and_the_layers(folder, tmp_path, run_json):
    output = tmp_path / "bench.json"
    code, fields = run_json(
        "bench", folder / "net.onnx", "--against", "onnxruntime", "--rounds", 2, "-o", output
    )
    assert code == 0
    assert [engine["name"] for engine in fields["engines"]] == ["bitfold", "onnxruntime"]
    assert fields["ratios"]["onnxruntime-int8"] > 0
    assert fields["rounds"] == 2
    assert {"name", "op", "kernel", "ms", "macs", "gmac_per_s", "share"} <= set(fields["layers"][0])
    assert json.loads(output.read_text()) == fields


def test_bench_fails_under_a_ratio_nobody_reaches(folder, capsys):
    words = ["bench", str(folder / "net.onnx"), "--against", "onnxruntime", "--rounds", "1"]
    assert main([*words, "--fail-under", "1e9", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["schema"] == "bitfold/bench/1"
    assert "ratio below 1e+09: onnxruntime-int8" in captured.err


def test_simulate_takes_options_over_a_file(folder, tmp_path, run_json):
    config = tmp_path / "array.toml"
    config.write_text("[array]\nrows = 4\ncols = 8\n")
    code, fields = run_json("simulate", folder / "net.onnx", "--config", config)
    assert code == 0
    assert (fields["array"]["rows"], fields["array"]["cols"]) == (4, 8)
    _, wider = run_json("simulate", folder / "net.onnx", "--config", config, "--array", "8x8")
    assert (wider["array"]["rows"], wider["array"]["cols"]) == (8, 8)
    assert wider["cycles"] < fields["cycles"]


def test_emit_writes_a_folder_once(folder, tmp_path, run_json, capsys):
    words = ["emit", "rtl", folder / "net.onnx", "--array", "2x3", "-o", tmp_path / "array"]
    code, fields = run_json(*words)
    assert code == 0
    assert (fields["form"], fields["checked_with"]) == ("rtl", None)
    assert (fields["array"]["rows"], fields["array"]["cols"]) == (2, 3)
    assert sorted(path.name for path in (tmp_path / "array").iterdir()) == fields["files"]
    assert {"bf_top.v", "bf_tb.v", "Makefile", "README.md", "golden.hex"} <= set(fields["files"])
    assert fails(capsys, *words)[0] == 2
    assert fails(capsys, *words[:-1], tmp_path / "other", "--layer", "stem")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["array"]


def test_emit_refuses_what_the_verilog_lacks(folder, tmp_path, run_json, capsys):
    words = ["emit", "rtl", folder / "net.onnx", "-o", tmp_path / "array", "--array", "2x2"]
    code, error = fails(capsys, *words, "--set", "subarray=best")
    assert code == 3
    assert "no drain after row r" in error
    assert list(tmp_path.iterdir()) == []
    _, fields = run_json(*words, "--set", "dram_latency=9")
    assert fields["outside"] == ["dram_latency"]


def test_simulate_refuses_what_is_not_modelled(folder, capsys):
    assert fails(capsys, "simulate", folder / "net.onnx", "--mode", "finn")[0] == 2
    assert fails(capsys, "simulate", folder / "net.onnx", "--mode", "magic")[0] == 2
    assert fails(capsys, "simulate", folder / "net.onnx", "--device", "abacus")[0] == 2


def test_train_writes_a_checkpoint_that_exports(folder, tmp_path, run_json):
    images = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(40) % 2)
    code, fields = run_json(
        "train", "--net", "resnet8", "--bits", "2,2", "--width", "0.25", "--no-compile",
        "--data", tmp_path / "train.npz", "--epochs", 1, "--batch-size", 12,
        "-o", tmp_path / "t.pt",
    )  # fmt: skip
    assert code == 0
    promised = ["schema", "checkpoint", "method", "net", "bits", "epochs", "test_accuracy"]
    assert list(fields) == [*promised, "seconds", "resumed_from_step", "plot"]
    assert 0 <= fields["test_accuracy"] <= 1
    assert fields["resumed_from_step"] == 0
    assert run_json("export", tmp_path / "t.pt", "-o", tmp_path / "t.onnx")[0] == 0


def test_train_refuses_before_any_work(tmp_path, capsys):
    words = ("train", "--net", "resnet8", "--bits", "2,2", "-o", tmp_path / "t.pt")
    assert fails(capsys, *words, "--init", tmp_path / "none.pt")[0] == 2
    assert fails(capsys, *words, "--weight-grid", "even")[0] == 2
    code, shown = fails(capsys, *words, "--per-kernel")
    assert (code, "pact-sawb has no such steps" in shown) == (2, True)
    assert fails(capsys, *words, "--data", tmp_path / "none.npz")[0] == 2
    assert fails(capsys, *words, "--method", "ternary")[0] == 2
    assert fails(capsys, *words, "--method", "sttn", "--net", "mlp")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_demo_leaves_every_step_in_its_folder(tmp_path, run_json, monkeypatch):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    big = ["new", "--net", "resnet8", "--bits", "2,2", "--width", "0.25"]
    assert main([*big, "-o", str(data / "small.pt"), "-q"]) == 0
    monkeypatch.setattr("bitfold.cli.demo.DATA", data)
    monkeypatch.setattr("bitfold.cli.demo.CERTIFIED_IMAGES", 2)
    monkeypatch.setattr("bitfold.cli.demo.ROUNDS", 1)
    code, fields = run_json("demo", "-o", out)
    assert code == 0
    assert [network["name"] for network in fields["networks"]] == ["small"]
    network = fields["networks"][0]
    assert network["ok"] is True
    assert network["images"] == 500
    assert network["ratio"] > 0
    assert network["fps_estimate"] > 0
    assert json.loads((out / "summary.json").read_text()) == fields
    names = {path.name for path in (out / "small").iterdir()}
    steps = {"export.json", "certificate.json", "bench.json", "simulate.json"}
    assert names == {"small.pt", "small.onnx", *steps}
    for step, verb in zip(sorted(steps), ("bench", "verify", "export", "simulate"), strict=True):
        assert json.loads((out / "small" / step).read_text())["schema"] == f"bitfold/{verb}/1"


def test_demo_without_its_networks_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bitfold.cli.demo.DATA", tmp_path / "none")
    code, shown = fails(capsys, "demo", "-o", tmp_path / "out")
    assert code == 2
    assert "reinstall bitfold" in shown


def test_kernels_lists_a_chosen_row_for_every_operation_of_a_plan(run_json):
    code, fields = run_json("kernels")
    assert code == 0
    chosen = [row for row in fields["kernels"] if row["chosen"]]
    assert chosen
    assert all(row["available"] and row["why"] for row in chosen)


def test_doctor_passes_its_self_test(run_json):
    code, fields = run_json("doctor")
    assert code == 0
    assert fields["ok"] is True
    assert {"numba"} <= {test["backend"] for test in fields["self_test"]}
    assert all(test["mismatches"] == 0 for test in fields["self_test"])
    assert fields["packages"]["numpy"] == np.__version__


def test_a_truncated_checkpoint_is_an_input_error(folder, tmp_path, capsys):
    data = (folder / "net.pt").read_bytes()
    for size in (3, 1000, len(data) - 20):
        (tmp_path / "cut.pt").write_bytes(data[:size])
        code, shown = fails(capsys, "export", tmp_path / "cut.pt", "-o", tmp_path / "a.onnx")
        assert code == 2
        assert "cut.pt" in shown
        assert not (tmp_path / "a.onnx").exists()


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "trap.pt").write_bytes(pickle.dumps(Trap()))
    code, _ = fails(capsys, "export", tmp_path / "trap.pt", "-o", tmp_path / "a.onnx")
    assert code == 2
    assert not (tmp_path / "sprung").exists()


def test_a_scale_that_is_no_number_is_an_input_error(folder, tmp_path, capsys):
    import torch

    content = torch.load(folder / "net.pt", weights_only=True)
    name = next(key for key in content["model"] if key.endswith("act1.clip"))
    content["model"][name].fill_(float("nan"))
    torch.save(content, tmp_path / "nan.pt")
    code, shown = fails(capsys, "export", tmp_path / "nan.pt", "-o", tmp_path / "a.onnx")
    assert code == 2
    assert name in shown


def test_an_onnx_file_with_a_foreign_node_is_unsupported(folder, tmp_path, capsys):
    model = onnx.load(folder / "net.onnx")
    last = model.graph.output[0].name
    node = next(node for node in model.graph.node if last in node.output)
    node.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Softmax", ["before"], [last], name="softmax"))
    onnx.save(model, tmp_path / "softmax.onnx")
    code, shown = fails(capsys, "inspect", tmp_path / "softmax.onnx")
    assert code == 3
    assert "softmax" in shown


def test_another_tools_onnx_file_is_unsupported(tmp_path, capsys):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [1, 4])],
        [value("y", onnx.TensorProto.FLOAT, [1, 4])],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "relu.onnx")
    assert fails(capsys, "inspect", tmp_path / "relu.onnx")[0] == 3


@pytest.mark.parametrize("verb", ["inspect", "simulate", "bench"])
def test_garbage_is_an_input_error(verb, tmp_path, capsys):
    (tmp_path / "garbage.onnx").write_bytes(bytes(range(256)) * 4)
    assert fails(capsys, verb, tmp_path / "garbage.onnx")[0] == 2
    (tmp_path / "empty.onnx").touch()
    assert fails(capsys, verb, tmp_path / "empty.onnx")[0] == 2


def test_a_missing_data_folder_is_an_input_error(folder, tmp_path, capsys):
    for spec in (
        f"folder:{tmp_path}/none",
        f"fashion-mnist:{tmp_path}/none",
        f"{tmp_path}/none.npz",
    ):
        words = ("--data", spec, "-o", tmp_path / "out.npz")
        code, shown = fails(capsys, "run", folder / "net.onnx", *words)
        assert code == 2
        assert "none" in shown


def test_images_of_another_shape_are_an_input_error(folder, tmp_path, capsys):
    np.save(tmp_path / "big.npy", np.zeros((2, 20, 20, 1), np.uint8))
    words = ("--input", tmp_path / "big.npy", "-o", tmp_path / "out.npz")
    for backend in ("auto", "oracle"):
        code, shown = fails(capsys, "run", folder / "net.onnx", *words, "--backend", backend)
        assert code == 2
        assert "12, 12, 1" in shown


def test_a_disk_that_is_full_leaves_no_file(folder, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for words in (
        ("run", folder / "net.onnx", "--input", folder / "images.npy", "-o", tmp_path / "out.npz"),
        ("export", folder / "net.pt", "-o", tmp_path / "out.onnx"),
        ("new", *NEW[1:], "-o", tmp_path / "out.pt"),
    ):
        code, shown = fails(capsys, *words)
        assert code == 2
        assert "No space left on device" in shown
    assert list(tmp_path.iterdir()) == []


def bitfold(*words, **settings):
    return subprocess.run(
        [sys.executable, "-m", "bitfold.cli", *map(str, words)],
        cwd=ROOT,
        capture_output="stdout" not in settings,
        text=True,
        check=False,
        **settings,
    )


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full on this system")
def test_a_full_stdout_is_one_block_and_exit_code_2():
    with Path("/dev/full").open("w") as full:
        done = bitfold("kernels", "--json", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_help_is_there_in_a_second():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert bitfold("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time: the wall clock of a busy machine says nothing about us.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_the_process_ends_with_the_exit_code(tmp_path):
    done = bitfold("inspect", tmp_path / "none.onnx", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "does not exist" in done.stderr


def test_a_missing_torch_names_the_extra(folder, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        f"from bitfold.cli import main; sys.exit(main(['export', {str(folder / 'net.pt')!r}, "
        f"'-o', {str(tmp_path / 'a.onnx')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'bitfold[export]'" in done.stderr


def test_running_a_model_needs_no_torch(folder, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    shutil.copy(folder / "net.onnx", tmp_path / "net.onnx")
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        f"from bitfold.cli import main; sys.exit(main(['run', {str(tmp_path / 'net.onnx')!r}, "
        f"'--input', {str(folder / 'images.npy')!r}, '-o', {str(tmp_path / 'o.npz')!r}, '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 6
