"""The input of a model that another tool wrote: its name, dtype and layout, and how it is coded.

A graph of ours takes raw uint8 pixels (N, H, W, C). A model read from another tool takes what its
author gave it, often float32 (N, C, H, W). ``OwnInput`` turns that into the graph's pixels, with
the float32 operations that the model itself starts with, so that both have the same codes. It
travels in the graph's ``meta`` under ``KEY`` as JSON.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import InputError
from bitfold.ir.graph import IntGraph

KEY = "input"
Operator = Literal["Add", "Sub", "Mul", "Div", "SubFrom", "Max", "Min"]
Pixels = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputStep:
    """One float32 operation: ``operator`` with a constant of ``shape`` that broadcasts to x."""

    operator: Operator
    values: tuple[float, ...]
    shape: tuple[int, ...]

    def apply(self, x: FloatArray) -> FloatArray:
        """The operation on x, in float32 as any runtime computes it."""
        constant = np.array(self.values, np.float32).reshape(self.shape)
        match self.operator:
            case "Add":
                made = x + constant
            case "Sub":
                made = x - constant
            case "Mul":
                made = x * constant
            case "Div":
                made = x / constant
            case "SubFrom":
                made = constant - x
            case "Max":
                made = np.maximum(x, constant)
            case "Min":
                made = np.minimum(x, constant)
            case _:
                assert_never(self.operator)
        return made.astype(np.float32, copy=False)


def apply_steps(x: FloatArray, steps: tuple[InputStep, ...]) -> FloatArray:
    """All ``steps`` in order; float32 overflow is what it is."""
    with np.errstate(all="ignore"):
        for step in steps:
            x = step.apply(x)
    return x


@dataclass(frozen=True, slots=True)
class OwnInput:
    """A model's own input; ``shape`` is without the batch.

    Behind ``steps``, a float32 x has the code clamp(rint(x/scale), lo, hi), or, with ``crossings``,
    lo + #{t: t ≤ x}; an integer input is its own code and has no steps. The graph's pixel is
    code − lo.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    channels_last: bool
    lo: int
    hi: int
    scale: float = 1
    steps: tuple[InputStep, ...] = ()
    crossings: tuple[float, ...] = ()

    @property
    def layout(self) -> str:
        """The order of the dimensions, as in NCHW."""
        if len(self.shape) == 1:
            return "NC"
        return "NHWC" if self.channels_last else "NCHW"

    def to_pixels(self, values: object) -> Pixels:
        """The graph's uint8 (N, H, W, C) of ``values`` (N, …) in the model's own form.

        Raises InputError on another dtype or shape, and on NaN.
        """
        wanted = f"{self.dtype} (N, {', '.join(map(str, self.shape))})"
        if not isinstance(values, np.ndarray):
            raise InputError(
                f"values are {type(values).__name__}, wanted an array {wanted}",
                where=f"input {self.name}",
            )
        if values.dtype != np.dtype(self.dtype) or values.shape[1:] != self.shape:
            raise InputError(
                f"values are {values.dtype} {values.shape}, wanted {wanted}",
                where=f"input {self.name}",
                todo=f"Pass what the model itself takes, layout {self.layout}.",
            )
        return self._placed(self._indices(values))

    def _indices(self, values: NDArray[np.generic]) -> Pixels:
        if self.dtype != "float32":
            least = np.iinfo(self.dtype).min
            return (values.astype(np.int64) - least).astype(np.uint8)
        x = apply_steps(values.astype(np.float32, copy=False), self.steps)
        if np.isnan(x).any():
            raise InputError("a value is NaN", where=f"input {self.name}")
        if self.crossings:
            found = np.searchsorted(np.array(self.crossings), x.astype(np.float64), side="right")
            return found.astype(np.uint8)
        with np.errstate(over="ignore"):
            codes = np.rint(x / np.float32(self.scale))
        indices: Pixels = (np.clip(codes, self.lo, self.hi) - self.lo).astype(np.uint8)
        return indices

    def of_images(self, images: Pixels) -> Pixels:
        """Raw uint8 images (N, H, W, C) as ``to_pixels`` takes them.

        Raises InputError where the model takes something else than uint8 pixels.
        """
        if self.dtype != "uint8" or len(self.shape) == 1:
            raise InputError(
                f"the model takes {self.dtype} (N, {', '.join(map(str, self.shape))}), layout"
                f" {self.layout}, and images are raw uint8 pixels",
                where=f"input {self.name}",
                todo="Prepare its input yourself and pass it as an .npy file.",
            )
        return images if self.channels_last else images.transpose(0, 3, 1, 2)

    def _placed(self, indices: Pixels) -> Pixels:
        if len(self.shape) == 1:
            return indices[:, None, None, :]
        ordered = indices if self.channels_last else indices.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(ordered)

    def to_text(self) -> str:
        """The JSON form for a graph's ``meta``; floats are hexadecimal."""
        fields = asdict(self)
        fields["scale"] = float(self.scale).hex()
        fields["crossings"] = [t.hex() for t in self.crossings]
        fields["steps"] = [
            {"operator": s.operator, "values": [v.hex() for v in s.values], "shape": s.shape}
            for s in self.steps
        ]
        return json.dumps(fields, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> "OwnInput":
        """What ``to_text`` wrote; raises InputError on anything else."""
        try:
            fields = json.loads(text)
            steps = tuple(
                InputStep(
                    step["operator"],
                    tuple(float.fromhex(v) for v in step["values"]),
                    tuple(step["shape"]),
                )
                for step in fields.pop("steps")
            )
            scale, shape = float.fromhex(fields.pop("scale")), tuple(fields.pop("shape"))
            crossings = tuple(float.fromhex(t) for t in fields.pop("crossings"))
            return cls(shape=shape, scale=scale, steps=steps, crossings=crossings, **fields)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(
                f"the description of its own input is damaged: {error}",
                where=f"graph meta {KEY!r}",
                todo="Read the original model again.",
            ) from error


def without_own_input(graph: IntGraph) -> IntGraph:
    """The same graph, to be fed with its uint8 pixels (N, H, W, C)."""
    return replace(graph, meta=tuple(item for item in graph.meta if item[0] != KEY))


def own_input(graph: IntGraph) -> OwnInput | None:
    """The own input of a graph that was read from another tool's model; None for one of ours."""
    text = dict(graph.meta).get(KEY)
    return None if text is None else OwnInput.from_text(text)
