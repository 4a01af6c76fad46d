"""The layers of our own plan beside the machine's peak."""

from dataclasses import replace

from bitfold.benchmark.engines import random_images
from bitfold.benchmark.peak import Peak
from bitfold.benchmark.report import BenchOptions, LayerTime, WeightBytes
from bitfold.kernels import AddStep, ConvStep, Step, packed_weight_bytes
from bitfold.runtime import Session

BITS_PER_BYTE = 8


def _least_bytes(step: ConvStep) -> int:
    """Bytes of the weights at bits times parameters."""
    bits = step.weight.size * step.weight_grid.bits
    return -(-bits // BITS_PER_BYTE)


def _touched_bytes(step: Step) -> int:
    """Bytes of input and output, and of weights at their own width."""
    inputs = (step.a, step.b) if isinstance(step, AddStep) else (step.x,)
    weights = _least_bytes(step) if isinstance(step, ConvStep) else 0
    moved: int = sum(buffer.num_bytes for buffer in (*inputs, step.out))
    return moved + weights


def layer_times(
    session: Session, options: BenchOptions, peak: Peak | None
) -> tuple[LayerTime, ...]:
    """Time of each step on one thread, beside the peak."""
    image = random_images(session.graph.input.shape, replace(options, batch=1))
    times = session.profile(image)
    total = sum(step.ms for step in times)
    layers = list[LayerTime]()
    for timed, step in zip(times, session.plan.steps, strict=True):
        rate = timed.macs / timed.ms / 1e6 if timed.ms else 0.0
        per_cycle = rate / peak.clock_ghz if peak and peak.clock_ghz else None
        layers.append(
            LayerTime(
                timed.name, timed.op, timed.kernel, timed.ms, timed.macs, rate,
                timed.ms / total if total else 0.0, _touched_bytes(step), per_cycle,
                rate / peak.gmac_per_s if peak else None,
            )
        )  # fmt: skip
    return tuple(layers)


def weight_bytes(session: Session) -> WeightBytes:
    """Memory of all weights as this machine's kernels have them, and the least it could be."""
    packed = least = 0
    for step, symbol in zip(session.plan.steps, session.kernels, strict=True):
        if isinstance(step, ConvStep):
            packed += packed_weight_bytes(step, symbol)
            least += _least_bytes(step)
    return WeightBytes(packed, least)
