"""Weight layouts of convolutions: where each is exact, and the constants that its rows read."""

from typing import Protocol

from bitfold.kernels.layouts.bitserial import BitserialLayout
from bitfold.kernels.layouts.common import conv_intervals, flush_quads
from bitfold.kernels.layouts.depthwise import DepthwiseLayout
from bitfold.kernels.layouts.dictionary import DictionaryLayout
from bitfold.kernels.layouts.direct import DirectLayout
from bitfold.kernels.layouts.direct_bytes import DirectBytesLayout
from bitfold.kernels.layouts.direct_signed import DirectSignedLayout
from bitfold.kernels.layouts.direct_wide import DirectWideLayout
from bitfold.kernels.layouts.packed import PackedLayout
from bitfold.kernels.layouts.vector import VectorLayout
from bitfold.kernels.layouts.winograd import WinogradLayout
from bitfold.kernels.packed_step import PackedStep, Segment
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep


class Layout(Protocol):
    """How a row's constants lie, and which steps it may run."""

    @property
    def name(self) -> str:
        """As in the kernel table."""

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Whether ``row``, of this layout, is exact on ``step``."""

    def fits_every_step(self, row: Row) -> bool:
        """Whether ``fits`` is always true for ``row``."""

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Everything that ``row`` reads, for a step that it fits."""


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        DirectLayout(),
        DirectWideLayout(),
        BitserialLayout(),
        PackedLayout(),
        DictionaryLayout(),
        DirectBytesLayout(),
        DirectSignedLayout(),
        DepthwiseLayout(),
        VectorLayout(),
        WinogradLayout(),
    )
}

# Those whose panels may hold weights of more than 8 bits, digit by digit.
TAKE_WIDE = ("direct", "direct_wide", "direct_signed")

__all__ = [
    "LAYOUTS",
    "TAKE_WIDE",
    "Layout",
    "PackedStep",
    "Segment",
    "conv_intervals",
    "flush_quads",
]
