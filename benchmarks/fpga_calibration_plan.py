"""What ``fpga_calibration.py`` synthesises: units of the emitted Verilog by group."""

from collections.abc import Iterator

from bitfold.fpga_sim.synthesis import Unit

# Parameters of an operand kind; formats are 0 unsigned, 1 two's complement, 2 odd.
NAMES = ("KIND", "WB", "AB", "W_FMT", "A_FMT")


FORMATS = {"u": 0, "s": 1, "o": 2}
SINGLE = {"1x1": (0, 1, 1, 2, 2), "TxT": (1, 2, 2, 1, 1), "o2xo2": (2, 2, 2, 2, 2),
          "serial": (3, 1, 1, 0, 0)}  # fmt: skip


def operands(name: str) -> dict[str, int]:
    """Parameters of an operand kind: ``1xA``, ``TxA``, ``sWxA``, ``oWxA``, ``uWxA``, ``dspWxA``.

    Weights are binary, ternary, two's complement, odd or unsigned; activations unsigned.
    """
    if name in SINGLE:
        return dict(zip(NAMES, SINGLE[name], strict=True))
    left, right = name.removeprefix("dsp").split("x")
    a_bits = int(right)
    if left == "1":
        row = (0, 1, a_bits, 2, 0)
    elif left == "T":
        row = (1, 2, a_bits, 1, 0)
    else:
        digits = left.lstrip("uso")
        form = FORMATS.get(left[0], 1)
        row = (4 if name.startswith("dsp") else 2, int(digits), a_bits, form, 0)
    return dict(zip(NAMES, row, strict=True))


# Accumulator bits of a kind in the grid: what 4608 products of it need (ResNet-18), roughly.
GRID = {
    "1x1": 14, "1x2": 15, "1x4": 17, "TxT": 14, "Tx2": 15, "Tx4": 17, "u2x2": 17, "s2x2": 16,
    "o2x2": 17, "s3x3": 18, "o3x3": 20, "s4x4": 21, "o4x4": 22, "s8x8": 29,
    "s2x4": 18, "s4x2": 18, "s4x3": 20, "s6x5": 24, "Tx8": 21, "u3x3": 20, "1x6": 19,
}  # fmt: skip
# More lanes of some kinds, and single lanes (the product alone) of kinds that no fit holds else.
MORE = (
    ("1x1", 12, 14),
    ("1x1", 32, 14),
    ("1x1", 6, 14),
    ("s2x2", 32, 16),
    ("o3x3", 32, 20),
    ("TxT", 32, 14),
    ("s2x2", 6, 16),
    ("o4x4", 3, 22),
    ("1x2", 12, 15),
    ("s2x2", 24, 16),
    ("o2x4", 1, 19),
    ("o4x2", 1, 19),
    ("o3x4", 1, 21),
    ("o2x3", 1, 18),
    ("s8x4", 1, 24),
    ("s8x2", 1, 21),
    ("s5x5", 1, 23),
    ("s6x6", 1, 25),
    ("u4x4", 1, 22),
    ("s4x8", 1, 24),
    ("o2xo2", 1, 18),
    ("s2x2", 4, 20),
    ("1x1", 16, 20),
    ("o4x4", 4, 16),
    ("1x1", 2, 20),
)
GRID_LANES = (1, 2, 4, 8, 16)
SERIAL_LANES = (1, 4, 8, 16, 32)
DSP_GRID = (("dsp4x4", 21, (1, 2, 4, 8, 16)), ("dsp8x8", 29, (1, 2, 4)), ("dspo4x4", 22, (2, 4, 8)))
# A first round, held out of the fit of all above: its worst LUT error was 12 %, and 35 % at 64
# lanes of a popcount. It then joined the fit.
FIRST_ROUND = (
    ("o2x4", 4, 19), ("o4x2", 8, 19), ("o3x4", 4, 21), ("o2x3", 16, 18), ("s8x4", 4, 24),
    ("s8x2", 8, 21), ("1x3", 8, 16), ("Tx3", 8, 16), ("1x8", 4, 21), ("s5x5", 4, 23),
    ("s6x6", 8, 25), ("u4x4", 8, 22), ("s4x8", 2, 24), ("s2x2", 3, 16), ("o2x2", 12, 17),
    ("s4x4", 6, 21), ("1x1", 24, 14), ("1x1", 64, 14), ("TxT", 12, 14), ("o2x2", 32, 17),
    ("o4x4", 12, 22), ("s3x3", 24, 18), ("o2x2", 4, 12), ("o2x2", 8, 22), ("1x1", 8, 10),
    ("s8x8", 3, 24), ("1x2", 32, 15), ("serial", 64, 16), ("serial", 12, 20), ("dsp4x4", 6, 18),
)  # fmt: skip
WIDER = (
    ("s5x5", 2, 23),
    ("s5x5", 8, 24),
    ("s6x6", 2, 24),
    ("s7x7", 2, 26),
    ("s7x7", 4, 26),
    ("s7x7", 1, 26),
    ("1x1", 48, 14),
    ("1x1", 128, 16),
    ("serial", 24, 16),
    ("serial", 128, 16),
    ("serial", 2, 16),
    ("s5x3", 1, 18),
    ("s8x6", 1, 26),
    ("s3x6", 1, 20),
    ("o6x4", 1, 22),
)
# The second, drawn at random (seed 6) after that: worst 35 %, asymmetric products. It joined too,
# and every product (one lane) was added.
SECOND_ROUND = (
    ("u8x6", 4, 26), ("u2x4", 2, 13), ("s2x8", 12, 22), ("o7x6", 5, 21), ("o6x8", 4, 25),
    ("s4x2", 24, 15), ("s2x7", 8, 18), ("1x2", 8, 13), ("1x7", 18, 16), ("o2x2", 40, 17),
    ("Tx2", 12, 13), ("Tx3", 8, 18), ("1x3", 7, 9), ("1x3", 24, 15), ("1x5", 10, 12),
    ("u6x2", 24, 20), ("1x3", 12, 16), ("1x2", 48, 9), ("Tx4", 40, 18), ("s7x4", 7, 22),
    ("o5x5", 7, 19), ("1x3", 2, 10), ("s6x8", 3, 22), ("Tx5", 6, 19),
    ("1x1", 36, 15), ("1x1", 96, 16), ("1x1", 10, 12), ("serial", 48, 18), ("serial", 6, 14),
    ("dsp4x4", 12, 20), ("dsp2x2", 4, 15), ("dsp8x8", 3, 26),
)  # fmt: skip
# The third round, drawn at random (seed 7) after that, and popcounts; never in a fit.
HELD_OUT = (
    ("s5x3", 3, 14), ("u2x4", 18, 11), ("o2x3", 4, 16), ("s3x2", 4, 18), ("s8x2", 5, 18),
    ("o6x7", 3, 24), ("1x3", 3, 17), ("u3x3", 24, 13), ("o6x2", 14, 21), ("u2x4", 5, 14),
    ("s6x2", 4, 13), ("s3x4", 7, 15), ("1x6", 14, 20), ("s2x6", 5, 21), ("Tx5", 24, 12),
    ("o8x2", 16, 20), ("o5x8", 4, 19), ("s7x5", 4, 17), ("1x5", 18, 13), ("o5x2", 3, 15),
    ("1x1", 20, 15), ("1x1", 56, 12), ("1x1", 7, 11), ("1x1", 110, 18), ("serial", 40, 15),
    ("serial", 10, 17), ("dsp4x4", 10, 20), ("dsp3x3", 4, 16), ("dsp8x8", 6, 28),
)  # fmt: skip
# Other dataflows and drains: (kind, lanes, accumulator bits), never in a fit either.
STATIONARY = (("1x1", 8, 14), ("TxT", 4, 14), ("o2x2", 4, 17), ("o2x2", 16, 17), ("s4x4", 2, 21),
              ("1x2", 8, 15), ("s8x8", 1, 29), ("serial", 8, 16), ("dsp4x4", 4, 21))  # fmt: skip
# Arrays: (module, kind, lanes, accumulator bits, rows, columns, shadow).
ARRAYS = (
    ("os", "1x1", 1, 14, 4, 4, 0), ("os", "1x1", 16, 14, 4, 4, 0), ("os", "1x2", 4, 15, 3, 5, 0),
    ("os", "TxT", 1, 14, 4, 4, 0), ("os", "TxT", 8, 14, 3, 4, 1), ("os", "s2x2", 1, 16, 4, 4, 1),
    ("os", "o2x2", 4, 17, 4, 4, 0), ("os", "o2x2", 4, 17, 4, 4, 1), ("os", "s3x3", 2, 18, 4, 4, 0),
    ("os", "o3x3", 4, 20, 3, 4, 0), ("os", "s4x4", 1, 21, 4, 4, 0), ("os", "o4x4", 4, 22, 4, 4, 0),
    ("os", "s8x8", 1, 29, 4, 4, 0), ("os", "serial", 8, 16, 4, 4, 0),
    ("os", "dsp4x4", 4, 21, 4, 4, 0), ("os", "s2x2", 1, 16, 8, 8, 0), ("os", "1x1", 1, 14, 8, 8, 0),
    ("ws", "1x1", 8, 14, 4, 4, 0), ("ws", "s2x2", 1, 16, 4, 4, 0), ("ws", "o2x2", 4, 17, 4, 4, 0),
    ("ws", "o2x2", 4, 17, 4, 4, 1), ("ws", "TxT", 4, 14, 3, 5, 1), ("ws", "s4x4", 2, 21, 4, 4, 0),
    ("ws", "o2x2", 1, 17, 8, 8, 0), ("is", "o2x2", 4, 17, 4, 4, 0), ("is", "1x2", 8, 15, 4, 4, 1),
)  # fmt: skip
MORE_ARRAYS = (
    ("os", "dsp8x8", 2, 29, 3, 4, 0),
    ("ws", "dsp4x4", 4, 21, 3, 4, 0),
    ("os", "o2x2", 1, 17, 16, 16, 0),
)
# One threshold unit: accumulator bits, code bits, tables, search.
THRESHOLDS = (
    (14, 1, 16, 0), (20, 1, 1, 0), (12, 2, 16, 0), (16, 2, 16, 0), (22, 2, 16, 0), (16, 2, 1, 0),
    (16, 2, 4, 0), (16, 2, 64, 0), (17, 2, 128, 0), (18, 3, 16, 0), (20, 3, 1, 0), (18, 3, 32, 0),
    (21, 4, 16, 0), (20, 2, 8, 1), (18, 3, 16, 1), (16, 4, 16, 1), (21, 4, 1, 1), (22, 4, 64, 1),
    (29, 8, 1, 1), (24, 8, 4, 1), (22, 6, 16, 1),
)  # fmt: skip
HELD_THRESHOLDS = ((15, 2, 32, 0), (17, 3, 8, 0), (19, 4, 32, 1), (24, 5, 8, 1), (18, 2, 2, 0),
                   (16, 4, 4, 0))  # fmt: skip
SIZES = ((4, 4), (8, 8), (16, 16), (32, 16))
# Buffers: word bits, words.
MEMORIES = (
    (32, 512), (36, 512), (36, 513), (20, 64), (64, 1025), (16, 1024), (128, 1000), (10, 20000),
    (1, 65536), (72, 512), (64, 4096), (18, 2048), (9, 5000), (24, 32), (8, 3), (136, 256), (17, 6),
    (256, 700), (40, 130), (100, 3000), (5, 9000), (4, 40000), (12, 1), (544, 96),
)  # fmt: skip
ULTRA_MEMORIES = ((72, 4096), (100, 5000), (36, 20000), (144, 3000), (8, 9000))
# Whole tops: dataflow, kind, lanes, accumulator bits, rows, columns, shadow, code bits, tables.
TOPS = (
    (0, "s2x2", 1, 16, 4, 4, 0, 2, 16), (1, "s2x2", 1, 16, 4, 4, 0, 2, 16),
    (0, "o2x2", 4, 17, 4, 4, 1, 2, 4), (0, "1x1", 16, 14, 4, 4, 0, 1, 16),
    (0, "TxT", 4, 14, 4, 4, 0, 2, 8), (2, "o2x2", 4, 17, 4, 4, 1, 2, 64),
    (1, "o4x4", 2, 22, 4, 4, 0, 4, 8), (0, "o2x2", 1, 17, 8, 8, 0, 2, 16),
    (0, "serial", 8, 18, 4, 4, 0, 2, 16), (0, "dsp4x4", 4, 21, 4, 4, 0, 4, 8),
)  # fmt: skip


def pe(name: str, lanes: int, acc: int, **more: int) -> Unit:
    """One PE; ``module`` bf_pe, or bf_pe_ws where ROLE is given."""
    module = "bf_pe_ws" if "ROLE" in more else "bf_pe"
    parameters = operands(name) | {"LANES": lanes, "ACC": acc} | more
    return Unit(module, parameters, dsp=name.startswith("dsp"))


def array(flow: str, kind: str, lanes: int, acc: int, rows: int, cols: int, shadow: int) -> Unit:
    """A whole array without controller."""
    parameters = operands(kind) | {"LANES": lanes, "ACC": acc, "ROWS": rows, "COLS": cols,
                                   "SHADOW": shadow}  # fmt: skip
    if flow != "os":
        parameters["ROLE"] = int(flow == "is")
    return Unit("bf_array_os" if flow == "os" else "bf_array_ws", parameters,
                dsp=kind.startswith("dsp"))  # fmt: skip


def threshold(acc: int, bits: int, tables: int, search: int) -> Unit:
    """One threshold unit."""
    width = max(1, (tables - 1).bit_length())
    return Unit("bf_threshold", {"ACC": acc, "OB": bits, "COUNT": 2**bits - 1, "DEPTH": tables,
                                 "TW": width, "SEARCH": search})  # fmt: skip


def top(flow: int, kind: str, lanes: int, acc: int, rows: int, cols: int, shadow: int,
        bits: int, tables: int) -> Unit:  # fmt: skip
    """The whole design: array, skew, controller, threshold units, accumulator memory."""
    parameters = operands(kind) | {
        "DATAFLOW": flow, "LANES": lanes, "ACC": acc, "ROWS": rows, "COLS": cols, "SHADOW": shadow,
        "OB": bits, "COUNT": 2**bits - 1, "TABLES": tables,
        "TW": max(1, (tables - 1).bit_length()), "SEARCH": int(bits > 3),
    }  # fmt: skip
    if kind == "serial":
        parameters |= {"WB": 2, "AB": 2, "W_FMT": 1}
    return Unit("bf_top", parameters, dsp=kind.startswith("dsp"))


def controllers() -> Iterator[Unit]:
    """Both controllers at four sizes, both drains, plain and bit-serial."""
    for module in ("bf_control_os", "bf_control_ws"):
        for rows, cols in SIZES:
            for shadow in (0, 1):
                yield Unit(module, {"ROWS": rows, "COLS": cols, "SHADOW": shadow})
        yield Unit(module, {"ROWS": 8, "COLS": 8, "SHADOW": 0, "PA": 2, "PW": 2})
        yield Unit(module, {"ROWS": 8, "COLS": 8, "SHADOW": 0, "PA": 4, "PW": 4})


def small_parts() -> Iterator[Unit]:
    """Skew registers, plane multiplexers, the XNOR correction."""
    for parts, width in ((8, 7), (4, 12), (40, 3)):
        yield Unit("bf_skew", {"PARTS": parts, "WIDTH": width})
    for bits in (2, 3, 4, 8):
        yield Unit("bf_select", {"PARTS": 8, "B": bits})
    for acc in (10, 14):
        yield Unit("bf_settle", {"COLS": 4, "ACC": acc, "XNOR": 1})


def memory(width: int, depth: int, *, ultra: bool = False) -> Unit:
    """A buffer."""
    bits = max(1, (depth - 1).bit_length())
    return Unit("bf_memory", {"WIDTH": width, "DEPTH": depth, "AW": bits}, ultra=ultra)


def products() -> Iterator[str]:
    """Operand kinds of LUT multipliers whose one-lane PE is in the table."""
    have = set(GRID) | {row[0] for row in (*MORE, *WIDER) if row[1] == 1}
    for form, widths, others in (("s", range(2, 9), range(2, 9)), ("o", range(2, 6), range(2, 9)),
                                 ("u", range(2, 5), range(2, 5))):  # fmt: skip
        for w_bits in widths:
            for a_bits in others:
                kind = f"{form}{w_bits}x{a_bits}"
                if kind not in have:
                    yield kind


def plan() -> dict[str, list[Unit]]:
    """Group → runs. What is fitted: ``pe``, ``threshold``, ``control``; the rest tests it."""
    grid = [pe(kind, lanes, acc) for kind, acc in GRID.items() for lanes in GRID_LANES]
    grid += [pe("serial", lanes, 16) for lanes in SERIAL_LANES]
    grid += [pe(kind, lanes, acc) for kind, acc, many in DSP_GRID for lanes in many]
    grid += [pe(*row) for row in (*MORE, *FIRST_ROUND, *WIDER, *SECOND_ROUND)]
    grid += [pe(kind, 1, 20) for kind in products()]
    grid = list({unit.key: unit for unit in grid}.values())
    held = [pe(*row) for row in HELD_OUT]
    held += [pe(*row, ROLE=0) for row in STATIONARY]
    held += [pe("o2x2", 4, 17, SHADOW=1), pe("1x1", 8, 14, SHADOW=1)]
    rows = [pe("s2x2", 1, 16, TOP=1), pe("s2x2", 4, 16, TOP=1), pe("o2x2", 4, 17, TOP=1)]
    return {
        "pe": grid,
        "threshold": [threshold(*row) for row in THRESHOLDS],
        "control": list(controllers()),
        "part": list(small_parts()),
        "held-out pe": held,
        "held-out threshold": [threshold(*row) for row in HELD_THRESHOLDS],
        "memory": [memory(*row) for row in MEMORIES],
        "row": rows,
        "ultra memory": [memory(*row, ultra=True) for row in ULTRA_MEMORIES],
        "array": [array(*row) for row in (*ARRAYS, *MORE_ARRAYS)],
        "top": [top(*row) for row in TOPS],
    }
