"""What a comparison is: one stage, its counts, and the first place where two forms part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bitfold.export import RuntimeFlips

ORACLE = "oracle"

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Traces = Mapping[str, NDArray[np.int64] | NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """Where two forms part: node, index (image, row, column, channel), and both values."""

    layer: str
    index: tuple[int, ...]
    got: float
    want: float

    def __str__(self) -> str:
        """As a reader is told."""
        index = ", ".join(map(str, self.index))
        return f"layer {self.layer}, index ({index}): got {self.got:g}, want {self.want:g}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One comparison; ``exact`` says whether a mismatch breaks the certificate."""

    name: str
    against: str
    compared: int
    mismatches: int
    max_abs_diff: float
    first: FirstDifference | None
    exact: bool = True
    detail: str = ""

    def shifted(self, offset: int) -> "Stage":
        """The same stage for a batch that starts at image ``offset``."""
        if self.first is None:
            return self
        image, *rest = self.first.index
        return replace(self, first=replace(self.first, index=(image + offset, *rest)))


def compare_traces(
    name: str, got: Traces, want: Traces, *, exact: bool = True, detail: str = ""
) -> Stage:
    """Compare every tensor both traces hold, in the order of ``want``; ``==``, floats too."""
    compared = mismatches = 0
    largest = 0.0
    first: FirstDifference | None = None
    for layer, wanted in want.items():
        if layer not in got:
            continue
        values = got[layer].reshape(wanted.shape)
        compared += wanted.size
        wrong = values != wanted
        if not wrong.any():
            continue
        mismatches += int(wrong.sum())
        largest = max(largest, float(np.abs(values.astype(np.float64) - wanted).max()))
        if first is None:
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            first = FirstDifference(layer, index, float(values[index]), float(wanted[index]))
    return Stage(name, ORACLE, compared, mismatches, largest, first, exact, detail)


def runtime_stage(name: str, flips: Sequence["RuntimeFlips"]) -> Stage:
    """Codes of another tool's model under a runtime, layer by layer: what its float32 decides."""
    worst = next((flip for flip in flips if flip.first is not None), None)
    first = None
    if worst is not None and worst.first is not None:
        first = FirstDifference(worst.name, worst.first, worst.want, worst.got)
    farthest = max((flip.farthest for flip in flips if flip.flips), default=0.0)
    return Stage(
        name, ORACLE, sum(flip.compared for flip in flips), sum(flip.flips for flip in flips),
        float(max((abs(flip.want - flip.got) for flip in flips), default=0)), first, exact=False,
        detail=f"{len(flips)} layers; at most {farthest:.2g} of a code from the crossing",
    )  # fmt: skip


def absent(name: str, reason: str) -> Stage:
    """A stage that compared nothing, and why."""
    return Stage(name, ORACLE, 0, 0, 0.0, None, exact=False, detail=reason)


def merge_stages(parts: Sequence[Stage]) -> Stage:
    """One stage over several batches; ``first`` is the earliest."""
    return replace(
        parts[0],
        compared=sum(part.compared for part in parts),
        mismatches=sum(part.mismatches for part in parts),
        max_abs_diff=max(part.max_abs_diff for part in parts),
        first=next((part.first for part in parts if part.first is not None), None),
    )
