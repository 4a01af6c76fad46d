"""Which rows are worth a trial on a layer, and what makes two layers alike."""

from collections.abc import Iterable

from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep, Epilogue, ToIndices, ToWide

# A popcount multiplies single bits: from here on a row that multiplies bytes is always quicker.
MAX_PLANE_PAIRS = 8


def contenders(step: ConvStep, fitting: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of ``fitting``, best first, that may be the fastest on ``step``; one at least.

    Of a layout the first row alone; no scalar row beside a vector row; no popcount of many planes.
    """
    firsts: dict[str, Row] = {}
    for row in fitting:
        firsts.setdefault(row.layout, row)
    rows = tuple(firsts.values())
    vectors = tuple(row for row in rows if row.isa != "scalar") or rows
    pairs = step.x_grid.bits * step.weight_grid.bits
    if pairs > MAX_PLANE_PAIRS:
        return tuple(row for row in vectors if row.layout != "bitserial") or vectors
    return vectors


def layer_key(step: ConvStep) -> str:
    """Equal for layers on which every row takes the same time, whatever their weights."""
    (h, w, c), (oh, ow, o) = step.x.shape, step.out.shape
    kernel = "x".join(map(str, step.weight.shape[1:3]))
    weight = step.weight
    parts = (
        f"{h}x{w}x{c}-{oh}x{ow}x{o}",
        f"kernel {kernel}",
        f"stride {step.stride[0]}x{step.stride[1]}",
        f"padding {','.join(map(str, step.padding))}",
        f"groups {step.groups}",
        f"x {step.x_grid}",
        f"weight {step.weight_grid} {int(weight.min())}..{int(weight.max())}",
        _epilogue_key(step.epilogue),
    )
    return "; ".join(parts)


def _epilogue_key(epilogue: Epilogue) -> str:
    match epilogue:
        case ToIndices(table=table):
            return f"indices {table.shape[1]}"
        case ToWide(add=add, negative_multiplier=negative):
            bend = "" if negative is None else " bent" if negative.any() else " relu"
            return f"wide{bend}{' add' if add else ''}"
        case _:
            return "accumulators"
