"""``verify A --against B``: the first tensor at which two models of one network part, and why."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitfold.certify import Side, bisect_graphs
from bitfold.cli import main
from bitfold.export import from_checkpoint, read_onnx, to_onnx
from bitfold.ir import Conv2d, IntGraph, Thresholds
from tests.foreign_models import Maker

pytestmark = [pytest.mark.torch, pytest.mark.ort]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("against")
    new = ["new", "--net", "resnet8", "--bits", "2,2", "--width", "0.25", "--input", "8x8x1"]
    assert main([*new, "--classes", "3", "-o", str(place / "net.pt"), "-q"]) == 0
    graph = from_checkpoint(place / "net.pt")
    for profile in ("qcdq", "lowbit", "integer", "qonnx"):
        to_onnx(graph, place / f"{profile}.onnx", profile=profile)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.savez(place / "images.npz", images=images, labels=np.arange(5) % 3)
    return place


def compared(capsys, folder, first, second, *words):
    """(exit code, JSON or None, error block)."""
    capsys.readouterr()
    data = ["--data", str(folder / "images.npz")]
    paths = ["verify", str(folder / first), "--against", str(second)]
    code = main([*paths, *data, *map(str, words), "--json"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, json.loads(captured.out) if captured.out else None, captured.err


@pytest.mark.parametrize("other", ["lowbit", "integer", "qonnx"])
def test_profiles_of_one_network_are_equal(folder, capsys, other):
    code, fields, error = compared(capsys, folder, "qcdq.onnx", folder / f"{other}.onnx")
    assert (code, error) == (0, "")
    assert fields["ok"] is True
    assert fields["against"]["how"] == "integer graphs"
    assert fields["against"]["structure"] == []
    assert sum(stage["compared"] for stage in fields["stages"]) > 5 * 8 * 8 * 4
    assert [stage["mismatches"] for stage in fields["stages"]] == [0, 0]


def edited(folder, tmp_path, name, value):
    """The qcdq file with one constant changed by ``value(old)``."""
    model = onnx.load(folder / "qcdq.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == name)
    old = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(value(old).astype(old.dtype), name))
    path = tmp_path / "edited.onnx"
    onnx.save(model, path)
    return path


def test_a_changed_weight_is_named_with_the_first_sum_it_moves(folder, tmp_path, capsys):
    def one_more(weight):
        changed = weight.copy()
        changed.flat[0] += 1 if changed.flat[0] < 127 else -1
        return changed

    path = edited(folder, tmp_path, "conv1.weight", one_more)
    code, fields, error = compared(capsys, folder, "qcdq.onnx", path)
    first = fields["against"]["first"]
    assert code == 1
    assert (first["layer"], first["cause"]) == ("conv1", "parameters")
    assert "weight differs in 1 of" in first["why"]
    assert "conv1, index" in error
    names = [pair["name"] for pair in fields["against"]["tensors"] if pair["mismatches"]]
    assert names[0] == "conv1"


def graphs_with(graph, kind, change):
    """``graph`` and the same with the first node of ``kind`` changed."""
    nodes, done = [], False
    for node in graph.nodes:
        if isinstance(node, kind) and not done:
            node, done = change(node), True
        nodes.append(node)
    return graph, IntGraph.of(nodes, meta=dict(graph.meta))


@pytest.fixture(scope="module")
def graph(folder):
    return read_onnx(folder / "qcdq.onnx")


@pytest.fixture(scope="module")
def images(folder):
    with np.load(folder / "images.npz") as content:
        return content["images"]


def test_a_threshold_one_higher_is_a_tie(graph, images):
    def higher(node):
        if node.name != "layer1.0.act2":
            return node
        return type(node)(
            node.name, node.x, node.table + 1, node.sign, node.grid, node.scale
        )  # fmt: skip

    nodes = [higher(n) if isinstance(n, Thresholds) else n for n in graph.nodes]
    other = IntGraph.of(nodes, meta=dict(graph.meta))
    found = bisect_graphs(Side("a", other, images), Side("b", graph, images))
    assert not found.ok
    assert (found.place.layer, found.place.cause) == ("layer1.0.act2", "tie")
    assert "table differs in" in found.place.why


def test_another_padding_is_told_as_structure_and_place(graph, images):
    def moved(node):
        fields = {name: getattr(node, name) for name in type(node).__slots__}
        return Conv2d(**fields | {"padding": (0, 0, 2, 2)})

    first, second = graphs_with(graph, Conv2d, moved)
    found = bisect_graphs(Side("a", second, images), Side("b", first, images))
    assert found.place.layer == "conv1"
    assert "padding (0, 0, 2, 2), not (1, 1, 1, 1)" in found.place.why


def renamed(graph):
    """The same network under other names."""
    from dataclasses import fields, replace

    def new(value):
        if isinstance(value, tuple):
            return tuple(f"n.{x}" for x in value)
        return f"n.{value}"

    nodes = [
        replace(n, **{f.name: new(getattr(n, f.name)) for f in fields(n)
                      if f.name in ("name", "x", "a", "b", "xs")})
        for n in graph.nodes
    ]  # fmt: skip
    return IntGraph.of(nodes, meta=dict(graph.meta))


def test_other_names_are_aligned_by_order(graph, images, folder, tmp_path, capsys):
    to_onnx(renamed(graph), tmp_path / "renamed.onnx")
    code, fields, _ = compared(capsys, folder, "qcdq.onnx", tmp_path / "renamed.onnx")
    assert code == 0
    pairs = {pair["name"]: pair["other"] for pair in fields["against"]["tensors"]}
    assert pairs == {node.name: f"n.{node.name}" for node in graph.nodes}


def test_another_network_is_said_to_have_another_structure(folder, tmp_path, capsys):
    new = ["new", "--net", "mlp", "--bits", "2,2", "--input", "8x8x1", "--width", "0.1"]
    assert main([*new, "--classes", "4", "-o", str(tmp_path / "mlp.pt"), "-q"]) == 0
    words = ["export", str(tmp_path / "mlp.pt"), "-o", str(tmp_path / "mlp.onnx"), "-q"]
    assert main(words) == 0
    code, fields, error = compared(capsys, folder, "qcdq.onnx", tmp_path / "mlp.onnx")
    assert code == 1
    assert any("only mlp.onnx has" in line for line in fields["against"]["structure"])
    assert "structures differ" in error


def unreadable(folder, tmp_path, weight=None):
    """The qcdq file with an operator more, which bitfold refuses and ONNX Runtime runs."""
    model = onnx.load(folder / "qcdq.onnx")
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "logits/raw"
    zero = numpy_helper.from_array(np.float32(0), "zero")
    model.graph.initializer.append(zero)
    model.graph.node.append(onnx.helper.make_node("Add", ["logits/raw", "zero"], ["logits"]))
    if weight is not None:
        tensor = next(t for t in model.graph.initializer if t.name == "conv1.weight")
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] += weight
        tensor.CopyFrom(numpy_helper.from_array(values, "conv1.weight"))
    path = tmp_path / "unreadable.onnx"
    onnx.save(model, path)
    return path


def test_a_file_that_is_not_read_is_compared_under_the_runtime(folder, tmp_path, capsys):
    code, fields, error = compared(capsys, folder, "qcdq.onnx", unreadable(folder, tmp_path))
    assert (code, error) == (0, "")
    assert fields["against"]["how"] == "ONNX Runtime"
    assert "is not read" in fields["against"]["not_read"][0]
    assert {"conv1", "layer3.0.add"} <= {pair["name"] for pair in fields["against"]["tensors"]}
    assert any("only unreadable.onnx has 1 of" in s for s in fields["against"]["structure"])


def test_its_first_differing_tensor_is_named(folder, tmp_path, capsys):
    path = unreadable(folder, tmp_path, weight=-1)
    code, fields, error = compared(capsys, folder, "qcdq.onnx", path)
    assert code == 1
    first = fields["against"]["first"]
    assert (first["layer"], first["cause"]) == ("conv1.weight/codes", "parameters")
    assert first["why"] == "constant conv1.weight differs"
    assert "conv1.weight/codes" in error


def test_a_tensor_whose_meaning_is_known_is_explained(folder, tmp_path, capsys):
    model = onnx.load(unreadable(folder, tmp_path))
    tensor = next(t for t in model.graph.initializer if t.name == "conv1.wide.offset")
    offset = numpy_helper.to_array(tensor) - 0.5
    tensor.CopyFrom(numpy_helper.from_array(offset, "conv1.wide.offset"))
    onnx.save(model, tmp_path / "floored.onnx")
    code, fields, _ = compared(capsys, folder, "qcdq.onnx", tmp_path / "floored.onnx")
    first = fields["against"]["first"]
    assert code == 1
    assert (first["layer"], first["cause"]) == ("conv1.wide/shifted", "rounding mode")
    assert "rounded down" in first["why"]
    assert "constant conv1.wide.offset differs" in first["why"]


def test_a_file_that_takes_channels_first_gets_them(folder, tmp_path, capsys):
    model = onnx.load(folder / "qcdq.onnx")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims][1:] == [8, 8, 1]
    for dim, size in zip(list(dims)[1:], (1, 8, 8), strict=True):
        dim.dim_value = size
    model.graph.node[0].attribute[0].ints[:] = [0, 1, 2, 3]
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "first.onnx")
    code, fields, error = compared(capsys, folder, "qcdq.onnx", tmp_path / "first.onnx")
    assert (code, error) == (0, "")
    assert fields["ok"] is True


@pytest.mark.parametrize(
    "words", [("--checkpoint", "net.pt"), ("--bits", "2,2"), ("--replay", "net.pt")]
)
def test_against_takes_the_files_as_they_are(folder, capsys, words):
    code, fields, error = compared(capsys, folder, "qcdq.onnx", folder / "lowbit.onnx", *words)
    assert (code, fields) == (2, None)
    assert words[0] in error


def test_a_file_that_is_no_model_is_one_error(folder, tmp_path, capsys):
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\xff" * 100)
    code, fields, error = compared(capsys, folder, "qcdq.onnx", path)
    assert (code, fields) == (2, None)
    assert str(path) in error
    code, _, error = compared(capsys, folder, "qcdq.onnx", tmp_path / "none.onnx")
    assert code == 2
    assert "does not exist" in error


def foreign(path, *, other_scale=False):
    """A QDQ model as another tool writes it: float32 (N, 3, 6, 6), two convolutions."""
    make = Maker(seed=4)
    x = make.qdq("x", 0.02, 128)
    y = make.op("Conv", x, make.weight((5, 3, 3, 3)), pads=[1, 1, 1, 1])
    y = make.qdq(make.op("Relu", y), 0.033 if other_scale else 0.03)
    y = make.op("Conv", y, make.weight((4, 5, 1, 1)))
    y = make.op("Flatten", make.op("GlobalAveragePool", make.qdq(y, 0.05, 100)))
    onnx.save(make.model(y, ["n", 3, 6, 6]), path)
    return path


def test_models_of_another_tool_are_compared_on_their_own_input(tmp_path, capsys):
    values = np.random.default_rng(3).normal(0, 1, (3, 3, 6, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    first, same = foreign(tmp_path / "a.onnx"), foreign(tmp_path / "b.onnx")
    other = foreign(tmp_path / "c.onnx", other_scale=True)
    for second, expected in ((same, 0), (other, 1)):
        capsys.readouterr()
        words = ["verify", str(first), "--against", str(second), "--json"]
        code = main([*words, "--data", str(tmp_path / "x.npy")])
        fields = json.loads(capsys.readouterr().out)
        assert code == expected
        assert fields["against"]["how"] == "integer graphs"
        assert fields["images"] == 3
    place = fields["against"]["first"]
    assert place["cause"] != "unknown"
    assert "table differs" in place["why"]
