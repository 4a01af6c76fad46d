"""Each layer as a job for the tiling search: what a block costs and which blocks fit on chip."""

import itertools
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as ReadOnlyDict
from dataclasses import dataclass, replace
from functools import lru_cache

from bitfold.errors import UsageError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, ceil_div, compute_cycles
from bitfold.fpga_sim.mapping import MappedLayer
from bitfold.fpga_sim.memory import Buffer, tile_words, weight_words
from bitfold.fpga_sim.tiling import (
    FILTERS,
    NOTHING,
    PIXELS,
    BlockLaw,
    Job,
    Plan,
    Port,
    Traffic,
    Window,
)
from bitfold.fpga_sim.tiling_search import plans

# Registers behind the vector unit's adder tree: operands, product, output.
VECTOR_REGISTERS = 3
# Parts of an array that are tiled in one go.
PARTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A layer's plan, the part of the array it uses, and whether the vector unit computes it."""

    job: Job
    plan: Plan
    rows: int
    cols: int
    vector: bool


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What a schedule depends on: equal layers of a network share one."""

    gemm: Gemm
    window: Window
    traffic: Traffic
    weight_words: int
    vector: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """Words of the buffers, both halves together, and the map buffer's word in bits."""

    weights: int
    tile: int
    map: int
    map_width: int
    outputs: int | None

    @property
    def band_bytes(self) -> int:
        """Bytes of a packed map that half the map buffer holds."""
        return self.map // 2 * self.map_width // 8


def capacity_of(parts: tuple[Buffer, ...]) -> Capacity:
    """The buffers as the tiling search sees them."""
    by_name = {part.name: part for part in parts}
    outputs = by_name.get("outputs")
    return Capacity(
        weights=by_name["weights"].depth,
        tile=by_name["tile"].depth,
        map=by_name["map"].depth,
        map_width=by_name["map"].width,
        outputs=None if outputs is None else outputs.depth,
    )


def uses_vector_unit(layer: MappedLayer, array: ArrayConfig) -> bool:
    """Whether the layer runs beside the array."""
    return array.depthwise == "vector" and layer.depthwise


def require_buffers(
    layers: Sequence[MappedLayer], array: ArrayConfig, capacity: Capacity, jobs: Sequence[Job]
) -> None:
    """Raise UsageError, naming what would fit, where a buffer cannot hold two tiles of a layer.

    ``jobs`` are those of ``layers`` on the whole array.
    """
    words = [_needed_words(*pair, array, capacity) for pair in zip(layers, jobs, strict=True)]
    for i, (key, given) in enumerate(
        (
            ("weight_words", capacity.weights),
            ("tile_words", capacity.tile),
            ("map_words", capacity.map),
            ("output_words", capacity.outputs),
        )
    ):
        needed = [need[i] for need in words]
        most = max(needed)
        if given is not None and given < most:
            raise UsageError(
                f"{key} is {given}, smaller than two tiles of layer "
                f"{layers[needed.index(most)].name}",
                where=key,
                todo=f"Use {key} {most} or more, or leave it out.",
            )


def _needed_words(
    layer: MappedLayer, job: Job, array: ArrayConfig, capacity: Capacity
) -> tuple[int, int, int, int]:
    """Least depth of each buffer: two tiles, one of them computing and one in transfer."""
    on_array = 0 if uses_vector_unit(layer, array) else 2
    return (
        on_array * weight_words(layer, array),
        on_array * tile_words(layer, array),
        2 * ceil_div(8 * job.band_bytes(1), capacity.map_width),
        on_array * (array.rows if array.dataflow == "os" else 1),
    )


def operand_steps(gemm: Gemm, array: ArrayConfig) -> int:
    """Cycles in which operands enter the array: no fill, no drain, no padding."""
    depth = ceil_div(gemm.depth, array.lanes) * gemm.serial
    rows, cols = array.rows, array.cols
    steps = {
        "os": depth * ceil_div(gemm.pixels, rows) * ceil_div(gemm.filters, cols),
        "ws": gemm.pixels * gemm.serial
        * ceil_div(gemm.depth, rows * array.lanes) * ceil_div(gemm.filters, cols),
        "is": gemm.filters * gemm.serial
        * ceil_div(gemm.depth, rows * array.lanes) * ceil_div(gemm.pixels, cols),
    }  # fmt: skip
    return gemm.passes * gemm.groups * steps[array.dataflow]


def schedule_layers(
    layers: Sequence[MappedLayer],
    array: ArrayConfig,
    capacity: Capacity,
    port: Port,
    traffic: ReadOnlyDict[str, Traffic],
) -> list[Scheduled]:
    """The fastest plan of each layer; with ``subarray`` best, over all parts of the array too.

    Raises UsageError where a buffer is too small.
    """
    shapes = [_shape(layer, array, traffic[layer.name]) for layer in layers]
    jobs = [make_job(shape, array, capacity) for shape in shapes]
    require_buffers(layers, array, capacity, jobs)
    if array.subarray == "best":
        return [schedule_shape(shape, array, capacity, port) for shape in shapes]
    return [
        Scheduled(job, plan, array.rows, array.cols, shape.vector)
        for shape, job, plan in zip(shapes, jobs, plans(jobs, port), strict=True)
    ]


def _shape(layer: MappedLayer, array: ArrayConfig, traffic: Traffic) -> LayerShape:
    return LayerShape(
        layer.gemm,
        layer.window,
        traffic,
        weight_words(layer, array),
        uses_vector_unit(layer, array),
    )


@lru_cache(maxsize=4096)
def schedule_shape(
    shape: LayerShape, array: ArrayConfig, capacity: Capacity, port: Port
) -> Scheduled:
    """The fastest plan of ``shape``, which must fit; equal layers of a network share the work.

    Parts that compute for longer than the best one before them takes are passed over.
    """
    best: Scheduled | None = None
    waiting = _parts(shape, array)
    while group := list(itertools.islice(waiting, PARTS_AT_ONCE if best else 1)):
        parts = []
        for part in group:
            compute = compute_cycles(shape.gemm, part)
            if best is not None and compute > best.plan.cycles:
                continue
            job = make_job(shape, part, capacity)
            # Fewer rows may span one more input row; a part of one row always fits.
            if job.fits_rows(1):
                parts.append((part, compute, job))
        found = plans([job for *_, job in parts], port)
        for (part, compute, job), plan in zip(parts, found, strict=True):
            if best is None or max(compute, plan.cycles + 1) <= best.plan.cycles:
                best = Scheduled(job, plan, part.rows, part.cols, shape.vector)
    assert best is not None
    return best


def _parts(shape: LayerShape, array: ArrayConfig) -> Iterator[ArrayConfig]:
    """The whole array, or with ``subarray`` best every part with its own number of folds.

    Parts of a smaller array are parts of a larger one: that makes more PEs never slower.
    """
    if array.subarray == "full" or shape.vector:
        yield array
        return
    for rows in _distinct(shape.gemm.pixels, array.rows):
        for cols in _distinct(shape.gemm.filters, array.cols):
            yield replace(array, rows=rows, cols=cols)


def _distinct(size: int, most: int) -> list[int]:
    """The fewest units ≤ ``most`` for every number of folds of ``size``, descending."""
    found = {ceil_div(size, ceil_div(size, units)) for units in range(1, most + 1)}
    return sorted(found, reverse=True)


def make_job(shape: LayerShape, array: ArrayConfig, capacity: Capacity) -> Job:
    """``shape`` on exactly ``array.rows`` × ``array.cols`` PEs, or on the vector unit."""
    if shape.vector:
        return _vector_job(shape, array, capacity)
    gemm = shape.gemm
    pixels = array.cols if array.dataflow == "is" else array.rows
    column_folds = gemm.groups * _folds_a_group(gemm, array)
    grouped = gemm.groups > 1
    # Buffers that hold the whole layer are one case: whatever is more makes no other job.
    return Job(
        row_folds=ceil_div(gemm.pixels, pixels),
        column_folds=column_folds,
        pixels=pixels,
        all_pixels=gemm.pixels,
        filters=1 if grouped else array.cols,
        all_filters=column_folds if grouped else gemm.filters,
        grouped=grouped,
        window=shape.window,
        traffic=shape.traffic,
        law=block_law(gemm, array),
        most_rows=gemm.pixels,
        most_columns=min(capacity.weights // (2 * shape.weight_words), column_folds),
        most_band=min(capacity.band_bytes, shape.traffic.inputs),
    )


def _folds_a_group(gemm: Gemm, array: ArrayConfig) -> int:
    """Column folds of one group; where filters stream, a group is not cut."""
    streams = array.dataflow == "is" and gemm.groups > 1
    return 1 if streams else ceil_div(gemm.filters, array.cols)


def block_law(gemm: Gemm, array: ArrayConfig) -> BlockLaw:
    """What a block of ``gemm`` takes on the array (docs/fpga_model.md, sections 2 and 6).

    It counts from a block's first operand to the next block's, so that the tail is what shows only
    once. With a second register a stationary array's operands come with the block, after R loads
    and a swap that has crossed the array (``cycles.refill_cycles``).
    """
    rows, cols = array.rows, array.cols
    if array.dataflow == "os":
        fold = Gemm(1, gemm.depth, 1, 1, gemm.passes, gemm.serial)
        once = compute_cycles(fold, array)
        twice = Gemm(1, gemm.depth, 1, 1, 2 * gemm.passes, gemm.serial)
        again = compute_cycles(twice, array)
        return BlockLaw(NOTHING, 1, least=again - once, shown=2 * once - again)
    stream = PIXELS if array.dataflow == "ws" else FILTERS
    repeats = gemm.passes * ceil_div(gemm.depth, rows * array.lanes) * gemm.serial
    if array.drain == "shared":
        law = BlockLaw(stream, repeats, 0, 2 * rows + cols - 2, array.acc_words, shown=3)
    else:
        law = BlockLaw(
            stream, repeats, 2 * rows + cols - 1, 0, array.acc_words,
            settles=1, crossing=rows + cols - 1, added=rows + 1, shown=rows + cols + 1,
        )  # fmt: skip
    if stream == FILTERS and gemm.groups > 1:
        # A group is not cut: all its filters stream in every fold.
        length = gemm.filters
        return BlockLaw(
            NOTHING, 1, law.steady(length), added=law.extra(length), shown=law.tail(length)
        )
    return law


def _vector_job(shape: LayerShape, array: ArrayConfig, capacity: Capacity) -> Job:
    """Channels side by side, taps of a pixel together; a row fold is one output row."""
    gemm, window = shape.gemm, shape.window
    steps = ceil_div(window.taps, array.vector_taps) * gemm.passes * gemm.serial
    channels = gemm.groups * gemm.filters
    at_once = array.vector_channels or array.cols
    return Job(
        row_folds=window.out_height,
        column_folds=ceil_div(channels, at_once),
        pixels=window.out_width,
        all_pixels=window.out_height * window.out_width,
        filters=at_once,
        all_filters=channels,
        grouped=True,
        window=window,
        traffic=shape.traffic,
        law=BlockLaw(
            NOTHING,
            1,
            least=window.out_width * steps,
            shown=VECTOR_REGISTERS + (array.vector_taps - 1).bit_length(),
        ),
        most_rows=window.out_height,
        most_columns=channels,
        most_band=min(capacity.band_bytes, shape.traffic.inputs),
    )
