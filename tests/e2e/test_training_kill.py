"""A training process killed at an arbitrary moment, or out of disk, goes on to the same weights."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from bitfold.models import load_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.slow]

SCRIPT = """
import sys
from pathlib import Path
from bitfold.errors import OutputError
from bitfold.models import TrainConfig, TrainRequest, train_network

config = TrainConfig(epochs=2, batch_size=50, save_every_s=0.0, compile=False)
request = TrainRequest(net="resnet8", bits=(2, 2), data="embedded", output=Path(sys.argv[1]),
                       config=config, width=0.25, threads=1)
try:
    result = train_network(request, report=lambda p: print(p.step, flush=True))
except OutputError as error:
    sys.exit(f"OutputError: {error}")
print("resumed from", result.resumed_from_step)
"""
NUM_STEPS = 18


def start(output, **options):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "net.pt"
    process = start(output)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert printed.splitlines()[-2:] == [str(NUM_STEPS), "resumed from 0"]
    return load_checkpoint(output).model.state_dict()


def finish(output):
    process = start(output)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    weights = load_checkpoint(output).model.state_dict()
    return int(printed.split()[-1]), weights


def assert_same(first, second):
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("step", [1, 11])
def test_a_killed_process_goes_on_to_the_same_weights(whole, tmp_path, step):
    output = tmp_path / "net.pt"
    with start(output) as process:
        for line in process.stdout:
            if line.strip() == str(step):
                process.send_signal(signal.SIGKILL)
                break
    assert not output.exists()
    resumed_from, weights = finish(output)
    # The state may have been saved, or not, before the signal came.
    assert step - 1 <= resumed_from <= step + 1
    assert_same(whole, weights)


def test_a_file_size_limit_stops_training_and_keeps_nothing_half_written(whole, tmp_path):
    output = tmp_path / "net.pt"

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(output, preexec_fn=limit_files)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "OutputError: cannot write" in errors
    assert list(tmp_path.iterdir()) == []
    assert_same(whole, finish(output)[1])
