"""Each layer as a job for the tiling search: what a block costs and which blocks fit on chip."""

from collections.abc import Callable, Iterator
from collections.abc import Mapping as ReadOnlyDict
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from bitfold.errors import UsageError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, ceil_div, compute_cycles, refill_cycles, visits
from bitfold.fpga_sim.mapping import MappedLayer
from bitfold.fpga_sim.memory import Buffer, tile_words, weight_words
from bitfold.fpga_sim.tiling import Job, Plan, Port, Traffic, Window, choose

# Registers behind the vector unit's adder tree: operands, product, output.
VECTOR_REGISTERS = 3


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
    layers: tuple[MappedLayer, ...],
    array: ArrayConfig,
    capacity: Capacity,
    traffic: ReadOnlyDict[str, Traffic],
) -> None:
    """Raise UsageError, naming what would fit, where a buffer cannot hold two tiles of a layer."""
    words = [_needed_words(layer, array, capacity, traffic[layer.name]) for layer in layers]
    for key, given in (
        ("weight_words", capacity.weights),
        ("tile_words", capacity.tile),
        ("map_words", capacity.map),
        ("output_words", capacity.outputs),
    ):
        layer, most = max(zip(layers, (need[key] for need in words), strict=True),
                          key=lambda item: item[1])  # fmt: skip
        if given is not None and given < most:
            raise UsageError(
                f"{key} is {given}, smaller than two tiles of layer {layer.name}",
                where=key,
                todo=f"Use {key} {most} or more, or leave it out.",
            )


def _needed_words(
    layer: MappedLayer, array: ArrayConfig, capacity: Capacity, traffic: Traffic
) -> dict[str, int]:
    """Least depth of each buffer: two tiles, one of them computing and one in transfer."""
    job = make_job(_shape(layer, array, traffic), array, capacity)
    on_array = 0 if uses_vector_unit(layer, array) else 2
    return {
        "weight_words": on_array * weight_words(layer, array),
        "tile_words": on_array * tile_words(layer, array),
        "map_words": 2 * ceil_div(8 * job.band_bytes(1), capacity.map_width),
        "output_words": on_array * (array.rows if array.dataflow == "os" else 1),
    }


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


def schedule_layer(
    layer: MappedLayer, array: ArrayConfig, capacity: Capacity, port: Port, traffic: Traffic
) -> Scheduled:
    """The fastest plan of ``layer``; with ``subarray`` best, over all parts of the array too."""
    return schedule_shape(_shape(layer, array, traffic), array, capacity, port)


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
    """The fastest plan of ``shape``, which must fit; equal layers of a network share the work."""
    best: Scheduled | None = None
    for part in _parts(shape, array):
        if best is not None and compute_cycles(shape.gemm, part) > best.plan.cycles:
            continue
        job = make_job(shape, part, capacity)
        if not job.fits_rows(1):
            # Fewer rows may span one more input row; a part of one row always fits.
            continue
        plan = choose(job, port)
        found = Scheduled(job, plan, part.rows, part.cols, shape.vector)
        if best is None or plan.cycles < best.plan.cycles:
            best = found
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
    cost, tail = _blocks(gemm, array, pixels, _folds_a_group(gemm, array))
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
        cost=cost,
        tail=tail,
        most_rows=gemm.pixels,
        most_columns=capacity.weights // (2 * shape.weight_words),
        most_band=capacity.band_bytes,
    )


def _folds_a_group(gemm: Gemm, array: ArrayConfig) -> int:
    """Column folds of one group; where filters stream, a group is not cut."""
    streams = array.dataflow == "is" and gemm.groups > 1
    return 1 if streams else ceil_div(gemm.filters, array.cols)


def _steady(gemm: Gemm, array: ArrayConfig) -> tuple[int, int]:
    """Cycles of ``gemm`` in the middle of a longer run, and what shows once a run on top."""
    once = compute_cycles(gemm, array)
    again = compute_cycles(replace(gemm, passes=2 * gemm.passes), array)
    return again - once, 2 * once - again


def _refill(gemm: Gemm, array: ArrayConfig) -> int:
    """Cycles that a block on top of ``_steady`` takes because its operands come with it."""
    if array.dataflow == "os" or array.drain == "shared":
        return 0
    return refill_cycles(visits(gemm, array), rows=array.rows, cols=array.cols)


def _blocks(
    gemm: Gemm, array: ArrayConfig, pixels: int, group_folds: int
) -> tuple[Callable[[int, int], int], Callable[[int, int], int]]:
    """Cost and tail of blocks of (pixels, filters), a row fold of ``pixels``: what streams is cut.

    The cost counts from a block's first operand to the next block's, the tail from there until
    results have left. Grouped layers count whole column folds in place of filters.
    """
    grouped = gemm.groups > 1
    fold = ceil_div(gemm.filters, group_folds) if grouped else min(array.cols, gemm.filters)
    one = replace(gemm, groups=1, pixels=min(pixels, gemm.pixels), filters=fold)
    streams = {"ws": "pixels", "is": "filters"}.get(array.dataflow)
    if grouped and streams == "filters":
        streams = None  # a group is not cut

    @cache
    def priced(length: int) -> tuple[int, int, int]:
        part = one if streams is None else replace(one, **{streams: length})
        steady, shown = _steady(part, array)
        refill = _refill(part, array)
        return steady, refill, shown - refill

    def parts(block_pixels: int, block_filters: int) -> tuple[int, int]:
        """What streams, and how often."""
        rows = -(-block_pixels // pixels)
        columns = block_filters if grouped else -(-block_filters // array.cols)
        if streams is None:
            return 0, rows * columns
        return (block_pixels, columns) if streams == "pixels" else (block_filters, rows)

    def cost(block_pixels: int, block_filters: int) -> int:
        length, times = parts(block_pixels, block_filters)
        steady, refill, _ = priced(length)
        return times * steady + refill

    def tail(block_pixels: int, block_filters: int) -> int:
        return priced(parts(block_pixels, block_filters)[0])[2]

    return cost, tail


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
        cost=lambda pixels, channels: pixels * ceil_div(channels, at_once) * steps,
        tail=lambda pixels, channels: VECTOR_REGISTERS + (array.vector_taps - 1).bit_length(),
        most_rows=window.out_height,
        most_columns=channels,
        most_band=capacity.band_bytes,
    )
