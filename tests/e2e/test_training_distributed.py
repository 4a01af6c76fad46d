"""Two processes under torchrun take the steps of one; only the first of them writes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from bitfold.models import load_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.slow]

# Three steps in float64: what is left of a difference is the order of sums. Sooner or later that
# moves a code across a threshold, in one process with other rounding as in two; both runs are then
# equally right. Weight quantizers round in float32: here they are kept from it. Dropout is left
# out: its masks are drawn in every process for itself.
STEPS_IN_FLOAT64 = """
import sys
import numpy as np
import torch
from torch import nn
from bitfold.models import NetSpec, Preprocessing, TrainConfig, build_network
from bitfold.models.batches import make_batches
from bitfold.models.calibration import calibrate
from bitfold.models.data import LabelledImages
from bitfold.models.distributed import Share, process_group
from bitfold.models.trainer import Trainer

torch.set_num_threads(1)
torch.Tensor.float = lambda tensor: tensor
generator = np.random.default_rng(0)
labels = np.arange(64) % 4
pixels = generator.integers(0, 100, (64, 8, 8, 1)) + 50 * labels[:, None, None, None]
data = LabelledImages(pixels.astype(np.uint8), labels, ("a", "b", "c", "d"))

def trained(method, bits, share):
    role = "supernet" if method == "basq" else "network"
    spec = NetSpec("resnet8", method, (bits, bits), (8, 8, 1), data.class_names,
                   Preprocessing(100, 70), width=0.5)
    config = TrainConfig.for_method(method, bits=(bits, bits), epochs=2, role=role, batch_size=16,
                                    compile=False)
    torch.manual_seed(0)
    model = build_network(spec).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    alone = make_batches(data, config, share=Share())
    calibrate(model, [alone.batch(0)[0].double()], norm_statistics=False)
    trainer = Trainer(model, make_batches(data, config, share=share), config, share=share)
    trainer.network.train()
    for _ in range(3):
        trainer.train_step()
    return {"loss": torch.tensor(trainer.counters.sums.loss), **trainer.model.state_dict()}

with process_group(torch.device("cpu")) as share:
    states = {}
    for name in sys.argv[2:]:
        method, bits = name.split(":")
        states[name] = trained(method, int(bits), share)
    if share.is_first:
        torch.save(states, sys.argv[1])
print("processes", share.size)
"""
METHODS = ["float:32", "pact-sawb:2", "uniq:2", "uniq:1", "sttn:2", "stqn:3", "basq:2"]


def python(*arguments, processes):
    """Run this interpreter, or two of it under torchrun; what it printed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    script = folder / "steps.py"
    script.write_text(STEPS_IN_FLOAT64)
    states = []
    for processes in (1, 2):
        printed = python(script, folder / f"{processes}.pt", *METHODS, processes=processes)
        assert printed.splitlines() == [f"processes {processes}"] * processes
        states.append(torch.load(folder / f"{processes}.pt", weights_only=True))
    return states


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_take_the_steps_of_one(trained, method):
    one, two = (states[method] for states in trained)
    assert one.keys() == two.keys()
    far = {
        name: float((tensor - two[name]).abs().max())
        for name, tensor in one.items()
        if not torch.allclose(tensor, two[name], rtol=1e-6, atol=1e-9)
    }
    assert far == {}


def test_the_command_line_trains_in_two_processes_and_writes_once(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (80, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(80) % 2)
    output = tmp_path / "net.pt"
    printed = python(
        "-m", "bitfold.cli", "train", "--method", "uniq", "--net", "resnet8", "--bits", "2,2",
        "--data", tmp_path / "data.npz", "--width", "0.25", "--epochs", "2", "--batch-size", "16",
        "-o", output, "--log-dir", tmp_path / "log",
        processes=2,
    )  # fmt: skip
    assert printed.count("test accuracy") == 1
    history = load_checkpoint(output).record["history"]
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert (tmp_path / "log" / "net.csv").read_text().count("\n") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "log", "net.pt"]


def test_a_batch_that_does_not_split_is_refused(tmp_path):
    script = tmp_path / "refused.py"
    script.write_text(
        "from bitfold.errors import UsageError\n"
        "from bitfold.models.distributed import Share, check_batch\n"
        "try:\n    check_batch(9, Share(0, 2))\n"
        "except UsageError as error:\n    print(error.what)\n"
    )
    printed = python(script, processes=1)
    assert printed == "a batch of 9 images does not split among 2 processes\n"
