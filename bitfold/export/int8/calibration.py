"""Scales of the int8 peer, from one pass in float over one image of random pixels.

Weights are the network's codes stretched over -127 … 127. Their scales give every channel of a
convolution the spread, and its bias the mean, that a batch norm would: the batch norm is folded
away. Activations are uint8 with the range that the pass saw; tensors that an engine wants on one
scale (both sides of a pool, all parts of a concatenation) share theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bitfold.export.int8.topology import IMAGE, PeerLayer, peer_layers
from bitfold.ir import IntGraph

Float32Array = NDArray[np.float32]
LARGEST_WEIGHT = 127
LARGEST_CODE = 255
# A channel that hardly moves on one image would get a scale that says nothing.
LEAST_SPREAD = 0.1
SHARED_SCALE = ("max_pool", "mean_pool", "slice", "concat", "flatten")


@dataclass(frozen=True, slots=True)
class Affine:
    """real = scale · (code − zero_point), codes 0 … 255."""

    scale: float
    zero_point: int


# Raw pixels: their mean is part of the first layer's bias.
PIXEL = Affine(1.0, 0)


@dataclass(frozen=True, slots=True)
class Product:
    """Weight (O, KH, KW, I/groups) or (O, I), bias (O,) in units of input times weight scale."""

    weight: NDArray[np.int8]
    scales: Float32Array
    bias: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Int8Peer:
    """Uint8 (N, H, W, C) in, float32 logits out; ``ranges`` has every tensor's quantization."""

    image_shape: tuple[int, ...]
    layers: tuple[PeerLayer, ...]
    ranges: Mapping[str, Affine]
    products: Mapping[str, Product]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        pixels = {layer.name: int(np.prod(layer.shape[:-1])) for layer in self.layers}
        return sum(pixels[name] * made.weight.size for name, made in self.products.items())


def int8_peer(graph: IntGraph, *, seed: int = 0) -> Int8Peer:
    """The int8 form of ``graph``'s network, calibrated on one image of random pixels."""
    layers = peer_layers(graph)
    image_shape = graph.input.shape
    pixels = np.random.default_rng(seed).integers(0, 256, image_shape)
    values = {IMAGE: pixels.astype(np.float32) * np.float32(PIXEL.scale)}
    codes = {layer.name: _stretched(layer) for layer in layers if layer.is_product}
    folded: dict[str, tuple[Float32Array, Float32Array]] = {}
    for layer in layers:
        inputs = [values[name] for name in layer.inputs]
        if layer.is_product:
            sums = _products(layer, inputs[0], codes[layer.name])
            folded[layer.name] = _batch_norm(sums)
            gain, shift = folded[layer.name]
            result = sums * gain + shift
        else:
            result = _result(layer, inputs)
        values[layer.name] = np.maximum(result, 0) if layer.clipped else result
    ranges = _ranges(layers, values) | {IMAGE: PIXEL}
    products = {
        layer.name: _product(codes[layer.name], *folded[layer.name], ranges[layer.inputs[0]])
        for layer in layers
        if layer.is_product
    }
    return Int8Peer(image_shape, layers, ranges, products)


def _stretched(layer: PeerLayer) -> NDArray[np.int8]:
    """Codes on -127 … 127."""
    largest = max(int(np.abs(layer.codes).max()), 1)
    stretched: NDArray[np.int8] = np.rint(layer.codes * (LARGEST_WEIGHT / largest)).astype(np.int8)
    return stretched


def _product(
    weight: NDArray[np.int8], gain: Float32Array, shift: Float32Array, source: Affine
) -> Product:
    bias = np.rint(shift / (gain * np.float32(source.scale)))
    return Product(weight, gain, bias.astype(np.int32))


def _batch_norm(sums: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Gain and shift (O,) that give the channels of ``sums`` mean 0 and spread 1."""
    flat = sums.reshape(-1, sums.shape[-1])
    overall = max(float(flat.std()), float(np.finfo(np.float32).tiny))
    if len(flat) == 1:
        return np.full(flat.shape[1], 1 / overall, np.float32), np.zeros(flat.shape[1], np.float32)
    spread = np.maximum(flat.std(axis=0), np.float32(LEAST_SPREAD * overall))
    gain = (1 / spread).astype(np.float32)
    return gain, (-flat.mean(axis=0) * gain).astype(np.float32)


def _padded(x: Float32Array, layer: PeerLayer, *, fill: float) -> Float32Array:
    top, left, bottom, right = layer.padding
    return np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)


def _windows(x: Float32Array, layer: PeerLayer) -> list[Float32Array]:
    """For each position of the kernel, the pixels (OH, OW, C) under it."""
    height, width, _ = layer.shape
    down, across = layer.stride
    rows, columns = layer.kernel
    return [
        x[i : i + down * (height - 1) + 1 : down, j : j + across * (width - 1) + 1 : across]
        for i, j in product(range(rows), range(columns))
    ]


def _products(layer: PeerLayer, x: Float32Array, weight: NDArray[np.int8]) -> Float32Array:
    """Sums of products, (OH, OW, O) or (O,)."""
    real = weight.astype(np.float32)
    if layer.op == "linear":
        return real @ x.reshape(-1)
    parts = _windows(_padded(x, layer, fill=0), layer)
    taps = real.reshape(len(real), len(parts), -1)  # (O, KH·KW, I/groups)
    if layer.is_depthwise:
        multiple = len(real) // layer.groups
        return sum(
            (np.repeat(part, multiple, axis=-1) * taps[:, i, 0] for i, part in enumerate(parts)),
            start=np.zeros(layer.shape, np.float32),
        )
    sums = np.zeros(layer.shape, np.float32)
    outputs, inputs = len(real) // layer.groups, taps.shape[2]
    for group in range(layer.groups):
        made = slice(group * outputs, (group + 1) * outputs)
        read = slice(group * inputs, (group + 1) * inputs)
        for i, part in enumerate(parts):
            sums[..., made] += part[..., read] @ taps[made, i].T
    return sums


def _result(layer: PeerLayer, inputs: list[Float32Array]) -> Float32Array:
    """What a layer without weights makes of its inputs."""
    x = inputs[0]
    match layer.op:
        case "add":
            return x + inputs[1]
        case "concat":
            return np.concatenate(inputs, axis=-1)
        case "slice":
            return x[..., layer.start : layer.start + layer.shape[-1]]
        case "flatten":
            return x.reshape(layer.shape)
        case "max_pool":
            largest: Float32Array = np.stack(_windows(_padded(x, layer, fill=-np.inf), layer))
            return np.asarray(largest.max(axis=0))
        case _:
            return np.asarray(np.stack(_windows(x, layer)).mean(axis=0))


def _ranges(layers: tuple[PeerLayer, ...], values: Mapping[str, Float32Array]) -> dict[str, Affine]:
    """Quantization of every layer's result, one for all that must share it."""
    leader = {IMAGE: IMAGE} | {layer.name: layer.name for layer in layers}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for layer in layers:
        if layer.op in SHARED_SCALE:
            for source in layer.inputs:
                leader[find(layer.name)] = find(source)
    ends: dict[str, tuple[float, float]] = {}
    for name in leader:
        lo, hi = ends.get(find(name), (0.0, 0.0))
        ends[find(name)] = min(lo, float(values[name].min())), max(hi, float(values[name].max()))
    return {layer.name: _affine(*ends[find(layer.name)]) for layer in layers}


def _affine(lo: float, hi: float) -> Affine:
    scale = float(np.float32((hi - lo) / LARGEST_CODE)) if hi > lo else 1.0
    return Affine(scale, min(max(round(-lo / scale), 0), LARGEST_CODE))
