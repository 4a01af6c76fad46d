"""``verify --replay``: the same certificate again, and the first thing that is not the same."""

import json
import shutil

import numpy as np
import pytest

from bitfold.certify import compare_certificates, read_certificate
from bitfold.cli import main
from bitfold.errors import InputError

pytestmark = [pytest.mark.torch, pytest.mark.ort]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, its ONNX file, images, and a certificate of them all."""
    place = tmp_path_factory.mktemp("replay")
    new = ["new", "--net", "resnet8", "--bits", "2,2", "--width", "0.25", "--input", "8x8x1"]
    assert main([*new, "--classes", "3", "-o", str(place / "net.pt"), "-q"]) == 0
    assert main(["export", str(place / "net.pt"), "-o", str(place / "net.onnx"), "-q"]) == 0
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    np.savez(place / "images.npz", images=images, labels=np.arange(3))
    words = ["verify", str(place / "net.onnx"), "--data", str(place / "images.npz")]
    words += ["--checkpoint", str(place / "net.pt"), "--limit", "2"]
    assert main([*words, "-o", str(place / "certificate.json"), "-q"]) == 0
    return place


def fields_of(folder):
    return json.loads((folder / "certificate.json").read_text())


def replay(capsys, path, *words):
    """(exit code, JSON on stdout or None, error block)."""
    capsys.readouterr()
    code = main(["verify", "--replay", str(path), *map(str, words), "--json"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, json.loads(captured.out) if captured.out else None, captured.err


def saved(tmp_path, fields):
    path = tmp_path / "edited.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return path


def test_a_certificate_is_made_again_where_its_files_were_moved_together(folder, tmp_path, capsys):
    place = tmp_path / "moved"
    shutil.copytree(folder, place)
    fields = fields_of(place)
    for key, suffix in (("model", ".onnx"), ("checkpoint", ".pt")):
        fields["inputs"][key]["path"] = f"elsewhere/net{suffix}"
    fields["inputs"]["data"] = "elsewhere/images.npz"
    path = place / "certificate.json"
    path.write_text(json.dumps(fields))
    code, again, error = replay(capsys, path)
    assert (code, error) == (0, "")
    assert again["replay"]["same"] is True
    assert again["replay"]["changes"] == []
    assert again["stages"] == fields["stages"]


def test_a_stage_that_differs_and_one_that_cannot_run_are_named(folder, tmp_path, capsys):
    fields = fields_of(folder)
    direct = next(s for s in fields["stages"] if s["name"] == "onnxruntime")
    direct["compared"] += 1
    fields["stages"].append(dict(direct, name="c direct:riscv"))
    fields["environment"]["numpy"] = "1.0"
    code, again, error = replay(capsys, saved(tmp_path, fields))
    assert code == 1
    assert "not the same: compared of stage 'onnxruntime': was" in error
    whats = [change["what"] for change in again["replay"]["changes"]]
    assert whats == [
        "compared of stage 'onnxruntime'", "stage 'c direct:riscv'", "environment, numpy"
    ]  # fmt: skip
    assert again["replay"]["changes"][1]["now"] == "cannot be run here"
    assert [change["decides"] for change in again["replay"]["changes"]] == [True, True, False]


def test_a_model_that_changed_is_told_before_anything_runs(folder, tmp_path, capsys):
    other = tmp_path / "net.onnx"
    data = bytearray((folder / "net.onnx").read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    code, again, error = replay(capsys, folder / "certificate.json", other)
    assert code == 1
    assert "SHA-256 of the model" in error
    assert again["stages"] == []
    assert again["ok"] is False
    assert again["replay"]["first"]["was"].startswith(
        fields_of(folder)["inputs"]["model"]["sha256"]
    )


def test_images_that_changed_are_told_before_anything_runs(folder, tmp_path, capsys):
    with np.load(folder / "images.npz") as content:
        images, labels = content["images"].copy(), content["labels"]
    images[1, 7, 7, 0] ^= 1
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    code, _, error = replay(capsys, folder / "certificate.json", "--data", tmp_path / "images.npz")
    assert code == 1
    assert "SHA-256 of the images" in error


def test_files_that_are_gone_say_how_to_name_them(folder, tmp_path, capsys):
    fields = fields_of(folder)
    fields["inputs"]["model"]["path"] = "gone/away.onnx"
    code, again, error = replay(capsys, saved(tmp_path, fields))
    assert (code, again) == (2, None)
    assert "MODEL PATH" in error


@pytest.mark.parametrize("words", [("--limit", "3"), ("--bits", "2,2"), ("--mean", "0.5")])
def test_what_the_certificate_says_is_not_given_again(folder, capsys, words):
    code, _, error = replay(capsys, folder / "certificate.json", *words)
    assert code == 2
    assert words[0] in error


def without(fields, *keys):
    inner = fields
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return fields


def changed(fields, value, *keys):
    inner = fields
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return fields


BROKEN = {
    "empty object": lambda f: {},
    "foreign schema": lambda f: changed(f, "bitfold/bench/1", "schema"),
    "schema a list": lambda f: changed(f, ["x"] * 1000, "schema"),
    "no inputs": lambda f: without(f, "inputs"),
    "inputs a text": lambda f: changed(f, "x", "inputs"),
    "no digest": lambda f: without(f, "inputs", "model", "sha256"),
    "a digest that is none": lambda f: changed(f, "0" * 63, "inputs", "images_sha256"),
    "a path with a zero": lambda f: changed(f, "net\0.onnx", "inputs", "model", "path"),
    "a negative count": lambda f: changed(f, -1, "stages", 0, "compared"),
    "a huge number": lambda f: changed(f, 10**400, "stages", 0, "max_abs_diff"),
    "true as a count": lambda f: changed(f, True, "images"),
    "a stage that is a number": lambda f: changed(f, 7, "stages", 0),
    "no name": lambda f: without(f, "stages", 0, "name"),
    "an index of texts": lambda f: changed(
        f, {"layer": "a", "index": ["0"], "got": 0, "want": 1}, "stages", 0, "first"
    ),
    "an unknown option": lambda f: changed(f, {"exec": "rm"}, "inputs", "options"),
    "no model": lambda f: changed(f, None, "inputs", "model"),
    "a device as model": lambda f: changed(f, "/dev/zero", "inputs", "model", "path"),
}  # fmt: skip


@pytest.mark.parametrize("edit", BROKEN.values(), ids=BROKEN)
def test_a_broken_certificate_is_one_error(folder, tmp_path, capsys, edit):
    path = saved(tmp_path, edit(fields_of(folder)))
    code, again, error = replay(capsys, path)
    assert (code, again) == (2, None)
    assert error.count("error:") == 1
    assert len(error) < 500


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "null", '{"schema": ' + "9" * 5000 + "}", "\0\1\2", "\ud800"]
)
def test_a_file_that_is_no_certificate_is_one_error(tmp_path, capsys, text):
    path = tmp_path / "certificate.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    code, again, error = replay(capsys, path)
    assert (code, again) == (2, None)
    assert error.count("error:") == 1


def test_a_certificate_cut_anywhere_is_one_error(folder, tmp_path):
    text = (folder / "certificate.json").read_text().rstrip()
    path = tmp_path / "cut.json"
    for length in range(0, len(text), max(1, len(text) // 50)):
        path.write_text(text[:length])
        with pytest.raises(InputError):
            read_certificate(path)


class Remade:
    """A certificate just as the file says, but for ``changes``."""

    def __init__(self, recorded, **changes):
        self.inputs, self.stages = recorded.inputs, recorded.stages
        self.environment = recorded.environment
        self.__dict__ |= dict(recorded.facts) | changes


def test_each_field_that_decides_is_compared(folder):
    recorded = read_certificate(folder / "certificate.json")
    assert compare_certificates(recorded, Remade(recorded)) == ()
    for key, value in recorded.facts.items():
        more = [None] if isinstance(value, list) else 1
        again = Remade(recorded, **{key: value + more})
        assert [change.what for change in compare_certificates(recorded, again)] == [key]
