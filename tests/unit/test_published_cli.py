"""The options for published checkpoints on the command line, and the verbs that take them."""

import json

import pytest
import torch

from bitfold.cli import main
from bitfold.cli.published_options import branches_of, published_options
from bitfold.errors import InputError, UsageError
from bitfold.models import PublishedPreprocessing
from tests.published_states import cifar_name, random_network, uniq_state

pytestmark = pytest.mark.torch
NONE = dict.fromkeys(("genome", "edges", "input_shape", "mean", "std", "bits", "calib"))
GIVEN = ("--input", "16x16x3", "--mean", "0.5,0.4,0.3", "--std", "0.25,0.3,0.2")


def options(**given):
    return published_options(**NONE | given)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    fields = {"channels": (3, 4, 5), "stem": "small"}
    model = random_network("resnet8", "uniq", (2, 2), 16, **fields)
    path = tmp_path_factory.mktemp("published") / "net.pth"
    torch.save({"net": uniq_state(model, cifar_name)}, path)
    return path


def test_one_number_counts_for_all_channels():
    given = options(input_shape="32x32x3", mean="0.286", std="0.353")
    assert given.input_shape == (32, 32, 3)
    assert given.preprocessing == PublishedPreprocessing((0.286,) * 3, (0.353,) * 3)


def test_edges_and_bits_become_numbers():
    given = options(edges="16bit", bits="2,4")
    assert (given.edge_bits, given.bits) == (16, (2, 4))


def test_nothing_given_is_nothing():
    given = options()
    assert (given.input_shape, given.preprocessing, given.genome, given.edge_bits) == (None,) * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": "0.5"}, "--mean and --std go together"),
        ({"mean": "0.5,0.4", "std": "0.2"}, "--mean needs one number or 3"),
        ({"mean": "0.5", "std": "a"}, "--std needs one number or 3"),
        ({"mean": "nan", "std": "0.2"}, "--mean needs one number or 3"),
        ({"mean": "0.5", "std": "0"}, "stds"),
        ({"input_shape": "32x32"}, "--input needs HxWxC"),
        ({"edges": "4bit"}, "--edges '4bit' does not exist"),
        ({"bits": "2"}, "--bits needs two numbers"),
        ({"genome": "1,x"}, "--genome needs numbers as in 5,3,2 or a JSON file, got '1,x'"),
    ],
)
def test_text_that_says_nothing_is_a_usage_error(given, message):
    with pytest.raises(UsageError) as caught:
        options(**given)
    assert message in caught.value.what


@pytest.mark.parametrize("text", ['{"genome": [1, 2, 3]}', "[1, 2, 3]"])
def test_a_genome_is_read_from_a_file(tmp_path, text):
    path = tmp_path / "genome.json"
    path.write_text(text, encoding="utf-8")
    assert branches_of(str(path)) == branches_of("1, 2,3") == (1, 2, 3)


@pytest.mark.parametrize("text", ["{", "{}", '{"genome": [1.5]}', '{"genome": "1"}', "3", '"x"'])
def test_a_file_without_a_genome_is_an_input_error(tmp_path, text):
    path = tmp_path / "genome.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"genome\.json"):
        branches_of(str(path))


def test_a_genome_with_bits_a_block_asks_for_training_first(tmp_path):
    path = tmp_path / "genome.json"
    path.write_text('{"genome": [1], "block_bits": [3]}', encoding="utf-8")
    with pytest.raises(UsageError, match="has to be trained first"):
        branches_of(str(path))


def test_export_takes_a_published_checkpoint(checkpoint, tmp_path, capsys):
    output = tmp_path / "net.onnx"
    assert main(["export", str(checkpoint), "-o", str(output), *GIVEN, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["method"], fields["net"]) == ("uniq", "resnet8")
    assert fields["bits"] == {"w": 2, "a": 2}
    assert output.exists()


def test_inspect_takes_a_published_checkpoint(checkpoint, capsys):
    assert main(["inspect", str(checkpoint), *GIVEN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 5


def test_without_preprocessing_the_exit_code_is_2_and_nothing_is_written(
    checkpoint, tmp_path, capsys
):
    output = tmp_path / "net.onnx"
    assert main(["export", str(checkpoint), "-o", str(output)]) == 2
    assert "Give --input HxWxC and --mean, --std" in capsys.readouterr().err
    assert not output.exists()


def test_an_unknown_layout_has_exit_code_3(tmp_path, capsys):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"weight": torch.ones(1)}}, path)
    assert main(["inspect", str(path), *GIVEN]) == 3
    assert "tensors of no known published layout: weight" in capsys.readouterr().err
