"""The trained network beside its integer graph: code flips, layer by layer.

Two comparisons, both of activation codes. *Free running*: the fake-quantized network as it was
trained, float32, each layer fed by the float layer before it; a flip travels on. *Layer by layer*:
the network in float64 where each quantizer's output is replaced by the integer graph's codes, so
that every layer answers for itself alone; a layer folded into exact thresholds must not flip.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfold.ir import CodeTensor, IntArray, IntGraph
from bitfold.models import ActivationQuantizer

BATCH = 100


@dataclass(frozen=True, slots=True)
class LayerFlips:
    """Codes of one quantizer that differ from the integer graph's, out of ``compared``.

    ``first`` is the index of the first, where the network has ``got`` and the graph ``want``.
    """

    name: str
    flips: int
    compared: int
    max_abs_diff: int
    first: tuple[int, ...] | None
    got: int = 0
    want: int = 0

    def shifted(self, offset: int) -> "LayerFlips":
        """The same flips for a batch that starts at image ``offset``."""
        if self.first is None:
            return self
        return replace(self, first=(self.first[0] + offset, *self.first[1:]))


def to_pixels(images: NDArray[np.uint8], dtype: torch.dtype) -> Tensor:
    """(N, H, W, C) uint8 → (N, C, H, W) of ``dtype``."""
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C")).to(dtype)


def _channels_last(codes: Tensor) -> IntArray:
    array = codes.numpy().astype(np.int64)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _channels_first(codes: IntArray) -> IntArray:
    return codes.transpose(0, 3, 1, 2) if codes.ndim == 4 else codes


def _quantizers(model: nn.Module) -> dict[str, ActivationQuantizer]:
    return {n: m for n, m in model.named_modules() if isinstance(m, ActivationQuantizer)}


def _observe(
    model: nn.Module, pixels: Tensor, forced: Mapping[str, IntArray] | None
) -> tuple[dict[str, IntArray], NDArray[np.float32]]:
    """Codes at every quantizer (NHWC) and the logits; ``forced`` codes replace the outputs."""
    seen: dict[str, IntArray] = {}
    handles = []
    for name, quantizer in _quantizers(model).items():

        def hook(
            module: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name
        ) -> Tensor:
            assert isinstance(module, ActivationQuantizer)
            seen[name] = _channels_last(module.codes(args[0]))
            if forced is None:
                return output
            codes = torch.from_numpy(np.array(_channels_first(forced[name]), order="C"))
            scales = torch.tensor([float(s) for s in module.exact_scales()], dtype=torch.float64)
            shaped = scales.view(1, -1, *[1] * (output.dim() - 2)).to(output.dtype)
            replaced: Tensor = codes.reshape(output.shape).to(output.dtype) * shaped
            return replaced

        handles.append(quantizer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            logits = model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits.float().numpy()


def _flips(name: str, got: IntArray, want: IntArray) -> LayerFlips:
    got = got.reshape(want.shape)
    difference = np.abs(got - want)
    wrong = np.argwhere(difference)
    if not len(wrong):
        return LayerFlips(name, 0, want.size, 0, None)
    first = tuple(int(i) for i in wrong[0])
    return LayerFlips(
        name, len(wrong), want.size, int(difference.max()),
        first, int(got[first]), int(want[first]),
    )  # fmt: skip


def merge_flips(parts: list[LayerFlips]) -> LayerFlips:
    """Sum of one layer's flips over batches; ``first`` is the earliest."""
    earliest = next((part for part in parts if part.first is not None), parts[0])
    return replace(
        earliest,
        flips=sum(part.flips for part in parts),
        compared=sum(part.compared for part in parts),
        max_abs_diff=max(part.max_abs_diff for part in parts),
    )


def quantizer_names(graph: IntGraph, model: nn.Module) -> tuple[str, ...]:
    """Quantizers of ``model`` that appear in ``graph`` under the same name, in graph order."""
    wanted = _quantizers(model)
    return tuple(
        n.name
        for n in graph.nodes
        if n.name in wanted and isinstance(graph.types[n.name], CodeTensor)
    )


def compare_codes(
    model: nn.Module,
    names: tuple[str, ...],
    images: NDArray[np.uint8],
    *,
    codes: Mapping[str, IntArray],
    layer_by_layer: bool,
) -> tuple[tuple[LayerFlips, ...], NDArray[np.float32]]:
    """Flips of every quantizer in ``names`` against ``codes``, and the float network's logits."""
    dtype = torch.float64 if layer_by_layer else torch.float32
    network = copy.deepcopy(model).eval().to(dtype)
    parts: dict[str, list[LayerFlips]] = {name: [] for name in names}
    logits = []
    for start in range(0, len(images), BATCH):
        chunk = slice(start, start + BATCH)
        want = {name: codes[name][chunk] for name in names}
        forced = want if layer_by_layer else None
        seen, answers = _observe(network, to_pixels(images[chunk], dtype), forced)
        logits.append(answers)
        for name in names:
            parts[name].append(_flips(name, seen[name], want[name]).shifted(start))
    return tuple(merge_flips(parts[name]) for name in names), np.concatenate(logits)
