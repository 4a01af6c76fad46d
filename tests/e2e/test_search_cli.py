"""``bitfold search`` as it is typed."""

import json

import pytest

from bitfold.cli import main
from bitfold.cli import search as search_verb
from bitfold.models import NetSpec, Preprocessing, new_network, save_checkpoint
from bitfold.models.search import EvolutionConfig, Folds

pytestmark = pytest.mark.torch

QUICK = (
    *("--data", "embedded", "--folds", "2", "--fold-images", "40", "--jobs", "1"),
    *("--population", "6", "--generations", "2"),
    *("--parents", "2", "--mutations", "2", "--crossovers", "2"),
)


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    spec = NetSpec(
        "resnet8", "basq", (2, 2), (28, 28, 1), tuple("abcdefghij"), Preprocessing(73, 90),
        width=0.25,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("supernet") / "supernet.pt"
    save_checkpoint(path, new_network(spec, seed=0))
    return str(path)


def refused(capsys, *arguments):
    assert main(["search", *arguments]) == 2
    return capsys.readouterr().err


def test_the_options_default_to_the_published_settings():
    defaults = search_verb.search.__kwdefaults__
    config, folds = EvolutionConfig(), Folds("fashion-mnist")
    assert {name: defaults[name] for name in EvolutionConfig.__slots__} == {
        name: getattr(config, name) for name in EvolutionConfig.__slots__
    }
    assert (defaults["folds"], defaults["fold_images"]) == (folds.count, folds.images)
    assert (defaults["data"], defaults["fold_order"]) == (folds.data, folds.order)


def test_json_is_the_file_and_what_this_call_did(supernet, tmp_path, capsys):
    output = tmp_path / "genome.json"
    assert main(["search", supernet, "-o", str(output), *QUICK, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads(output.read_text())
    assert {name: printed[name] for name in stored} == stored
    assert printed["schema"] == "bitfold/search/1"
    assert printed["resumed_evaluations"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["genome.json"]


def test_a_table_lists_every_fold(supernet, tmp_path, capsys):
    assert main(["search", supernet, "-o", str(tmp_path / "g.json"), *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fold", "fitness", "other", "folds", "genome"]
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert lines[3].startswith(f"{tmp_path / 'g.json'}: genome ")


def test_latency_of_an_array_gives_a_front_and_its_plot(supernet, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output, plot = tmp_path / "g.json", tmp_path / "p.png"
    options = ["--objective", "accuracy,latency", "--latency", "fpga:zu3eg", "--plot", str(plot)]
    assert main(["search", supernet, "-o", str(output), *QUICK, *options]) == 0
    stored = json.loads(output.read_text())
    assert stored["latency"]["source"] == "fpga: zu3eg, estimated"
    latencies = [point["latency_ms"] for point in stored["pareto"]]
    assert latencies == sorted(latencies)
    assert set(stored["block_bits"]) <= {2, 3, 4}
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "ms" in capsys.readouterr().out.splitlines()[0].split()


def test_other_settings_do_not_continue_an_interrupted_search(supernet, tmp_path, capsys):
    output = tmp_path / "g.json"
    state = tmp_path / "g.json.state"
    state.write_text(
        '{"format": "bitfold/search-state/1", "identity": {}, "latency": null, "hits": {}}'
    )
    message = refused(capsys, supernet, "-o", str(output), *QUICK)
    assert "an interrupted search lies here, with other settings" in message
    assert state.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "speed"], "--objective 'speed' does not exist"),
        (["--plot", "p.png"], "a search for accuracy alone has no Pareto plot"),
        (["--budget-ms", "1"], "needs the objective accuracy,latency"),
        (["--objective", "accuracy,latency", "--latency", "tpu"], "--latency 'tpu' is not known"),
        (["--fold-order", "sorted"], "--fold-order 'sorted' does not exist"),
        (["--mutations", "60"], "60 mutations and 15 crossovers do not fit"),
        (["--cluster", "spark:h:1"], "unknown cluster 'spark:h:1'"),
    ],
)
def test_a_wrong_option_is_refused(supernet, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    given = [] if options[0] == "--mutations" else QUICK
    text = refused(capsys, supernet, "-o", "g.json", *given, *options)
    assert message in text
    assert not (tmp_path / "g.json").exists()


def test_a_missing_supernet_is_refused(tmp_path, capsys):
    text = refused(capsys, str(tmp_path / "none.pt"), "-o", str(tmp_path / "g.json"))
    assert "the supernet does not exist" in text
