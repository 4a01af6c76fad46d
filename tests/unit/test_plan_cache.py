"""Kept plans: what a second start does without, and what a file in the cache may not do."""

import json
import os
import subprocess
import sys
from functools import reduce
from hashlib import sha256
from operator import getitem
from pathlib import Path

import numpy as np
import pytest

from bitfold.errors import InputError
from bitfold.export import to_onnx
from bitfold.ir import run_oracle, to_text
from bitfold.kernels.c_backend import c_rows
from bitfold.runtime import Session, plan_cache
from bitfold.runtime.plan_file import HEAD_BYTES, MAGIC, file_bytes, read_file
from tests.property.strategies import every_op_graph

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

PROBE = """
import sys
import numpy as np
from bitfold import Session
with Session(sys.argv[1]) as session:
    logits = session.run(np.load(sys.argv[2]))
np.save(sys.argv[3], logits)
print(*sorted({'onnx', 'onnx_ir', 'torch', 'numba', 'rich', 'typer'} & set(sys.modules)))
print(*sorted(name for name in sys.modules if name.startswith(('bitfold.export', 'bitfold.ir'))))
"""


@pytest.fixture(scope="module")
def graph():
    return every_op_graph()


@pytest.fixture
def images(graph):
    shape = (3, *graph.input.shape)
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFOLD_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("BITFOLD_TUNE", "BITFOLD_FORCE_KERNEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def model(graph, folder, tmp_path):
    path = tmp_path / "model.onnx"
    to_onnx(graph, path)
    return path


@pytest.fixture
def kept(model, folder):
    """The file in the cache with the plan of ``model``."""
    Session(model).close()
    [path] = folder.glob("plan-*.bin")
    return path


@pytest.fixture
def reads(monkeypatch):
    """How often an ONNX file was read."""
    import bitfold.export

    seen, read = [], bitfold.export.read_onnx
    monkeypatch.setattr(bitfold.export, "read_onnx", lambda path: seen.append(path) or read(path))
    return seen


def test_a_second_session_reads_no_model_and_answers_the_same(model, kept, reads, graph, images):
    want = run_oracle(graph, images)
    for threads in (1, 3):
        with Session(model, threads=threads) as session:
            assert np.array_equal(session.run(images), want)
            assert session.get_inputs()[0].shape == ("N", *graph.input.shape)
            assert session.get_outputs()[0].shape == ("N", want.shape[1])
            assert repr(session).startswith("Session(6x6x1 -> 3, ")
    assert reads == []


def test_a_kept_plan_traces_and_profiles_as_a_new_one(model, kept, reads, images):
    with Session(model) as again, Session(model, tune="off") as anew:
        del reads[:]
        first, second = again.trace(images), anew.trace(images)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert all(first[name].dtype == second[name].dtype for name in first)
        shown = [(t.name, t.op, t.macs) for t in again.profile(images, repeats=1)]
        assert shown == [(t.name, t.op, t.macs) for t in anew.profile(images, repeats=1)]
        assert reads == []


def test_the_graph_is_read_again_when_asked_for(model, kept, reads, graph):
    session = Session(model)
    assert to_text(session.graph) == to_text(graph)
    assert session.graph is session.graph
    assert [step.name for step in session.plan.steps] == [t.name for t in session.profile()]
    assert len(reads) == 1


def test_a_given_graph_stays_the_caller_s_and_is_not_kept(graph, folder):
    with Session(graph) as session:
        assert session.graph is graph
    assert not list(folder.glob("plan-*"))


def test_a_file_that_changed_or_went_is_not_mistaken_for_the_model(model, kept):
    session = Session(model)
    model.write_bytes(model.read_bytes() + b"\x72\x00")
    with pytest.raises(InputError, match="the file has changed since it was opened"):
        _ = session.graph
    model.unlink()
    with pytest.raises(InputError, match="cannot read the file"):
        _ = session.graph


def test_another_model_has_a_plan_of_its_own(model, kept, folder):
    model.write_bytes(model.read_bytes() + b"\x72\x00")  # an empty doc string
    with Session(model):
        assert len(list(folder.glob("plan-*.bin"))) == 2


@pytest.mark.parametrize(
    "options", [{"tune": "off"}, {"force": "scalar"}, {"backend": "numba"}, {"backend": "oracle"}]
)
def test_only_chosen_rows_of_c_are_kept(model, folder, options):
    Session(model, **options).close()
    assert not list(folder.glob("plan-*"))


def test_a_forced_row_does_not_come_from_a_kept_plan(model, kept, monkeypatch):
    monkeypatch.setenv("BITFOLD_FORCE_KERNEL", "scalar")
    with Session(model) as session:
        assert {symbol.rpartition("__")[2] for symbol in session.kernels} == {"scalar"}


def test_a_choice_that_was_not_timed_is_not_kept(model, folder):
    with Session(model, tune="cached") as session:
        untimed = [why for why in session.kernel_reasons if why.endswith("not timed")]
    assert bool(list(folder.glob("plan-*"))) == (not untimed)


def test_without_its_times_a_choice_is_made_anew(model, kept, reads, folder):
    with Session(model) as session:
        if not any(why.startswith("remembered") for why in session.kernel_reasons):
            pytest.skip("nothing is timed on this machine")
    [times] = folder.glob("kernels-*.json")
    times.unlink()
    Session(model).close()
    assert reads == [model]


def test_code_that_changed_makes_plans_anew(model, kept, reads, monkeypatch):
    monkeypatch.setattr(plan_cache, "_code_stamp", lambda: "another")
    Session(model).close()
    assert reads == [model]


def signed(rest):
    return MAGIC + sha256(rest).digest() + rest


def edited(path, change):
    """The file with its description changed and its digest right again."""
    document, arrays = read_file(path)
    del document["arrays"]
    change(document)
    return file_bytes(document, arrays)


def step_of(document, start):
    return next(s for s in document["program"]["steps"] if s["row"].startswith(start))


def conv_of(document):
    return step_of(document, "bf_conv2d")


DAMAGES = {
    "empty": lambda data: b"",
    "short": lambda data: data[:HEAD_BYTES],
    "cut": lambda data: data[:-64],
    "longer": lambda data: data + bytes(64),
    "flipped": lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:],
    "another magic": lambda data: b"bitfold plan 2\n\0" + data[len(MAGIC) :],
    "no json": lambda data: signed((9).to_bytes(16, "little") + b"{" * 99),
    "deep json": lambda data: signed((9**6).to_bytes(16, "little") + b"[" * 9**6),
    "long json": lambda data: signed(b"\xff" * 16 + b"{}"),
    "a list": lambda data: signed((2).to_bytes(16, "little") + b"[]" + bytes(46)),
}

EDITS = {
    "another model": lambda d: d["identity"].update(model="00"),
    "another cpu": lambda d: d["identity"].update(cpu="another"),
    "another library": lambda d: d["identity"].update(library="00"),
    "no program": lambda d: d.pop("program"),
    "no steps": lambda d: d["program"].update(steps=[]),
    "a number for steps": lambda d: d["program"].update(steps=7),
    "a lost step": lambda d: d["program"]["steps"].pop(),
    "an unknown row": lambda d: conv_of(d).update(row="bf_conv2d_magic__avx9"),
    "an unknown field": lambda d: conv_of(d)["fields"].update(colour=1),
    "a pointer as a number": lambda d: conv_of(d)["fields"].update(weight=4096),
    "a kernel": lambda d: conv_of(d)["fields"].update(kernel=4096),
    "an array for a number": lambda d: conv_of(d)["fields"].update(h=[0]),
    "a fraction": lambda d: conv_of(d)["fields"].update(h=1.5),
    "a huge number": lambda d: conv_of(d)["fields"].update(h=1 << 70),
    "a negative number": lambda d: conv_of(d)["fields"].update(h=-1),
    "a struct not asked for": lambda d: d["program"]["steps"][0].update(
        extra=None if "extra" in d["program"]["steps"][0] else {}
    ),
    "no such array": lambda d: conv_of(d)["fields"].update(weight=[10**6]),
    "another array": lambda d: conv_of(d)["fields"].update(bias=conv_of(d)["fields"]["weight"]),
    "a small arena": lambda d: d["program"].update(arena_bytes=64),
    "an image elsewhere": lambda d: d["program"]["input"].__setitem__(0, 1 << 40),
    "an odd place": lambda d: d["program"]["input"].__setitem__(0, 1),
    "an image of floats": lambda d: d["program"]["input"].__setitem__(1, "f32"),
    "no image": lambda d: d["outline"].update(image="nothing"),
    "a tensor elsewhere": lambda d: next(iter(d["outline"]["tensors"].values()))[0].__setitem__(
        0, 1 << 40
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_passed_over_and_replaced(model, kept, reads, graph, images, name):
    kept.write_bytes(DAMAGES[name](kept.read_bytes()))
    passed_over(model, kept, reads, graph, images)


@pytest.mark.parametrize("name", EDITS)
def test_a_forged_file_is_passed_over_and_replaced(model, kept, reads, graph, images, name):
    kept.write_bytes(edited(kept, EDITS[name]))
    passed_over(model, kept, reads, graph, images)


def places(value, path=()):
    """Every place in a JSON value: the keys and indexes that lead there."""
    entries = ()
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        yield from (place for key, entry in entries for place in places(entry, (*path, key)))
    if path:
        yield path


def test_no_value_in_any_place_stops_a_start(model, kept, monkeypatch):
    content = read_file(kept)
    key = plan_cache.plan_key(sha256(model.read_bytes()).hexdigest())
    monkeypatch.setattr(plan_cache, "read_file", lambda path: content)
    assert plan_cache.recall(key, threads=1) is not None
    del content[0]["arrays"]  # which is for ``read_file`` alone
    for *way, last in list(places(content[0])):
        holder = reduce(getitem, way, content[0])
        good = holder[last]
        for other in (None, {}, [], "text", -1, 1.5, [None], {"text": None}):
            holder[last] = other
            plan_cache.recall(key, threads=1)  # None, or a plan within its bounds
        holder[last] = good
    assert plan_cache.recall(key, threads=1) is not None


def passed_over(model, kept, reads, graph, images):
    for expected in ([model], [model]):
        with Session(model) as session:
            assert np.array_equal(session.run(images), run_oracle(graph, images))
        assert reads == expected  # once, and the next session finds a good file again


def test_an_edit_that_changes_nothing_is_believed(model, kept, reads):
    kept.write_bytes(edited(kept, lambda document: None))
    Session(model).close()
    assert reads == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no modes here")
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_passed_over(model, kept, reads, mode):
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.chmod(mode)
    Session(model).close()
    assert reads == [model]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
def test_a_file_of_another_user_is_passed_over(model, kept, reads, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: kept.stat().st_uid + 1)
    Session(model).close()
    assert reads == [model]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_folder_in_the_place_of_the_file_stops_nothing(model, kept, reads, images):
    kept.unlink()
    for make, unmake in ((os.mkfifo, Path.unlink), (os.mkdir, Path.rmdir)):
        make(kept)
        with Session(model) as session:
            assert len(session.run(images)) == len(images)
        unmake(kept)
    assert len(reads) == 2


def test_without_a_place_to_write_nothing_is_kept(model, tmp_path, monkeypatch, images):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("BITFOLD_CACHE_DIR", str(blocked / "below"))
    with Session(model) as session:
        assert len(session.run(images)) == len(images)
    for name in ("BITFOLD_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with Session(model) as session:
        assert len(session.run(images)) == len(images)


def test_old_plans_make_room(model, kept, folder, monkeypatch):
    old = folder / "plan-0000.bin"
    old.write_bytes(bytes(1000))
    os.utime(old, (1, 1))
    monkeypatch.setattr(plan_cache, "MOST_KEPT_BYTES", kept.stat().st_size + 500)
    kept.unlink()
    Session(model).close()
    assert [path.name for path in folder.glob("plan-*")] == [kept.name]


def test_arrays_of_every_type_come_back(tmp_path):
    path = tmp_path / "file"
    arrays = [np.arange(6).astype(t).reshape(2, 3) for t in ("int8", "uint16", "float32")]
    path.write_bytes(file_bytes({"a": 1}, [arrays[0], arrays[2], np.zeros((0, 4), np.int64)]))
    path.chmod(0o600)
    document, (first, second, empty) = read_file(path)
    assert document["a"] == 1
    assert np.array_equal(first, arrays[0])
    assert np.array_equal(second, arrays[2])
    assert empty.shape == (0, 4)
    assert all(a.ctypes.data % 64 == 0 for a in (first, second))
    path.write_bytes(file_bytes({}, [arrays[1]]))
    with pytest.raises(ValueError, match="not an array"):
        read_file(path)


@pytest.mark.parametrize(
    "place", [["int8", 64, 9**9], ["int8", -64, 1], ["int8", 1, 1], ["int8", 0, -1], ["O", 0, 1]]
)
def test_an_array_outside_the_file_is_refused(tmp_path, place):
    text = json.dumps({"arrays": [place]}).encode()
    rest = len(text).to_bytes(16, "little") + text + bytes(256)
    path = tmp_path / "file"
    path.write_bytes(signed(rest))
    path.chmod(0o600)
    with pytest.raises(ValueError, match=r"not an array|outside the file"):
        read_file(path)


def test_a_process_with_a_kept_plan_loads_no_reader(model, kept, images, graph, tmp_path):
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, model, tmp_path / "images.npy", tmp_path / "logits.npy"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["", ""]
    assert np.array_equal(np.load(tmp_path / "logits.npy"), run_oracle(graph, images))
