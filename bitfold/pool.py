"""Where independent calls run: in this process, in local ones, on Dask or on Ray."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bitfold.errors import InputError, MissingDependencyError, UsageError

Result = TypeVar("Result")
CLUSTER_TODO = "Give --cluster dask:HOST:PORT or --cluster ray."
# Tasks a worker gets between two writes of the state: what a kill can cost.
TASKS_PER_WORKER = 4
CONNECT_S = 10
WATCH_S = 0.5


@dataclass(frozen=True, slots=True)
class Pool:
    """``size`` calls run at once; ``execute`` gives the results of calls in their order."""

    size: int
    execute: Callable[[Sequence[Callable[[], Any]]], list[Any]]

    def run(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """What each call returns, in the order of ``calls``."""
        return self.execute(calls)

    @property
    def batch(self) -> int:
        """How many calls to give to one ``run``."""
        return self.size * TASKS_PER_WORKER


def default_jobs() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def open_pool(jobs: int | None, cluster: str | None) -> Iterator[Pool]:
    """A pool of ``jobs`` local processes (default: one a core), or a cluster's workers.

    Raises UsageError for a malformed ``cluster``, InputError if it cannot be reached, and
    ModuleNotFoundError where joblib, distributed or ray is needed and not installed.
    """
    if cluster is None:
        count = default_jobs() if jobs is None else jobs
        if count == 1:
            yield Pool(1, lambda calls: [call() for call in calls])
            return
        with _local_pool(count) as pool:
            yield pool
        return
    kind, _, address = cluster.partition(":")
    if kind == "dask" and address:
        with _dask_pool(address, jobs) as pool:
            yield pool
    elif kind == "ray":
        with _ray_pool(address, jobs) as pool:
            yield pool
    else:
        raise UsageError(
            f"unknown cluster {cluster!r}", where="option --cluster", todo=CLUSTER_TODO
        )


def _local_pool(jobs: int) -> contextlib.AbstractContextManager[Pool]:
    """Processes of our own, which end with us."""
    return _joblib_pool(jobs, backend="loky", initializer=_end_with, initargs=(os.getpid(),))


@contextlib.contextmanager
def _joblib_pool(jobs: int, **settings: object) -> Iterator[Pool]:
    """Workers of the backend in force, or of the one in ``settings``; kept for all calls."""
    import joblib

    with joblib.Parallel(n_jobs=jobs, batch_size=1, **settings) as parallel:

        def run(calls: Sequence[Callable[[], Any]]) -> list[Any]:
            return list(parallel(joblib.delayed(_called)(call) for call in calls))

        yield Pool(jobs, run)


def _called(call: Callable[[], Result]) -> Result:
    return call()


def _end_with(parent: int) -> None:
    """Let this process end soon after ``parent``: joblib's would wait minutes for a dead one."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _dask_pool(address: str, jobs: int | None) -> Iterator[Pool]:
    import joblib
    from distributed import Client

    try:
        client = Client(f"tcp://{address}", timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers: {error}", where=f"address {address}", todo=CLUSTER_TODO
        ) from error
    with client, joblib.parallel_config(backend="dask", client=client):
        threads = sum(worker["nthreads"] for worker in client.scheduler_info()["workers"].values())
        with _joblib_pool(jobs or max(1, threads)) as pool:
            yield pool


@contextlib.contextmanager
def _ray_pool(address: str, jobs: int | None) -> Iterator[Pool]:
    import joblib

    try:
        import ray
        from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the package 'ray' is not installed", where="option --cluster", todo="pip install ray"
        ) from error
    ray.init(address=address or None, ignore_reinit_error=True)
    register_ray()
    try:
        with joblib.parallel_config(backend="ray"):
            cores = int(ray.cluster_resources().get("CPU", 1))
            with _joblib_pool(jobs or cores) as pool:
                yield pool
    finally:
        ray.shutdown()
