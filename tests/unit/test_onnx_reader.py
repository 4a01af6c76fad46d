"""What the reader does with files that are damaged, hostile, edited or not ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfold.errors import BitfoldError, GraphError, InputError, OffGridError, UnsupportedError
from bitfold.export.model_files import graph_of, read_onnx
from bitfold.export.onnx.qdq import GRAPH_KEY, VERSION_KEY, onnx_model
from bitfold.ir import Conv2d, Rescale, Thresholds, to_text
from tests.property.strategies import every_op_graph

Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def written() -> bytes:
    return onnx_model(every_op_graph())


def edited(data: bytes, edit: Edit) -> bytes:
    model = onnx.ModelProto.FromString(data)
    edit(model)
    return model.SerializeToString()


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def change(model: onnx.ModelProto, name: str, apply: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = initializer(model, name)
    kind = tensor.data_type
    values = apply(numpy_helper.to_array(tensor).astype(np.float64))
    tensor.CopyFrom(helper.make_tensor(name, kind, values.shape, values.ravel().tolist()))


def test_a_written_graph_reads_back_as_the_same_text(written: bytes) -> None:
    assert to_text(graph_of(written)) == to_text(every_op_graph())


def test_a_file_on_disk_reads_back(written: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(written)
    assert to_text(read_onnx(tmp_path / "model.onnx")) == to_text(every_op_graph())


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the file"):
        read_onnx(tmp_path / "missing.onnx")


def test_a_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the file"):
        read_onnx(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x00" * 64, b"PK\x03\x04" * 9])
def test_bytes_that_are_no_model_are_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        graph_of(data)


def test_every_truncation_is_one_clean_error(written: bytes) -> None:
    for length in range(0, len(written) - 1, max(1, len(written) // 60)):
        with pytest.raises(BitfoldError):
            graph_of(written[:length])


def test_every_flipped_byte_is_read_or_refused_cleanly(written: bytes) -> None:
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(written), 150).tolist():
        data = bytearray(written)
        data[place] ^= 1 << int(rng.integers(8))
        try:
            graph_of(bytes(data))
        except BitfoldError as error:
            assert error.exit_code in (2, 3)  # noqa: PT017  # any of our errors is right


def test_an_edited_weight_shows_up(written: bytes) -> None:
    data = edited(written, lambda m: change(m, "stem.weight", lambda w: -w))
    again = next(n for n in graph_of(data).nodes if n.name == "stem")
    before = next(n for n in every_op_graph().nodes if n.name == "stem")
    assert isinstance(again, Conv2d)
    assert isinstance(before, Conv2d)
    assert (again.weight == -before.weight).all()


def test_an_edited_multiplier_shows_up(written: bytes) -> None:
    data = edited(written, lambda m: change(m, "branch.multiplier", lambda x: x * 2))
    again = next(n for n in graph_of(data).nodes if n.name == "branch")
    assert isinstance(again, Rescale)
    assert again.multiplier.tolist() == [80] * 4


def test_an_edited_threshold_shows_up(written: bytes) -> None:
    before = next(n for n in every_op_graph().nodes if n.name == "q")
    data = edited(written, lambda m: change(m, "q.thresholds", lambda t: t + 1))
    again = next(n for n in graph_of(data).nodes if n.name == "q")
    assert isinstance(again, Thresholds)
    assert isinstance(before, Thresholds)
    assert (again.table == before.table + 1).all()


def test_a_weight_off_its_grid_breaks_the_invariant(written: bytes) -> None:
    data = edited(written, lambda m: change(m, "stem.weight", lambda w: w * 3))
    with pytest.raises(OffGridError, match="stem"):
        graph_of(data)


def test_a_multiplier_that_is_no_multiple_of_its_step_is_refused(written: bytes) -> None:
    data = edited(written, lambda m: change(m, "branch.multiplier", lambda x: x + 1e-3))
    with pytest.raises(UnsupportedError, match=r"branch\.multiplier"):
        graph_of(data)


def test_an_edited_output_scale_contradicts_its_layer(written: bytes) -> None:
    data = edited(written, lambda m: change(m, "logits.scale", lambda x: x * 2))
    with pytest.raises(UnsupportedError, match=r"logits\.scale"):
        graph_of(data)


def test_an_inserted_operator_is_named(written: bytes) -> None:
    def insert(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Softmax", ["fc"], ["soft"], name="soft"))

    with pytest.raises(UnsupportedError, match=r"Softmax is not supported\nnode 'soft'"):
        graph_of(edited(written, insert))


def test_a_known_operator_in_the_wrong_place_is_named(written: bytes) -> None:
    def insert(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("Floor", ["sum"], ["extra"], name="extra"))

    with pytest.raises(UnsupportedError, match="node 'extra'"):
        graph_of(edited(written, insert))


def test_a_changed_operator_is_named(written: bytes) -> None:
    def swap(model: onnx.ModelProto) -> None:
        node(model, "sum").op_type = "Mul"

    with pytest.raises(UnsupportedError, match="node 'sum'"):
        graph_of(edited(written, swap))


def test_a_model_of_another_tool_is_read_as_such() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    node = helper.make_node("Erf", ["x"], ["y"], name="e")
    graph = helper.make_graph([node], "g", [value], [result])
    with pytest.raises(UnsupportedError, match="the operator is not supported\\nnode 'e'"):
        graph_of(helper.make_model(graph).SerializeToString())


def _external(model: onnx.ModelProto) -> None:
    tensor = initializer(model, "stem.weight")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def _cycle(model: onnx.ModelProto) -> None:
    node(model, "sum").input[0] = "sum"


def _duplicate_node(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[0])


def _duplicate_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def _absurd_dims(model: onnx.ModelProto) -> None:
    initializer(model, "stem.weight").dims[0] = 2**40


def _negative_dims(model: onnx.ModelProto) -> None:
    initializer(model, "stem.weight").dims[0] = -4


def _huge_image(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40


def _float_image(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _string_weight(model: onnx.ModelProto) -> None:
    initializer(model, "stem.weight").data_type = TensorProto.STRING


def _not_a_number(model: onnx.ModelProto) -> None:
    change(model, "branch.offset", lambda x: x * np.nan)


def _metadata(model: onnx.ModelProto, key: str, text: str) -> None:
    next(entry for entry in model.metadata_props if entry.key == key).value = text


def _no_json(model: onnx.ModelProto) -> None:
    _metadata(model, GRAPH_KEY, "{")


def _deep_json(model: onnx.ModelProto) -> None:
    _metadata(model, GRAPH_KEY, "[" * 200_000)


def _empty_json(model: onnx.ModelProto) -> None:
    _metadata(model, GRAPH_KEY, '{"meta":{},"nodes":[]}')


def _future(model: onnx.ModelProto) -> None:
    _metadata(model, VERSION_KEY, "999")


def _other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


def _subgraph(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", [], ["y"], body=model.graph, name="loop"))


def _missing_node(model: onnx.ModelProto) -> None:
    model.graph.node.remove(node(model, "conv"))


def _renamed_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "fc"


def _wrong_padding(model: onnx.ModelProto) -> None:
    next(a for a in node(model, "stem").attribute if a.name == "pads").ints[0] = -(2**40)


@pytest.mark.parametrize(
    "edit",
    [
        _external, _cycle, _duplicate_node, _duplicate_initializer, _absurd_dims, _negative_dims,
        _huge_image, _float_image, _string_weight, _not_a_number, _no_json, _deep_json,
        _empty_json, _future, _other_opset, _subgraph, _missing_node, _renamed_output,
        _wrong_padding,
    ],
)  # fmt: skip
def test_a_hostile_file_is_one_clean_error(written: bytes, edit: Edit) -> None:
    with pytest.raises((InputError, UnsupportedError, GraphError)) as caught:
        graph_of(edited(written, edit))
    assert caught.value.where
