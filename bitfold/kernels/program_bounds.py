"""Whether a packed program that was read from a file stays inside its arrays and its arena.

C trusts what it is given, so the sizes that ``layouts`` and ``epilogues`` give to arrays and areas
are checked again here from the other side: from what the rows read and write.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bitfold.kernels.packed_step import FieldValue, PackedProgram, PackedStep
from bitfold.kernels.rows import REGISTER_BYTES, Row

LANES, QUAD, VECTOR_LANES = 16, 4, 32
QUAD_BYTES = LANES * QUAD  # of one quad of one block of int8 weights
SLACK_BYTES = 64
BYTES = (1, 4, 4)  # of an element, by C's bf_element
MAX_SHIFT = 63
TO_INDICES, TO_WIDE, TO_ACCUMULATORS = 0, 1, 2
WIDE_SUMS, BOUND_SUMS = 0, 2  # forms of layout depthwise
WORD_BYTES = 2
MOST_SHORT = 3  # thresholds that rows compare in 16 bits
PLANES_STORED = {1: 1, 2: 2}  # by C's bf_plane_op; BF_PLANE_AND stores those of the index
TAPS = 3


@dataclass(frozen=True, slots=True)
class _Struct:
    """Fields of one C struct; those that are absent are 0 in C."""

    fields: Mapping[str, FieldValue]

    def size(self, name: str) -> int:
        """A field that counts something or is a place."""
        value = self.fields.get(name, 0)
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is no size")
        return value

    def sizes(self, names: str) -> list[int]:
        """``size`` of several fields."""
        return [self.size(name) for name in names.split()]

    def holds(self, name: str, count: int) -> None:
        """Raise unless array ``name`` has ``count`` elements or more."""
        array = self.fields.get(name)
        if not isinstance(array, np.ndarray) or array.size < count:
            raise ValueError(f"{name} holds fewer than {count}")


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _require(fits: bool, what: str) -> None:  # noqa: FBT001  # it reads as an assertion
    if not fits:
        raise ValueError(what)


@dataclass(frozen=True, slots=True)
class _Checked:
    """One step with its row, in an arena of ``arena_bytes`` with scratch behind."""

    packed: PackedStep
    row: Row
    arena_bytes: int

    @property
    def step(self) -> _Struct:
        return _Struct(self.packed.fields)

    @property
    def extra(self) -> _Struct:
        return _Struct(self.packed.extra[1] if self.packed.extra else {})

    def lies(self, place: int, num_bytes: int) -> None:
        """Raise unless so many bytes at ``place`` are the arena's."""
        _require(place % QUAD == 0 and place + num_bytes <= self.arena_bytes, "outside the arena")

    def element_bytes(self) -> int:
        """Of the input."""
        return BYTES[self.step.size("x_kind")]

    def reads_image(self) -> None:
        """The input lies in the arena."""
        h, w, c, x = self.step.sizes("h w c x")
        self.lies(x, h * w * c * self.element_bytes())

    def finishes(self, elements: int, lanes: int) -> None:
        """The epilogue's constants suffice for ``lanes``; results and addends lie in the arena."""
        e = _Struct(self.packed.epilogue.fields)
        kind = e.size("kind")
        _require(kind in (TO_INDICES, TO_WIDE, TO_ACCUMULATORS), "no such epilogue")
        self.lies(self.step.size("out"), elements * (1 if kind == TO_INDICES else 4))
        if kind == TO_INDICES and self.extra.size("form") != BOUND_SUMS:
            e.holds("table", lanes * e.size("num_thresholds"))
            e.holds("index_form", lanes // LANES)
            for name in ("sign", "low", "high", "slope", "intercept", "index_shift"):
                e.holds(name, lanes)
        if "short_table" in e.fields:
            _require(1 <= e.size("num_thresholds") <= MOST_SHORT, "too many thresholds")
            e.holds("short_table", lanes * e.size("num_thresholds"))
        if kind == TO_WIDE:
            e.holds("multiplier", lanes)
            e.holds("offset", lanes)
            _require(max(e.sizes("shift negative_shift")) <= MAX_SHIFT, "no such shift")
            if "negative_multiplier" in e.fields:
                e.holds("negative_multiplier", lanes)
            if e.size("has_add"):
                self.lies(e.size("add"), elements * 4)


def check_bounds(program: PackedProgram, rows: Mapping[str, Row]) -> None:
    """Raise ValueError or KeyError where a step of ``program`` would leave its arrays or arena."""
    for symbol, packed in zip(program.symbols, program.steps, strict=True):
        row = rows[symbol]
        h, w, c, oh, ow, o = _Struct(packed.fields).sizes("h w c oh ow o")
        _require(max(h * w * c, oh * ow * o) <= program.arena_bytes, "larger than the arena")
        _OPS[row.op](_Checked(packed, row, program.arena_bytes))


def _lanewise(checked: _Checked) -> None:
    h, w, c = checked.step.sizes("h w c")
    checked.reads_image()
    checked.finishes(h * w * c, _round_up(c, LANES))


def _add(checked: _Checked) -> None:
    c, o, y_c, x_start, y_start = checked.step.sizes("c o y_c x_start y_start")
    pixels = checked.step.size("oh") * checked.step.size("ow")
    for place, channels in zip(checked.step.sizes("x y out"), (c, y_c, o), strict=True):
        checked.lies(place, 4 * pixels * channels)
    _require(x_start + o <= c and y_start + o <= y_c, "channels that do not exist")


def _pool(checked: _Checked) -> None:
    oh, ow, c, out = checked.step.sizes("oh ow c out")
    checked.reads_image()
    is_sum = checked.row.op == "sumpool"
    checked.lies(out, oh * ow * c * (4 if is_sum else checked.element_bytes()))
    h, w, kernel_h, kernel_w, stride_h, stride_w = checked.step.sizes(
        "h w kernel_h kernel_w stride_h stride_w"
    )
    top, left = checked.step.sizes("top left")
    rows, columns = (oh - 1) * stride_h, (ow - 1) * stride_w  # where the last window begins
    if is_sum:
        fits = rows + kernel_h <= h and columns + kernel_w <= w
        _require(fits and top == left == 0, "a window leaves the input")
    _require(top < kernel_h and left < kernel_w, "the first window holds only padding")
    _require(rows < top + h and columns < left + w, "the last window holds only padding")
    _require(kernel_h * kernel_w <= checked.arena_bytes, "the window is larger than the arena")


def _copy(checked: _Checked) -> None:
    h, w, c, o, out = checked.step.sizes("h w c o out")
    checked.reads_image()
    checked.lies(out, h * w * o * checked.element_bytes())
    x_start, out_start, count, repeats = checked.step.sizes("x_start out_start count repeats")
    fits = x_start + count <= c and out_start + count * repeats <= o
    _require(fits, "channels that do not exist")


def _dequantize(checked: _Checked) -> None:
    h, w, c, out = checked.step.sizes("h w c out")
    checked.reads_image()
    checked.lies(out, 4 * h * w * c)
    checked.step.holds("scale", c)


def _conv(checked: _Checked) -> None:
    s = checked.step
    _check_geometry(s)
    checked.reads_image()
    oh, ow, o, groups, group_lanes = s.sizes("oh ow o groups group_lanes")
    by_channel = checked.row.layout in ("depthwise", "vector")
    lanes = _round_up(o, LANES) if by_channel else groups * group_lanes
    checked.finishes(oh * ow * o, lanes)
    s.holds("bias", lanes)
    padded_h, padded_w, group_c = s.sizes("padded_h padded_w group_c")
    copied = groups * padded_h * padded_w * group_c if s.size("has_copy") else 0
    panels, panel_bytes, scratch = _LAYOUTS[checked.row.layout](checked, copied)
    weight = s.fields["weight"]
    assert isinstance(weight, np.ndarray)
    _require(s.size("panel_bytes") >= panel_bytes, "a panel is too short")
    _require(weight.nbytes >= panels * s.size("panel_bytes"), "panels are missing")
    _require(checked.packed.scratch_bytes >= scratch, "too little scratch")


def _check_geometry(s: _Struct) -> None:
    """Windows lie in the padded image, channels and lanes add up."""
    h, w, c, oh, ow, o = s.sizes("h w c oh ow o")
    kernel_h, kernel_w, stride_h, stride_w = s.sizes("kernel_h kernel_w stride_h stride_w")
    top, left, padded_h, padded_w, fill = s.sizes("top left padded_h padded_w fill")
    groups, group_c, group_o, group_lanes = s.sizes("groups group_c group_o group_lanes")
    _require(min(h, w, c, oh, ow, o, kernel_h, kernel_w, stride_h, stride_w, groups) > 0, "empty")
    _require(top + h <= padded_h and left + w <= padded_w and fill < 256, "padding")
    _require(
        (padded_h - kernel_h) // stride_h == oh - 1 and (padded_w - kernel_w) // stride_w == ow - 1,
        "windows do not cover the padded input",
    )
    _require(groups * group_c == c and groups * group_o == o, "groups")
    _require(group_lanes == _round_up(group_o, LANES), "lanes")
    is_plain = groups == 1 and (padded_h, padded_w) == (h, w)
    _require(is_plain or s.size("has_copy") == 1, "a padded input is not copied")
    _require(s.size("has_copy") <= 1, "more than one copy")


Needs = tuple[int, int, int]  # panels, bytes of one, bytes of scratch


def _blocks(s: _Struct) -> int:
    return s.size("groups") * s.size("group_lanes") // LANES


def _quads(checked: _Checked, element_bytes: int = 1) -> int:
    """Quads of bytes of all segments, which must not leave the window's rows."""
    s = checked.step
    kernel_h, kernel_w, group_c, padded_w = s.sizes("kernel_h kernel_w group_c padded_w")
    pixel = group_c * element_bytes
    reach = (kernel_h - 1) * padded_w * pixel + _round_up(kernel_w * pixel, QUAD)
    ends = [segment.offset + QUAD * segment.num_quads for segment in checked.packed.segments]
    _require(bool(ends) and max(ends) <= reach, "a segment leaves its window")
    return sum(segment.num_quads for segment in checked.packed.segments)


def _direct(checked: _Checked, copied: int) -> Needs:
    digits, scratch = max(1, checked.step.size("digits")), copied + SLACK_BYTES if copied else 0
    return _blocks(checked.step), digits * QUAD_BYTES * _quads(checked), scratch


def _direct_wide(checked: _Checked, copied: int) -> Needs:
    _require(copied > 0, "words need a copy")
    digits = max(1, checked.step.size("digits"))
    panel_bytes = digits * QUAD_BYTES * _quads(checked, WORD_BYTES)
    return _blocks(checked.step), panel_bytes, WORD_BYTES * copied + SLACK_BYTES


def _packed(checked: _Checked, copied: int) -> Needs:
    bits, expanded = checked.extra.sizes("bits expanded_bytes")
    checked.extra.holds("table", 16)
    _require(expanded >= QUAD_BYTES * _quads(checked) and 1 <= bits <= 4, "a panel is too short")
    _require(checked.step.size("digits") < 2, "packed digits")
    held = (4 if checked.row.isa == "avx512vnni" else 2) * expanded
    scratch = _round_up(copied + SLACK_BYTES, SLACK_BYTES) + held + SLACK_BYTES
    return _blocks(checked.step), expanded * bits // 8, scratch


def _bitserial(checked: _Checked, copied: int) -> Needs:
    s, extra = checked.step, checked.extra
    kernel_h, kernel_w, padded_h, padded_w = s.sizes("kernel_h kernel_w padded_h padded_w")
    x_planes, num_words, group_c = s.sizes("x_planes num_words group_c")
    op, depth, row_words = extra.sizes("op bit_depth row_words")
    _require(depth == _round_up(group_c, 8) and 32 * row_words >= padded_w * depth, "plane rows")
    _require(32 * num_words >= kernel_w * depth * kernel_h and 1 <= x_planes <= 8, "plane words")
    _require(op <= 2 and s.size("w_planes") <= 8, "no such operation")
    planes = PLANES_STORED.get(op, s.size("w_planes"))
    words = padded_h * x_planes * row_words + LANES + padded_h * padded_w + 4 * x_planes * num_words
    scratch = _round_up(copied + SLACK_BYTES, SLACK_BYTES) + 32 * row_words + 4 * words
    return _blocks(s), planes * num_words * 4 * LANES, scratch + SLACK_BYTES


def _dictionary(checked: _Checked, _: int) -> Needs:
    s, extra = checked.step, checked.extra
    group, levels, pixel_groups, entries, vector_blocks = extra.sizes(
        "group levels pixel_groups entries vector_blocks"
    )
    _require((entries, vector_blocks) in ((16, 2), (64, 4)) and 2 <= group <= 8, "no such table")
    _require(pixel_groups * group >= s.size("group_c"), "channels without a code")
    extra.holds("table", levels**group * entries)
    kernel_h, kernel_w, padded_h, padded_w = s.sizes("kernel_h kernel_w padded_h padded_w")
    per_group = -(-s.size("group_lanes") // (LANES * vector_blocks))
    codes = kernel_h * kernel_w * pixel_groups
    panel_bytes = codes * LANES * vector_blocks // (2 if entries == 16 else 1)
    scratch = 2 * padded_h * padded_w * pixel_groups + SLACK_BYTES
    return s.size("groups") * per_group, panel_bytes, scratch


def _depthwise(checked: _Checked, _: int) -> Needs:
    s, register = checked.step, REGISTER_BYTES[checked.row.isa]
    kernel_h, kernel_w, w, c, groups = s.sizes("kernel_h kernel_w w c groups")
    _require(groups == c, "not a filter a channel")
    pairs, registers = -(-kernel_h * kernel_w // 2), -(-c // register)
    form = checked.extra.size("form")
    _require(form <= BOUND_SUMS, "no such sums")
    if form == BOUND_SUMS:
        count = _Struct(checked.packed.epilogue.fields).size("num_thresholds")
        checked.extra.holds("bounds", registers * register * count)
    panel_bytes = 2 * pairs * register * (2 if form == WIDE_SUMS else 1)
    return registers, panel_bytes, (2 * pairs + 1) * 8 + w * c + SLACK_BYTES


def _vector(checked: _Checked, _: int) -> Needs:
    s = checked.step
    h, w, c, o, oh, ow = s.sizes("h w c o oh ow")
    bits, num_groups, flush = checked.extra.sizes("bits num_groups flush")
    _require(bits in (1, 2, 4, 8) and (oh, ow, s.size("groups")) == (1, 1, 1), "not a vector")
    read = num_groups * QUAD * 8 // bits
    _require(read <= h * w * c + SLACK_BYTES, "more input than there is")
    s.holds("bias", _round_up(o, VECTOR_LANES))
    scratch = 0 if flush else 2 * h * w * c + SLACK_BYTES
    return -(-o // VECTOR_LANES), num_groups * QUAD * VECTOR_LANES, scratch


def _winograd(checked: _Checked, _: int) -> Needs:
    s, extra = checked.step, checked.extra
    tile_h, tile_w, tiles_y, tiles_x = extra.sizes("tile_h tile_w tiles_y tiles_x")
    oh, ow, w, c = s.sizes("oh ow w c")
    _require(2 <= tile_h <= 4 and 2 <= tile_w <= 4, "no such tile")
    _require(tiles_y == -(-oh // tile_h) and tiles_x == -(-ow // tile_w), "other tiles")
    _require(s.sizes("kernel_h kernel_w stride_h stride_w groups") == [3, 3, 1, 1, 1], "no tiles")
    positions, quads, pitch = (tile_h + 2) * (tile_w + 2), *extra.sizes("num_quads pitch")
    _require(QUAD * quads >= c and pitch >= QUAD * quads, "channels without a place")
    blocks = _blocks(s)
    counts = {"offsets": 64 * positions, "borders": tile_h + 2, "scales": positions}
    for name, count in (counts | {"starts": blocks * positions * LANES}).items():
        extra.holds(name, count)
    if checked.row.isa == "avx2":
        extra.holds("flushes", positions)
    pixels, row_bytes, tiles = tiles_x * tile_w + TAPS - 1, *extra.sizes("row_bytes block_tiles")
    _require(row_bytes >= pixels * c + SLACK_BYTES and tiles % 6 == 0 < tiles, "rows of tiles")
    areas = {
        "fill_at": w * c, "rows_at": (tile_h + 2) * row_bytes, "sums_at": 4 * (tile_h + 2) * pixels,
        "windows_at": 4 * tiles_y * tile_h * tiles_x * tile_w,
        "transformed_at": tiles * positions * pitch,
    }  # fmt: skip
    places = sorted((extra.size(name), num_bytes) for name, num_bytes in areas.items())
    starts = [start for start, _ in places[1:]]
    overlap = any(a + n > b for (a, n), b in zip(places, starts, strict=False))
    _require(not overlap, "areas overlap")
    return blocks, positions * quads * QUAD_BYTES, sum(places[-1]) + SLACK_BYTES


_OPS: Mapping[str, Callable[[_Checked], None]] = {
    "conv2d": _conv,
    "thresholds": _lanewise,
    "rescale": _lanewise,
    "add": _add,
    "maxpool": _pool,
    "sumpool": _pool,
    "copy": _copy,
    "dequantize": _dequantize,
}
_LAYOUTS: Mapping[str, Callable[[_Checked, int], Needs]] = {
    "direct": _direct,
    "direct_wide": _direct_wide,
    "direct_bytes": _direct,
    "direct_signed": _direct,
    "packed": _packed,
    "bitserial": _bitserial,
    "dictionary": _dictionary,
    "depthwise": _depthwise,
    "vector": _vector,
    "winograd": _winograd,
}
