"""``bitfold explore`` killed at any moment, on other numbers of processes, and on Dask."""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from bitfold.cli.app import main
from bitfold.export import to_onnx
from tests.unit.test_fpga_report import small_graph

CLUSTER_SCRIPT = """import sys
from bitfold.cli.app import main
if __name__ == "__main__":
    from distributed import LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        sys.exit(main([*sys.argv[1:], "--cluster", "dask:" + address]))
"""
KILLS = 2
AXES = ("--vary", "array=4x4,8x4,4x8,8x8", "--vary", "lanes=1,2,4", "--vary", "drain=shared",
        "--vary", "dataflow=os",
        "--vary", "clock_mhz=100,200,300,400", "--vary", "pe=auto,dsp")  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    to_onnx(small_graph(), path)
    return path


def start(model, output, *arguments, script=None):
    program = ["-m", "bitfold.cli"] if script is None else [str(script)]
    return subprocess.Popen(
        [sys.executable, *program, "explore", str(model), *AXES, "-o", str(output), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def finish(*arguments, **options):
    process = start(*arguments, **options)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "points.csv"
    assert main(["explore", str(model), *AXES, "-o", str(output), "--jobs", "1", "-q"]) == 0
    return output.read_bytes()


def test_kills_and_another_number_of_jobs_change_nothing(model, whole, tmp_path):
    output = tmp_path / "points.csv"
    results = tmp_path / "points.csv.results"
    moments = random.Random(1)
    for _ in range(KILLS):
        before = results.stat().st_size if results.exists() else 0
        process = start(model, output, "--jobs", "1")
        while process.poll() is None:
            if results.exists() and results.stat().st_size > before + 200:
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if output.exists():
            break
    with results.open("ab") as stream:
        stream.write(b'{"model": 0, "num')
    finish(model, output, "--jobs", "2")
    assert output.read_bytes() == whole
    lines = results.read_text("utf-8").splitlines()
    assert len(lines) == 1 + 4 * 3 * 4 * 2
    rows = list(csv.DictReader(output.read_text("utf-8").splitlines()))
    assert len(rows) == 4 * 3 * 4 + 4 * 2 * 4  # a DSP block of 2 products takes no single lane


def test_a_dask_cluster_gives_the_same_file(model, whole, tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "script.py"
    script.write_text(CLUSTER_SCRIPT, "utf-8")
    output = tmp_path / "points.csv"
    finish(model, output, script=script)
    assert output.read_bytes() == whole
