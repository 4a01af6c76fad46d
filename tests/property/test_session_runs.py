"""A session's answer depends on nothing but the graph and the image."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.ir import run_oracle, trace_oracle
from bitfold.kernels import ToWide
from bitfold.runtime import Session, plan_graph
from bitfold.runtime.arena import Lifetime, assign_offsets, reserved_bytes
from bitfold.runtime.plan import buffers_of
from tests.property.strategies import every_op_graph, graphs_with_images, int_graphs

BACKENDS = ["auto", "numba", "oracle"]


@pytest.fixture(scope="module")
def graph():
    return every_op_graph()


@pytest.fixture(scope="module")
def images(graph):
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (257, *graph.input.shape)).astype(np.uint8)


@given(graphs_with_images(), st.sampled_from(BACKENDS), st.integers(1, 3))
def test_every_backend_and_thread_count_equals_the_oracle(drawn, backend, threads):
    graph, images = drawn
    with Session(graph, backend, threads=threads) as session:
        assert np.array_equal(session.run(images), run_oracle(graph, images))


@given(graphs_with_images())
def test_the_default_backend_traces_what_the_oracle_traces(drawn):
    graph, images = drawn
    want, got = trace_oracle(graph, images), Session(graph).trace(images)
    assert {graph.input.name, graph.output.name} <= set(got)
    for name, values in got.items():
        assert np.array_equal(values, want[name]), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 257])
def test_batches_of_any_size_give_the_same_logits(graph, images, backend, threads, count):
    with Session(graph, backend, threads=threads) as session:
        got = session.run(images[:count])
    assert got.shape == (count, 3)
    assert got.dtype == np.float32
    assert np.array_equal(got, run_oracle(graph, images[:count]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_one_session_serves_several_threads_at_once(graph, images, backend, threads):
    want = run_oracle(graph, images)
    with Session(graph, backend, threads=threads) as session, ThreadPoolExecutor(6) as callers:
        slices = [slice(i, i + 40) for i in range(0, 240, 10)]
        answers = list(callers.map(lambda part: session.run(images[part]), slices))
    for part, answer in zip(slices, answers, strict=True):
        assert np.array_equal(answer, want[part])


def test_images_that_are_not_contiguous_are_read_correctly(graph, images):
    turned = images[:9, ::-1, ::-1]
    assert np.array_equal(Session(graph).run(turned), run_oracle(graph, turned))


def test_tracing_no_images_gives_empty_tensors_of_the_same_names(graph, images):
    for backend in BACKENDS:
        session = Session(graph, backend)
        empty, one = session.trace(images[:0]), session.trace(images[:1])
        assert {k: v.shape[1:] for k, v in empty.items()} == {
            k: v.shape[1:] for k, v in one.items()
        }
        assert all(len(v) == 0 for v in empty.values())


lifetimes = st.builds(
    lambda size, first, length: Lifetime(size, first, first + length),
    st.integers(1, 700),
    st.integers(-1, 12),
    st.integers(0, 6),
)


@settings(max_examples=200)
@given(st.lists(lifetimes, max_size=20))
def test_no_two_tensors_alive_at_once_overlap(drawn):
    offsets, arena_bytes = assign_offsets(drawn)
    spans = [(o, o + reserved_bytes(t.num_bytes)) for o, t in zip(offsets, drawn, strict=True)]
    for i, (start, end) in enumerate(spans):
        assert start % 64 == 0
        assert end <= arena_bytes
        assert end - start >= drawn[i].num_bytes + 64
        for j in range(i):
            apart = end <= spans[j][0] or spans[j][1] <= start
            assert apart or not drawn[i].overlaps(drawn[j])


@given(int_graphs())
def test_no_step_of_a_plan_writes_over_a_tensor_that_is_still_read(graph):
    """Simulated byte ownership: who wrote a buffer last, when somebody reads it."""
    plan = plan_graph(graph)
    owner = np.full(plan.arena_bytes, -2)
    owner[plan.input.offset :][: plan.input.num_bytes] = -1
    writers = {}
    for i, step in enumerate(plan.steps):
        add = step.epilogue.add if isinstance(getattr(step, "epilogue", None), ToWide) else None
        reads = [b for b in buffers_of(step) if b is not step.out or b is add]
        for buffer in reads:
            held = owner[buffer.offset :][: buffer.num_bytes]
            assert set(held.tolist()) <= writers.get(buffer.offset, {-1})
            out_end = step.out.offset + reserved_bytes(step.out.num_bytes)
            end = buffer.offset + reserved_bytes(buffer.num_bytes)
            assert end <= step.out.offset or out_end <= buffer.offset
        whole = set(writers.get(step.out.offset, ())) if type(step).__name__ == "CopyStep" else ()
        owner[step.out.offset :][: step.out.num_bytes] = i
        writers[step.out.offset] = {i, *whole}
        assert step.out.offset + reserved_bytes(step.out.num_bytes) <= plan.arena_bytes
