"""The sizes of a convolution, as its kernels take them."""

from typing import NamedTuple

from bitfold.kernels.steps import ConvStep


class Geometry(NamedTuple):
    """Window, stride, padding, groups, channels per group, and output size."""

    kh: int
    kw: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    groups: int
    depth: int
    oh: int
    ow: int


def bind_geometry(step: ConvStep) -> Geometry:
    """The geometry of a step."""
    _, kh, kw, depth = step.weight.shape
    top, left, _, _ = step.padding
    oh, ow, _ = step.out.shape
    return Geometry(kh, kw, *step.stride, top, left, step.groups, depth, oh, ow)
