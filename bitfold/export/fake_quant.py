"""The trained network beside its integer graph: code flips, layer by layer.

Two comparisons, both of activation codes. *Free running*: the fake-quantized network as it was
trained, each layer fed by the float layer before it; a flip travels on. *Layer by layer*: each
quantizer's output is replaced by the integer graph's codes, so that every layer answers for itself
alone. In float64 a layer folded into exact thresholds must not flip; in float32 it may, where the
value lies within float32 rounding of a crossing.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfold.ir import CodeTensor, IntArray, IntGraph
from bitfold.models import ActivationQuantizer

Precision = Literal["float32", "float64"]

BATCH = 100


@dataclass(frozen=True, slots=True)
class LayerFlips:
    """Codes of one quantizer that differ from the integer graph's, out of ``compared``.

    ``first`` is the index of the first, where the network has ``got`` and the graph ``want``.
    ``farthest`` is, layer by layer, the greatest distance in real units between a value whose code
    differs and the crossing at which the graph's code ends: a fold's bound must cover it.
    """

    name: str
    flips: int
    compared: int
    max_abs_diff: int
    first: tuple[int, ...] | None
    got: int = 0
    want: int = 0
    farthest: float = 0.0

    def shifted(self, offset: int) -> "LayerFlips":
        """The same flips for a batch that starts at image ``offset``."""
        if self.first is None:
            return self
        return replace(self, first=(self.first[0] + offset, *self.first[1:]))


def to_pixels(images: NDArray[np.uint8], dtype: torch.dtype) -> Tensor:
    """(N, H, W, C) uint8 → (N, C, H, W) of ``dtype``."""
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C")).to(dtype)


def _channels_last(tensor: Tensor) -> NDArray[np.generic]:
    array = tensor.numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _channels_first(codes: IntArray) -> IntArray:
    return codes.transpose(0, 3, 1, 2) if codes.ndim == 4 else codes


def _quantizers(model: nn.Module) -> dict[str, ActivationQuantizer]:
    return {n: m for n, m in model.named_modules() if isinstance(m, ActivationQuantizer)}


def _graph_codes(quantizer: ActivationQuantizer, codes: Tensor) -> Tensor:
    """The graph's integers for a quantizer's codes: lowering keeps an odd grid's indices."""
    grid = quantizer.grid
    return codes if grid.step == 1 else (codes - grid.lo) // grid.step


def _values(quantizer: ActivationQuantizer, integers: IntArray, like: Tensor) -> Tensor:
    """Real values, in the shape and dtype of ``like``, of the graph's integers (channels first)."""
    grid = quantizer.grid
    codes = integers if grid.step == 1 else integers * grid.step + grid.lo
    scales = torch.tensor([float(s) for s in quantizer.exact_scales()], dtype=torch.float64)
    shaped = scales.view(1, -1, *[1] * (like.dim() - 2)).to(like.dtype)
    given = torch.from_numpy(np.array(codes, order="C"))
    return given.reshape(like.shape).to(like.dtype) * shaped


@dataclass(frozen=True, slots=True)
class _Seen:
    """What reached one quantizer: the graph's integers for it, and the values themselves (NHWC)."""

    quantizer: ActivationQuantizer
    integers: IntArray
    values: NDArray[np.generic]


def _observe(
    model: nn.Module, pixels: Tensor, forced: Mapping[str, IntArray] | None
) -> tuple[dict[str, _Seen], NDArray[np.float32]]:
    """What every quantizer sees, and the logits; ``forced`` codes replace the outputs."""
    seen: dict[str, _Seen] = {}
    handles = []
    for name, quantizer in _quantizers(model).items():

        def hook(
            module: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name
        ) -> Tensor:
            assert isinstance(module, ActivationQuantizer)
            codes = _graph_codes(module, module.codes(args[0]))
            integers = _channels_last(codes).astype(np.int64)
            seen[name] = _Seen(module, integers, _channels_last(args[0]))
            if forced is None:
                return output
            return _values(module, _channels_first(forced[name]), output)

        handles.append(quantizer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            logits = model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits.float().numpy()


def _flips(name: str, seen: _Seen, want: IntArray) -> LayerFlips:
    got = seen.integers.reshape(want.shape)
    difference = got - want
    wrong = np.argwhere(difference)
    if not len(wrong):
        return LayerFlips(name, 0, want.size, 0, None)
    first = tuple(int(i) for i in wrong[0])
    return LayerFlips(
        name, len(wrong), want.size, int(np.abs(difference).max()),
        first, int(got[first]), int(want[first]), _farthest(seen, want, difference),
    )  # fmt: skip


def _farthest(seen: _Seen, want: IntArray, difference: IntArray) -> float:
    """Greatest distance of a flipped value from the end of the interval of the wanted code."""
    at = np.nonzero(difference)
    grid = seen.quantizer.grid
    codes = want[at] if grid.step == 1 else want[at] * grid.step + grid.lo
    scales = np.array([float(s) for s in seen.quantizer.exact_scales()])
    scale = scales[at[-1]] if len(scales) > 1 else scales[0]
    ends = scale * (codes + np.sign(difference[at]) * grid.step / 2)
    values = seen.values.reshape(want.shape)[at].astype(np.float64)
    return float(np.abs(values - ends).max())


def merge_flips(parts: list[LayerFlips]) -> LayerFlips:
    """Sum of one layer's flips over batches; ``first`` is the earliest."""
    earliest = next((part for part in parts if part.first is not None), parts[0])
    return replace(
        earliest,
        flips=sum(part.flips for part in parts),
        compared=sum(part.compared for part in parts),
        max_abs_diff=max(part.max_abs_diff for part in parts),
        farthest=max(part.farthest for part in parts),
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
    precision: Precision | None = None,
) -> tuple[tuple[LayerFlips, ...], NDArray[np.float32]]:
    """Flips of every quantizer in ``names`` against ``codes``, and the float network's logits.

    Without ``precision`` the network computes in float64 layer by layer, else in float32.
    """
    chosen = precision or ("float64" if layer_by_layer else "float32")
    dtype = {"float32": torch.float32, "float64": torch.float64}[chosen]
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
