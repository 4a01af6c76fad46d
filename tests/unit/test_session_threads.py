"""Threads of a session: equal results for every number, several callers, idle and busy pools."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bitfold.errors import UsageError
from bitfold.ir import run_oracle
from bitfold.kernels.c_backend import c_rows
from bitfold.runtime import Session
from tests.property.strategies import every_op_graph

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(not c_rows(), reason="the C kernel library is not built"),
]

BATCHES = (0, 1, 2, 3, 5, 8)


@pytest.fixture(scope="module")
def graph():
    return every_op_graph()


@pytest.fixture(scope="module")
def images(graph):
    shape = (max(BATCHES), *graph.input.shape)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def want(graph, images):
    return run_oracle(graph, images)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_results_do_not_depend_on_threads_or_batch(graph, images, want, threads):
    with Session(graph, "c", threads=threads) as session:
        for batch in BATCHES:
            assert np.array_equal(session.run(images[:batch]), want[:batch])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_callers_share_one_session(graph, images, want, threads):
    with Session(graph, "c", threads=threads) as session, ThreadPoolExecutor(6) as callers:
        results = list(callers.map(lambda i: session.run(images[i % 8][None]), range(96)))
    assert all(np.array_equal(got[0], want[i % 8]) for i, got in enumerate(results))


def test_several_sessions_run_at_once(graph, images, want):
    sessions = [Session(graph, "c", threads=threads) for threads in (1, 2, 3)]
    try:
        with ThreadPoolExecutor(6) as callers:
            jobs = [callers.submit(s.run, images[:5]) for _ in range(8) for s in sessions]
        assert all(np.array_equal(job.result(), want[:5]) for job in jobs)
    finally:
        for session in sessions:
            session.close()


def test_a_caller_works_alone_while_the_pool_is_busy(graph, images, want):
    with Session(graph, "c", threads=2) as session:
        stop, wrong = threading.Event(), []

        def keep_busy():
            while not stop.is_set():
                if not np.array_equal(session.run(images[:1]), want[:1]):
                    wrong.append(1)

        other = threading.Thread(target=keep_busy)
        other.start()
        try:
            results = [session.run(images[i % 8][None]) for i in range(200)]
        finally:
            stop.set()
            other.join()
    assert not wrong
    assert all(np.array_equal(got[0], want[i % 8]) for i, got in enumerate(results))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_an_idle_session_closes_and_says_so(graph, images, threads):
    before = threading.active_count()
    for _ in range(20):
        session = Session(graph, "c", threads=threads)
        session.close()
        session.close()
        with pytest.raises(UsageError, match="the session is closed"):
            session.run(images)
    assert threading.active_count() == before


def test_a_session_that_is_let_go_of_leaves_no_thread(graph, images, want):
    for _ in range(5):
        session = Session(graph, "c", threads=3)
        assert np.array_equal(session.run(images[:2]), want[:2])
        del session
    again = Session(graph, "c", threads=2)
    assert np.array_equal(again.run(images[:1]), want[:1])
    again.close()


def trace_until_refused(session, images):
    while True:
        try:
            session.trace(images)
        except UsageError as error:
            return error


@pytest.mark.parametrize("threads", [1, 2])
def test_closing_waits_for_a_call_in_another_thread(graph, images, want, threads, monkeypatch):
    session = Session(graph, "c", threads=threads)
    entered, go_on, order = threading.Event(), threading.Event(), []
    infer = session._infer

    def slow(checked):
        entered.set()
        go_on.wait(30)
        order.append("answered")
        return infer(checked)

    monkeypatch.setattr(session, "_infer", slow)
    with ThreadPoolExecutor(4) as callers:
        answer = callers.submit(session.run, images)
        assert entered.wait(30)
        closings = [callers.submit(lambda: (session.close(), order.append("closed")))
                    for _ in range(2)]  # fmt: skip
        refusals = callers.submit(trace_until_refused, session, images[:1])
        assert "the session is closed" in str(refusals.result(30))
        assert not any(closing.done() for closing in closings)
        go_on.set()
        assert np.array_equal(answer.result(), want)
        for closing in closings:
            closing.result()
    assert order == ["answered", "closed", "closed"]


def test_closing_while_others_call_crashes_nobody(graph, images, want):
    for _ in range(10):
        session, wrong = Session(graph, "c", threads=2), []

        def call(session=session, wrong=wrong):
            try:
                while True:
                    if not np.array_equal(session.run(images[:3]), want[:3]):
                        wrong.append("another answer")
            except UsageError:
                pass

        others = [threading.Thread(target=call) for _ in range(3)]
        for other in others:
            other.start()
        session.run(images[:1])
        session.close()
        for other in others:
            other.join()
        assert not wrong
