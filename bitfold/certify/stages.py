"""What a comparison is: one stage, its counts, and the first place where two forms part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.certify.causes import UNKNOWN, Cause, Values, likely_cause
from bitfold.ir import IntGraph

if TYPE_CHECKING:
    from bitfold.export import RuntimeFlips

ORACLE = "oracle"
# Of a code: float32 sums of a few thousand terms err by less.
NEAR_A_CROSSING = 1e-3

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Traces = Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """Where two forms part: node, index (image, row, column, channel), both values.

    ``cause`` is the likely one (``causes.py``), ``why`` the evidence for it.
    """

    layer: str
    index: tuple[int, ...]
    got: float
    want: float
    cause: str = UNKNOWN.kind
    why: str = UNKNOWN.why

    def __str__(self) -> str:
        """As a reader is told."""
        index = ", ".join(map(str, self.index))
        place = f"layer {self.layer}, index ({index}): got {self.got:g}, want {self.want:g}"
        return f"{place}; {self.cause}: {self.why}" if self.why else place


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
    name: str,
    got: Traces,
    want: Traces,
    *,
    graph: IntGraph | None = None,
    exact: bool = True,
    detail: str = "",
) -> Stage:
    """Compare every tensor both traces hold, in the order of ``want``; ``==``, floats too.

    With the ``graph`` that ``want`` is the trace of, a likely cause of the first difference is
    looked for.
    """
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
            cause = UNKNOWN
            if graph is not None:
                cause = likely_cause(
                    graph, layer, got=values, want=wanted, trace=want, held=got.keys()
                )
            first = first_difference(layer, values, wanted, cause)
    return Stage(name, ORACLE, compared, mismatches, largest, first, exact, detail)


def first_difference(layer: str, got: Values, want: Values, cause: Cause) -> FirstDifference:
    """The first place in row-major order at which two arrays of one shape differ."""
    index = tuple(int(i) for i in np.argwhere(got != want)[0])
    return FirstDifference(
        layer, index, float(got[index]), float(want[index]), cause.kind, cause.why
    )


def runtime_stage(name: str, flips: Sequence["RuntimeFlips"]) -> Stage:
    """Codes of another tool's model under a runtime, layer by layer: what its float32 decides."""
    worst = next((flip for flip in flips if flip.first is not None), None)
    first = None
    if worst is not None and worst.first is not None:
        near = worst.farthest <= NEAR_A_CROSSING
        why = f"at most {worst.farthest:.2g} of a code from the crossing"
        cause = ("tie", why) if near else (UNKNOWN.kind, UNKNOWN.why)
        first = FirstDifference(worst.name, worst.first, worst.want, worst.got, *cause)
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
