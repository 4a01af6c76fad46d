"""What quantization costs in training: one step of ResNet-20, quantized against float; JSON.

    python benchmarks/training_speed.py -o benchmarks/results/training_speed.json

The float twin has the same topology with its quantizers taken out (PACT becomes ReLU, weights pass
through). Steps of both are interleaved; ratios are of medians from one run.
"""

import argparse
import json
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bitfold.benchmark import cpu_name
from bitfold.models import LabelledImages, NetSpec, Preprocessing, TrainConfig, build_network
from bitfold.models.batches import make_batches
from bitfold.models.distributed import Share
from bitfold.models.quantizers import PactActivation
from bitfold.models.trainer import Trainer

WARM_UP, STEPS_A_TURN, BATCH = 3, 5, 128


def without_quantizers(model: nn.Module) -> nn.Module:
    """``model`` with every quantizer replaced by its float counterpart, in place."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, PactActivation):
                setattr(module, name, nn.ReLU())
            elif name == "weight_quantizer":
                setattr(module, name, nn.Identity())
    return model


def trainer_of(bits: tuple[int, int], *, quantized: bool, compiled: bool) -> Trainer:
    """A trainer on random images, ready for its first step."""
    classes = tuple(str(i) for i in range(10))
    spec = NetSpec.with_default_grid(
        net="resnet20",
        method="pact-sawb",
        bits=bits,
        input_shape=(28, 28, 1),
        class_names=classes,
        preprocessing=Preprocessing(73, 90),
    )
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH * 8, 28, 28, 1), dtype=np.uint8)
    labels = generator.integers(0, 10, BATCH * 8)
    torch.manual_seed(0)
    model = build_network(spec)
    config = TrainConfig(epochs=10**6, batch_size=BATCH, compile=compiled)
    chosen = model if quantized else without_quantizers(model)
    data = LabelledImages(images, labels, classes)
    return Trainer(chosen, make_batches(data, config, share=Share()), config)


def turn(trainer: Trainer) -> list[float]:
    """Seconds of a few steps in a row."""
    times = []
    for _ in range(STEPS_A_TURN):
        start = time.perf_counter()
        trainer.train_step()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Parse, time, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=6)
    options = parser.parse_args()
    trainers = {
        "float compiled": trainer_of((2, 2), quantized=False, compiled=True),
        "W2A2 compiled": trainer_of((2, 2), quantized=True, compiled=True),
        "W4A4 compiled": trainer_of((4, 4), quantized=True, compiled=True),
        "W2A2 eager": trainer_of((2, 2), quantized=True, compiled=False),
    }
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        for _ in range(WARM_UP):
            trainer.train_step()
    for _ in range(options.turns):
        for name, trainer in trainers.items():
            times[name] += turn(trainer)
    median = {name: statistics.median(values) for name, values in times.items()}
    document = {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "batch": BATCH,
        "steps": STEPS_A_TURN * options.turns,
        "median_ms": {name: value * 1e3 for name, value in median.items()},
        "min_ms": {name: min(values) * 1e3 for name, values in times.items()},
        "ratio_to_float": {
            name: value / median["float compiled"] for name, value in median.items()
        },
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
