"""The own input of another tool's model: Session, run, check; and models that are refused."""

import json
import time

import numpy as np
import onnx
import pytest

from bitfold import Session
from bitfold.cli import main
from bitfold.errors import BitfoldError, InputError, UsageError
from bitfold.export import onnx_model, read_onnx
from bitfold.export.foreign import read_model, survey_model
from bitfold.export.model_files import graph_of
from bitfold.ir import run_oracle
from bitfold.ir.own_input import InputStep, OwnInput, own_input, without_own_input
from tests.foreign_models import FLOAT, UINT8, Maker

IMAGE = ["n", 3, 6, 5]


def classifier(make, x="x", *, zero=119):
    """x quantized, a convolution, a mean and a Gemm."""
    x = make.qdq(x, 0.02, zero)
    x = make.op("Relu", make.op("Conv", x, make.weight((4, 3, 3, 3)), pads=[1, 1, 1, 1]))
    x = make.op("Flatten", make.op("GlobalAveragePool", make.qdq(x, 0.03)))
    return make.op("Gemm", make.qdq(x, 0.01), make.weight((4, 7)))


def floats(count=4, dims=(3, 6, 5)):
    return np.random.default_rng(0).normal(0, 1, (count, *dims)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    make = Maker()
    onnx.save(make.model(classifier(make), IMAGE), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("backend", ["auto", "numba", "oracle"])
def test_a_session_takes_the_models_own_input(path, backend):
    graph = read_onnx(path)
    want = run_oracle(graph, own_input(graph).to_pixels(floats()))
    with Session(path, backend=backend) as session:
        assert session.get_inputs()[0].name == "x"
        assert session.get_inputs()[0].shape == ("N", 3, 6, 5)
        assert session.get_inputs()[0].type == "tensor(float)"
        assert (session.run(floats()) == want).all()
        assert (session.run(None, {"x": floats()})[0] == want).all()
        assert session.run(floats(0)).shape == (0, 7)
        assert session.trace(floats())["logits"].shape == (4, 7)
        with pytest.raises(UsageError, match="The input is 'x'"):
            session.run(None, {"image": floats()})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 6, 5, 3), np.float32), "wanted float32 \\(N, 3, 6, 5\\)"),
        (np.zeros((1, 3, 6, 5), np.uint8), "values are uint8"),
        (np.full((1, 3, 6, 5), np.nan, np.float32), "a value is NaN"),
        ([1, 2], "values are list"),
    ],
)
def test_another_input_is_refused(path, values, message):
    with Session(path) as session, pytest.raises(InputError, match=message):
        session.run(values)


def test_infinities_saturate():
    own = OwnInput("x", "float32", (2,), channels_last=False, lo=-3, hi=4, scale=0.5)
    values = np.array([[np.inf, -np.inf], [0.25, 0.75]], np.float32)
    assert own.to_pixels(values).reshape(2, 2).tolist() == [[7, 0], [3, 5]]


def test_the_description_of_the_input_survives_its_text():
    steps = (InputStep("SubFrom", (1.5, -2.0), (1, 2)), InputStep("Max", (0.0,), ()))
    own = OwnInput("x", "float32", (2,), False, 0, 1, 0.1, steps, (0.5, 2.0))
    assert OwnInput.from_text(own.to_text()) == own
    with pytest.raises(InputError, match="is damaged"):
        OwnInput.from_text("{}")


def test_a_graph_keeps_its_own_input_in_our_own_files(path):
    graph = read_onnx(path)
    again = graph_of(onnx_model(graph))
    assert own_input(again) == own_input(graph)
    assert own_input(without_own_input(again)) is None


def test_run_takes_the_models_own_input(path, tmp_path):
    np.save(tmp_path / "x.npy", floats())
    out = str(tmp_path / "o.npz")
    assert main(["run", str(path), "--input", str(tmp_path / "x.npy"), "-o", out]) == 0
    graph = read_onnx(path)
    want = run_oracle(graph, own_input(graph).to_pixels(floats()))
    assert (np.load(out)["logits"] == want).all()


def test_images_are_not_taken_for_floats(path, tmp_path, capsys):
    images = np.zeros((2, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.zeros(2, np.int64))
    words = ["run", str(path), "--data", str(tmp_path / "d.npz"), "-o", str(tmp_path / "o.npz")]
    assert main(words) == 2
    assert "raw uint8 pixels" in capsys.readouterr().err


def test_a_model_of_pixels_takes_images(tmp_path):
    make = Maker()
    x = make.op("Div", make.op("Cast", "x", to=1), make.scale(64.0))
    onnx.save(make.model(classifier(make, x), IMAGE, input_type=UINT8), tmp_path / "p.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.zeros(3, np.int64))
    out = str(tmp_path / "o.npz")
    words = ["run", str(tmp_path / "p.onnx"), "--data", str(tmp_path / "d.npz"), "-o", out]
    assert main(words) == 0
    with Session(tmp_path / "p.onnx") as session:
        want = session.run(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    assert (np.load(out)["logits"] == want).all()


def test_check_says_how_every_node_is_lowered(path, capsys):
    assert main(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "bitfold/check/1"
    assert found["supported"] is True
    assert all(node["supported"] and node["how"] for node in found["nodes"])
    assert "folded into bias and padding" in str(found["nodes"])


def test_check_names_what_is_not_supported_and_what_to_do(tmp_path, capsys):
    make = Maker()
    x = make.op("Erf", make.qdq("x", 0.02, 119))
    onnx.save(make.model(classifier(make, x), IMAGE), tmp_path / "e.onnx")
    assert main(["check", str(tmp_path / "e.onnx"), "--json"]) == 3
    shown = capsys.readouterr()
    nodes = json.loads(shown.out)["nodes"]
    wrong = [node for node in nodes if node["status"] == "unsupported"]
    assert [node["op"] for node in wrong] == ["Erf"]
    assert wrong[0]["todo"]
    assert any(node["status"] == "unreached" for node in nodes)
    assert "(Erf)" in shown.err


def test_check_knows_our_own_files(path, tmp_path, capsys):
    (tmp_path / "ours.onnx").write_bytes(onnx_model(read_onnx(path)))
    assert main(["check", str(tmp_path / "ours.onnx"), "--json"]) == 0
    assert all(node["supported"] for node in json.loads(capsys.readouterr().out)["nodes"])


def float_weight(make):
    w = make.const(make.random.normal(0, 1, (4, 3, 3, 3)).astype(np.float32))
    return make.op("Conv", make.qdq("x", 0.02, 119), w)


def float_input(make):
    return make.op("Conv", "x", make.weight((4, 3, 3, 3)))


def dynamic(make):
    return make.op("DynamicQuantizeLinear", "x")


def product(make):
    x = make.qdq("x", 0.02, 119)
    return make.op("Mul", x, x)


def sixteen_bits(make):
    return make.qdq("x", 0.02, 0, "INT16")


def two_quantizers(make):
    return make.op("Add", make.qdq("x", 0.02, 119), make.qdq("x", 0.03, 119))


def mixed_reshape(make):
    x = make.op("Reshape", make.qdq("x", 0.02, 119), make.const(np.array([0, 9, 10])))
    return make.op("Relu", x)


def zero_scale(make):
    return make.qdq("x", 0.0, 0)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (float_weight, "is float32, not quantized"),
        (float_input, "the float input, which is not quantized"),
        (dynamic, "scales that depend on the image"),
        (product, "Mul of two tensors of the network"),
        (sixteen_bits, "activations of 65536 levels"),
        (two_quantizers, "quantized in two different ways"),
        (mixed_reshape, "takes dimensions apart"),
        (zero_scale, "a scale is not positive"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_is_not_supported_is_said_with_its_node(case, message):
    make = Maker()
    model = make.model(case(make), IMAGE)
    with pytest.raises(BitfoldError, match=message) as caught:
        read_model(model)
    assert caught.value.exit_code == 3
    assert "node '" in caught.value.where
    assert caught.value.todo


def plain_model():
    make = Maker()
    return make.model(classifier(make), IMAGE)


def cyclic(model):
    model.graph.node[2].input[0] = model.graph.node[-1].output[0]


def undefined(model):
    model.graph.node[2].input[0] = "nowhere"


def defined_twice(model):
    model.graph.node[2].output[0] = model.graph.node[1].output[0]


def negative_dims(model):
    next(t for t in model.graph.initializer if len(t.dims) == 4).dims[0] = -4


def absurd_dims(model):
    next(t for t in model.graph.initializer if len(t.dims) == 4).dims[0] = 2**60


def absurd_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


def open_height(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"


def two_inputs(model):
    model.graph.input.append(onnx.helper.make_tensor_value_info("y", FLOAT, IMAGE))


def strings(model):
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.STRING, [1], [b"x"]))


def not_finite(model):
    tensor = model.graph.initializer[0]
    array = np.array(np.inf, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def outside(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def negative_pads(model):
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute[0].ints[:] = [-1, -1, -1, -1]


def wrong_attribute(model):
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute[0].CopyFrom(onnx.helper.make_attribute("pads", "many"))


def huge_pads(model):
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute[0].ints[:] = [2**30] * 4


DAMAGES = [
    cyclic, undefined, defined_twice, negative_dims, absurd_dims, absurd_input, open_height,
    two_inputs, strings, not_finite, outside, negative_pads, wrong_attribute, huge_pads,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_model_gives_one_error(damage, tmp_path, capsys):
    model = plain_model()
    damage(model)
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    for verb in ("check", "inspect"):
        assert main([verb, str(path)]) in (2, 3)
        shown = capsys.readouterr().err
        assert "error:" in shown
        assert "a bug in bitfold" not in shown
        assert "Traceback" not in shown


def test_external_data_is_read_from_the_models_folder_alone(tmp_path, path):
    model = onnx.load(path)
    onnx.save(
        model, tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0
    )
    assert read_onnx(tmp_path / "e.onnx").nodes == read_onnx(path).nodes
    (tmp_path / "sub").mkdir()
    (tmp_path / "e.onnx").rename(tmp_path / "sub" / "e.onnx")
    (tmp_path / "sub" / "e.data").symlink_to(tmp_path / "e.data")
    with pytest.raises(InputError, match="no file in the model's folder"):
        read_onnx(tmp_path / "sub" / "e.onnx")


def test_every_truncation_gives_one_error(path, tmp_path):
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 97):
        with pytest.raises(BitfoldError):
            graph_of(data[:length])


def test_random_bytes_in_a_model_never_give_another_error(path):
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 3):
            changed[place] = random.integers(0, 256)
        try:
            survey_model(onnx.ModelProto.FromString(bytes(changed)))
        except BitfoldError:
            continue
        except Exception as error:
            if type(error).__name__ != "DecodeError":
                raise


def test_a_million_nodes_are_refused_at_once(tmp_path):
    graph = onnx.GraphProto()
    chain = [onnx.NodeProto(op_type="Relu", input=["a"], output=["b"])] * 1_000_000
    graph.node.extend(chain)
    data = onnx.ModelProto(graph=graph).SerializeToString()
    (tmp_path / "many.onnx").write_bytes(data)
    began = time.process_time()
    with pytest.raises(BitfoldError, match="nodes"):
        read_onnx(tmp_path / "many.onnx")
    assert time.process_time() - began < 5
