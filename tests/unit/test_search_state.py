"""The state of an unfinished search, and the counting that fills it."""

import functools
import json

import pytest

from bitfold.errors import InputError, UsageError
from bitfold.models.search import Genome, LatencyTable
from bitfold.models.search.state import open_state
from bitfold.pool import Pool, open_pool

IDENTITY = {"seed": 0, "size": (28, 28, 1)}
TABLE = LatencyTable(({2: 0.5, 3: 1.5, 4: 2.5},), 0.25, "a clock")


def filled(path):
    state = open_state(path, IDENTITY)
    state.hits[0, Genome((1, 2))] = 17
    state.hits[3, Genome((1, 2), (4, 2))] = 5
    state.latency = TABLE
    state.save()
    return state


def test_a_fresh_state_knows_nothing(tmp_path):
    state = open_state(tmp_path / "s", IDENTITY)
    assert state.hits == {}
    assert state.latency is None
    assert not (tmp_path / "s").exists()


def test_what_was_saved_is_read_again(tmp_path):
    state = filled(tmp_path / "s")
    again = open_state(tmp_path / "s", IDENTITY)
    assert again.hits == state.hits
    assert again.latency == TABLE


def test_another_search_is_refused_by_the_settings_that_differ(tmp_path):
    filled(tmp_path / "s")
    with pytest.raises(UsageError, match="with other settings: seed\n"):
        open_state(tmp_path / "s", IDENTITY | {"seed": 1})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"format": "bitfold/search-sta'])
def test_a_damaged_state_is_refused(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(InputError, match="state of the search is damaged"):
        open_state(tmp_path / "s", IDENTITY)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": "bitfold/search-state/1"}'])
def test_another_file_is_no_state(tmp_path, content):
    (tmp_path / "s").write_text(content)
    with pytest.raises(InputError, match="not the state of a search"):
        open_state(tmp_path / "s", IDENTITY)


@pytest.mark.parametrize(
    "change", [{"hits": {"0": {"1,x": 3}}}, {"hits": [1]}, {"latency": {"rest": 1}}]
)
def test_damaged_entries_are_refused(tmp_path, change):
    filled(tmp_path / "s")
    content = json.loads((tmp_path / "s").read_text())
    (tmp_path / "s").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match="damaged"):
        open_state(tmp_path / "s", IDENTITY)


def calls(count):
    return [functools.partial(pow, i, 2) for i in range(count)]


def test_one_job_runs_in_this_process():
    with open_pool(1, None) as pool:
        assert isinstance(pool, Pool)
        assert pool.size == 1
        assert pool.run(calls(5)) == [0, 1, 4, 9, 16]


def test_two_jobs_give_results_in_order():
    with open_pool(2, None) as pool:
        assert pool.run(calls(9)) == [i * i for i in range(9)]


@pytest.mark.parametrize("cluster", ["dask", "dask:", "spark:h:1", ""])
def test_an_unknown_cluster_is_refused(cluster):
    with pytest.raises(UsageError, match="unknown cluster"), open_pool(1, cluster):
        pass
