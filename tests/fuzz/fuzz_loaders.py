"""Coverage-guided fuzzing of the loaders with atheris: by hand, `make fuzz`.

    python -m tests.fuzz.fuzz_loaders onnx       --corpus FOLDER -max_total_time=3600
    python -m tests.fuzz.fuzz_loaders checkpoint --corpus FOLDER -max_total_time=3600
    python -m tests.fuzz.fuzz_loaders published  --corpus FOLDER -max_total_time=3600

Arguments that the script does not know are libFuzzer's. A loader may raise InputError,
UnsupportedError, UsageError or GraphError and nothing else, must come back within 5 s, stay below
2 GB and write nothing; what does otherwise is saved by libFuzzer as `crash-…`, `timeout-…` or
`oom-…`, and becomes a test. Half of the mutations are of bytes, half of fields: a node dropped or
doubled, an edge bent, a number made extreme, a checkpoint's pickle changed inside an archive that
stays whole. For published checkpoints the bytes choose which tensors of a sound one are changed,
and how.
"""

import argparse
import contextlib
import io
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import atheris
import torch

with atheris.instrument_imports(include=["bitfold"]):
    import onnx

    from bitfold.errors import GraphError, InputError, UnsupportedError, UsageError
    from bitfold.export import fold_network, onnx_model, read_onnx, survey_onnx
    from bitfold.models import (
        NetSpec,
        Preprocessing,
        PublishedPreprocessing,
        load_checkpoint,
        new_network,
        save_checkpoint,
    )
    from bitfold.models.published import PublishedOptions

from tests.foreign_models import Maker

EXPECTED = (InputError, UnsupportedError, UsageError, GraphError)
EXTREMES = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**63 - 1)
LIMITS = ["-timeout=60", "-rss_limit_mb=2048", "-max_len=200000"]
CPU_SECONDS = 5.0  # of one input; libFuzzer counts wall time, which a busy machine stretches


def small_network():
    """A quantized ResNet-8 of a few kilobytes."""
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(8, 8, 1),
        class_names=("a", "b"),
        preprocessing=Preprocessing(73, 90),
        width=0.25,
    )
    return new_network(spec, seed=0)


def foreign_model() -> bytes:
    """QDQ as other tools write it: padding, an Add of two scales, a mean, a Gemm."""
    make = Maker()
    x = make.qdq("x", 0.02, 119)
    x = make.op("Relu", make.op("Conv", x, make.weight((4, 3, 3, 3)), pads=[1, 1, 1, 1]))
    x = make.op("Add", make.qdq(x, 0.03), make.qdq(x, 0.05, 7))
    x = make.op("Flatten", make.op("GlobalAveragePool", make.qdq(x, 0.03)))
    output = make.op("Gemm", make.qdq(x, 0.01), make.weight((4, 7)))
    return make.model(output, ["n", 3, 6, 5]).SerializeToString()


def onnx_seeds() -> list[bytes]:
    """One file of each profile and one of another tool."""
    graph = fold_network(small_network()).graph
    profiles = ("qcdq", "lowbit", "integer", "qonnx")
    return [foreign_model(), *(onnx_model(graph, profile=profile) for profile in profiles)]


def checkpoint_seeds() -> list[bytes]:
    """A checkpoint of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        save_checkpoint(path, small_network())
        return [path.read_bytes()]


def bend_model(data: bytes, chance: random.Random) -> bytes:
    """One field of an ONNX model changed."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    bend = chance.choice((_bend_nodes, _bend_attribute, _bend_constant))
    bend(graph, chance)
    return model.SerializeToString()


def _bend_nodes(graph: onnx.GraphProto, chance: random.Random) -> None:
    nodes = list(graph.node)
    node, other = chance.choice(nodes), chance.choice(nodes)
    match chance.randrange(4):
        case 0:
            graph.node.remove(node)
        case 1:
            graph.node.append(node)
        case 2 if node.input:
            node.input[chance.randrange(len(node.input))] = chance.choice(
                (*other.output, *other.input, "")
            )
        case _:
            node.op_type = other.op_type


def _bend_attribute(graph: onnx.GraphProto, chance: random.Random) -> None:
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    attribute = chance.choice(attributes)
    if attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(EXTREMES)
    else:
        attribute.i = chance.choice(EXTREMES)


def _bend_constant(graph: onnx.GraphProto, chance: random.Random) -> None:
    tensor = chance.choice(list(graph.initializer))
    match chance.randrange(4):
        case 0 if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(EXTREMES)
        case 1:
            tensor.data_type = chance.randrange(30)
        case 2:
            tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data) + 1)]
        case _:
            tensor.raw_data = bytes(chance.randrange(256) for _ in tensor.raw_data)


def bend_archive(data: bytes, chance: random.Random) -> bytes:
    """One entry of a checkpoint's archive changed, the archive itself whole."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("data.pkl")]
    name = chance.choice(pickles) if chance.random() < 0.8 else chance.choice(list(entries))
    entries[name] = atheris.Mutate(entries[name], len(entries[name]) + 64)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


PUBLISHED = Path(__file__).parents[1] / "data" / "published"
FLOATS = [0.0, -1.0, 1e-45, 1e-20, 3e38, float("inf"), float("nan")]
SHAPES = ((32, 32, 3), (224, 224, 3), (1, 1, 3), (7, 5, 1))


def published_seeds() -> list[bytes]:
    """Each checkpoint with 0 … 3 tensors bent; numbers are taken from the end of the bytes."""
    return [bytes([*range(9), i, 1, 0, i]) for i in range(len(published_files()))]


@cache
def published_files() -> list[Path]:
    """The checkpoints that the papers' own code wrote."""
    return sorted(path for path in PUBLISHED.iterdir() if ".pth" in path.name)


@cache
def published_content(index: int) -> dict[str, object]:
    """What ``torch.load`` gives for one of them."""
    content: dict[str, object] = torch.load(published_files()[index], weights_only=True)
    return content


def bent_checkpoint(data: bytes, path: Path) -> PublishedOptions:
    """Write a published checkpoint with the changes that ``data`` chooses; options to read it."""
    choose = atheris.FuzzedDataProvider(data)
    content = dict(published_content(choose.ConsumeIntInRange(0, len(published_files()) - 1)))
    nested = next((key for key in ("state_dict", "model") if key in content), None)
    tensors = dict(content if nested is None else content[nested])
    shape = SHAPES[choose.ConsumeIntInRange(0, len(SHAPES) - 1)]
    genome = choose.PickValueInList([None, (0,) * 17, (3,) * 17, (-1,), (9,) * 17])
    for _ in range(choose.ConsumeIntInRange(0, 4)):
        name = choose.PickValueInList(sorted(tensors))
        other = choose.PickValueInList(sorted(tensors))
        _bend_tensor(tensors, choose, name=name, other=other)
    torch.save(tensors if nested is None else {**content, nested: tensors}, path)
    numbers = (0.5,) * shape[2]
    return PublishedOptions(shape, PublishedPreprocessing(numbers, numbers), genome=genome)


def _bend_tensor(
    tensors: dict[str, object], choose: atheris.FuzzedDataProvider, *, name: str, other: str
) -> None:
    tensor = tensors[name]
    if not isinstance(tensor, torch.Tensor):
        tensors[name] = choose.PickValueInList([None, "text", -1, float("nan"), {}, []])
        return
    kind = choose.ConsumeIntInRange(0, 7)
    extreme = choose.PickValueInList(FLOATS)
    changes: tuple[Callable[[], object], ...] = (
        lambda: torch.full_like(tensor, extreme) if tensor.is_floating_point() else tensor + 1,
        lambda: tensor.flatten()[: choose.ConsumeIntInRange(0, 9)],
        lambda: tensor.to(choose.PickValueInList([torch.int8, torch.float16, torch.complex64])),
        lambda: tensors[other],
        lambda: tensor.unsqueeze(0).expand(choose.ConsumeIntInRange(0, 300), *tensor.shape),
        lambda: -tensor,
        lambda: extreme,
    )
    if kind == len(changes):
        tensors.pop(name)
        return
    tensors[name] = changes[kind]()


LOADERS = {
    "onnx": (".onnx", (read_onnx, survey_onnx), onnx_seeds, bend_model),
    "checkpoint": (".pt", (load_checkpoint,), checkpoint_seeds, bend_archive),
    "published": (".pth", (load_checkpoint,), published_seeds, None),
}


def main() -> None:
    """Parse, write the seeds, fuzz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loader", choices=LOADERS)
    parser.add_argument("--corpus", type=Path, required=True)
    options, rest = parser.parse_known_args()
    suffix, loads, seeds, bend = LOADERS[options.loader]
    options.corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(seeds()):
        (options.corpus / f"seed{i}{suffix}").write_bytes(seed)
    path = Path(tempfile.mkdtemp()) / f"input{suffix}"

    def test_one_input(data: bytes) -> None:
        started = time.process_time()
        if bend is None:
            options = bent_checkpoint(data, path)
            with contextlib.suppress(*EXPECTED):
                load_checkpoint(path, published=options)
        else:
            path.write_bytes(data)
            for load in loads:
                with contextlib.suppress(*EXPECTED):
                    load(path)
        taken = time.process_time() - started
        assert taken < CPU_SECONDS, f"{taken:.1f} s for one input"
        left = [found.name for found in path.parent.iterdir()]
        assert left == [path.name], f"a loader wrote {left}"

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if bend is not None and chance.random() < 0.5:
            # What is no model any more has no fields to bend.
            with contextlib.suppress(Exception):
                return bend(data, chance)[:max_size]
        return atheris.Mutate(data, max_size)

    arguments = [sys.argv[0], *LIMITS, *rest, str(options.corpus)]
    atheris.Setup(arguments, test_one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
