"""A search killed at random moments, or spread over a cluster, ends as an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from bitfold.models import NetSpec, Preprocessing, new_network, save_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SCRIPT = """
import sys
from pathlib import Path
from bitfold.models.search import EvolutionConfig, Folds, LatencyTable, SearchRequest, search

def table(spec, *, num_blocks):
    return LatencyTable(tuple({2: 1.0, 3: 2.0, 4: 4.0} for _ in range(num_blocks)), 0.5, "made up")

def main(supernet, output, objective, jobs, cluster):
    request = SearchRequest(
        Path(supernet), Path(output), Folds("embedded", 3, 50),
        EvolutionConfig(10, 4, parents=4, mutations=4, crossovers=3),
        objective=objective, measure_latency=table if "latency" in objective else None,
        jobs=int(jobs) or None, cluster=cluster or None,
    )
    result = search(request, report=lambda p: print(p.evaluated, flush=True))
    print("resumed", result.resumed, "of", result.evaluations, flush=True)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""
CLUSTER_SCRIPT = SCRIPT.replace(
    "    main(*sys.argv[1:])",
    """    from distributed import LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        main(*sys.argv[1:], "dask:" + address)""",
)
KILLS = {"accuracy": 5, "accuracy,latency": 2}


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """Random weights; branches that differ."""
    spec = NetSpec(
        "resnet8", "basq", (2, 2), (28, 28, 1), tuple("abcdefghij"), Preprocessing(73, 90),
        width=0.25,
    )  # fmt: skip
    model = new_network(spec, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for unit in model.branch_units():
            for branch in unit.branches.values():
                branch.act.upper_bound.mul_(torch.rand((), generator=generator) + 0.3)
                branch.bn_out.bias.add_(torch.randn(branch.bn_out.bias.shape, generator=generator))
    path = tmp_path_factory.mktemp("supernet") / "supernet.pt"
    save_checkpoint(path, model)
    return path


def start(supernet, output, objective, *, jobs=1, script=SCRIPT, arguments=("",)):
    path = output.with_name("script.py")
    path.write_text(script, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(path), str(supernet), str(output), objective, str(jobs), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def finish(*arguments, **options):
    process = start(*arguments, **options)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed.splitlines()[-1].split()


@pytest.fixture(scope="module")
def whole(supernet, tmp_path_factory):
    """The result's bytes of an undisturbed run, by objective."""
    results = {}
    for objective in KILLS:
        output = tmp_path_factory.mktemp("whole") / "genome.json"
        assert finish(supernet, output, objective)[1] == "0"
        results[objective] = output.read_bytes()
    return results


@pytest.mark.parametrize("objective", KILLS)
def test_kills_and_another_number_of_jobs_change_nothing(supernet, whole, tmp_path, objective):
    output = tmp_path / "genome.json"
    moments = random.Random(objective)
    for turn in range(KILLS[objective]):
        lines = moments.randrange(4)
        process = start(supernet, output, objective, jobs=1 + turn % 2)
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    _, resumed, _, evaluations = finish(supernet, output, objective, jobs=2)
    assert 0 < int(resumed) < int(evaluations)
    assert output.read_bytes() == whole[objective]
    assert sorted(path.name for path in tmp_path.glob("genome*")) == ["genome.json"]


def test_a_dask_cluster_gives_the_same_file(supernet, whole, tmp_path):
    pytest.importorskip("distributed")
    output = tmp_path / "genome.json"
    finish(supernet, output, "accuracy", jobs=0, script=CLUSTER_SCRIPT, arguments=())
    assert output.read_bytes() == whole["accuracy"]


def test_the_file_names_the_winner_where_train_and_export_look(whole):
    for content in map(json.loads, whole.values()):
        assert content["schema"] == "bitfold/search/1"
        assert len(content["genome"]) == 6
        assert [fold["fold"] for fold in content["folds"]] == [0, 1, 2]
        best = content["folds"][content["fold"]]
        assert (best["genome"], best["block_bits"]) == (content["genome"], content["block_bits"])
        assert [step["evaluated"] for step in best["history"]] == [10] * 4
    assert json.loads(whole["accuracy"])["block_bits"] is None
    assert len(json.loads(whole["accuracy,latency"])["pareto"]) > 1
