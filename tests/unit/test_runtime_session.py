import sys
from types import ModuleType

import numpy as np
import pytest

from bitfold.errors import InputError, UsageError
from bitfold.ir import run_oracle
from bitfold.kernels.program import allocate_arena
from bitfold.runtime import Session, TensorInfo
from tests.property.strategies import every_op_graph


@pytest.fixture(scope="module")
def graph():
    return every_op_graph()


@pytest.fixture(scope="module")
def session(graph):
    return Session(graph, "numba")


@pytest.fixture
def images(graph):
    return np.arange(2 * 36).astype(np.uint8).reshape(2, 6, 6, 1) * 3


def test_the_onnxruntime_habit_works(session, graph, images):
    want = run_oracle(graph, images)
    for names in (None, ["logits"]):
        results = session.run(names, {"image": images})
        assert len(results) == 1
        assert np.array_equal(results[0], want)


def test_inputs_and_outputs_describe_themselves(session):
    assert session.get_inputs() == [TensorInfo("image", ("N", 6, 6, 1), "tensor(uint8)")]
    assert session.get_outputs() == [TensorInfo("logits", ("N", 3), "tensor(float)")]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (np.zeros((2, 6, 6, 1), np.float32), "images are float32 (2, 6, 6, 1), wanted uint8"),
        (np.zeros((2, 6, 5, 1), np.uint8), "(2, 6, 5, 1), wanted uint8 (N, 6, 6, 1)"),
        (np.zeros((6, 6, 1), np.uint8), "Pass images[None] for a batch of one."),
        ([[1, 2]], "images are list, wanted an array uint8 (N, 6, 6, 1)"),
        (None, "images are NoneType"),
    ],
)
def test_wrong_images_are_refused_with_what_is_wanted(session, wrong, text):
    with pytest.raises(InputError) as caught:
        session.run(wrong)
    assert text in str(caught.value)


def test_unknown_feeds_and_outputs_are_refused(session, images):
    with pytest.raises(UsageError, match="The input is 'image', the output 'logits'"):
        session.run(None, {"x": images})
    with pytest.raises(UsageError, match=r"outputs \['probabilities'\]"):
        session.run(["probabilities"], {"image": images})


def test_impossible_sessions_are_refused(graph):
    with pytest.raises(UsageError, match="no backend is called 'gpu'"):
        Session(graph, "gpu")
    with pytest.raises(UsageError, match="threads=0"):
        Session(graph, threads=0)
    with pytest.raises(UsageError, match="no kernel is called 'mmx'"):
        Session(graph, force="mmx")


def test_profile_names_every_step_with_its_kernel(session, graph):
    times = session.profile(repeats=2)
    assert [t.name for t in times] == [step.name for step in session.plan.steps]
    assert [t.kernel for t in times] == list(session.kernels)
    assert times[0].op == "conv2d"
    assert times[0].macs == 6 * 6 * 4 * 9
    assert all(t.ms >= 0 for t in times)


def test_profile_takes_images_but_not_none_of_them(session, images):
    assert len(session.profile(images, repeats=1)) == len(session.plan.steps)
    with pytest.raises(InputError, match="no images to time"):
        session.profile(images[:0])
    with pytest.raises(UsageError, match="repeats=0"):
        session.profile(repeats=0)


def test_the_oracle_backend_has_no_plan(graph):
    with pytest.raises(UsageError, match="the oracle backend has no times per step"):
        Session(graph, "oracle").profile()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_closed_session_says_so(graph, images, threads):
    with Session(graph, "numba", threads=threads) as session:
        session.run(images)
    with pytest.raises(UsageError, match="the session is closed"):
        session.run(images)


def test_a_path_is_read_by_the_onnx_reader(graph, images, monkeypatch, tmp_path):
    export, seen = ModuleType("bitfold.export"), []
    export.read_onnx = lambda path: seen.append(path) or graph
    monkeypatch.setitem(sys.modules, "bitfold.export", export)
    session = Session(str(tmp_path / "model.onnx"), "numba")
    assert seen == [tmp_path / "model.onnx"]
    assert np.array_equal(session.run(images), run_oracle(graph, images))


def test_a_session_shows_its_shape(graph):
    assert repr(Session(graph, "oracle")) == "Session(6x6x1 -> 3, backend='oracle', threads=1)"


def test_arenas_are_aligned():
    for size in (1, 100, 4096):
        arena = allocate_arena(size)
        assert arena.nbytes == size
        assert arena.ctypes.data % 64 == 0
