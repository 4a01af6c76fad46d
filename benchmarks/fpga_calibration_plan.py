"""What ``fpga_calibration.py`` synthesises: units of the emitted Verilog by group."""

from collections.abc import Iterator
from itertools import product
from random import Random

from bitfold.fpga_sim.pe_model import Operands
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


# Accumulator bits of a kind: what 4608 products of it need (ResNet-18), roughly.
GRID = {
    "1x1": 14, "1x2": 15, "1x4": 17, "TxT": 14, "Tx2": 15, "Tx4": 17, "u2x2": 17, "s2x2": 16,
    "o2x2": 17, "s3x3": 18, "o3x3": 20, "s4x4": 21, "o4x4": 22, "s8x8": 29,
    "s2x4": 18, "s4x2": 18, "s4x3": 20, "s6x5": 24, "Tx8": 21, "u3x3": 20, "1x6": 19,
}  # fmt: skip
# PEs: (kind, lanes, accumulator bits), output-stationary, then the other dataflows.
PES = (
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
CONTROLLERS = (
    ("bf_control_os", {}),
    ("bf_control_ws", {"ROLE": 0}),
    ("bf_control_ws", {"ROLE": 1}),
)
# Single products with DSP blocks: weight bits, activation bits, format of the weight.
ALONE = ((2, 2, 1), (3, 5, 1), (4, 4, 1), (4, 5, 1), (4, 4, 2), (8, 8, 2), (8, 8, 0), (6, 5, 1),
         (1, 8, 1), (8, 1, 1), (2, 7, 1))  # fmt: skip
# Pairs: formats of both follow.
PAIRS = ((2, 2, 0, 0), (2, 2, 1, 0), (3, 2, 1, 1), (3, 2, 2, 0), (4, 4, 1, 0), (4, 4, 0, 2),
         (2, 5, 1, 0), (2, 5, 0, 1), (1, 3, 2, 2), (5, 4, 2, 1), (1, 6, 2, 0),
         (6, 1, 1, 2))  # fmt: skip
# What is drawn at random, after every law and table was settled.
SEED = 20261121
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
# Controllers: sizes, and bits of a table's index at the first of them.
SIZES = ((4, 4), (8, 8), (16, 16), (32, 16))
TABLE_BITS = (1, 8)
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
    for module, role in CONTROLLERS:
        for shadow in (0, 1):
            own = {"SHADOW": shadow} | role
            for rows, cols in SIZES:
                yield Unit(module, {"ROWS": rows, "COLS": cols, "TW": 4} | own)
            for bits in TABLE_BITS:
                yield Unit(module, {"ROWS": 4, "COLS": 4, "TW": bits} | own)
            for planes in ((2, 2), (4, 4)):
                planes_of = dict(zip(("PA", "PW"), planes, strict=True))
                yield Unit(module, {"ROWS": 8, "COLS": 8, "TW": 4} | planes_of | own)


def small_parts() -> Iterator[Unit]:
    """Skew registers, plane multiplexers, the XNOR correction."""
    for parts, width in ((8, 7), (4, 12), (40, 3)):
        yield Unit("bf_skew", {"PARTS": parts, "WIDTH": width})
    for bits in (2, 3, 4, 8):
        yield Unit("bf_select", {"PARTS": 8, "B": bits})
    for acc in (10, 14):
        yield Unit("bf_settle", {"COLS": 4, "ACC": acc, "XNOR": 1})


def nodes() -> Iterator[Unit]:
    """Adders of the tree and counters of lanes."""
    for bits in (2, 3, 5, 8, 11, 16, 21):
        for signed in (0, 1):
            yield Unit("bf_add", {"IN": bits, "OUT": bits + 1, "SIGNED": signed})
    yield Unit("bf_add", {"IN": 6, "OUT": 6, "SIGNED": 1})
    for lanes in (1, 2, 3):
        for xnor in (0, 1):
            yield Unit("bf_count", {"LANES": lanes, "XNOR": xnor})


def memory(width: int, depth: int, *, ultra: bool = False) -> Unit:
    """A buffer."""
    bits = max(1, (depth - 1).bit_length())
    return Unit("bf_memory", {"WIDTH": width, "DEPTH": depth, "AW": bits}, ultra=ultra)


def products() -> Iterator[Unit]:
    """Every product of a lane: all operands that a PE may have."""
    for bits, form in product(range(1, 9), FORMATS.values()):
        if (bits, form) != (1, 2):
            yield Unit("bf_product", operand_values(0, 1, bits, 2, form))
        yield Unit("bf_product", operand_values(1, 2, bits, 1, form))
    for row in product(range(1, 9), range(1, 9), FORMATS.values(), FORMATS.values()):
        yield Unit("bf_product", operand_values(2, *row))


def packed() -> Iterator[Unit]:
    """Pairs of products of single bits, which take no DSP block."""
    for forms in product(FORMATS.values(), FORMATS.values()):
        yield pair(1, 1, *forms)


def pair(*row: int) -> Unit:
    """Two products in one DSP block."""
    values = operand_values(2, *row) | {"FIELD": row[0] + row[1] + 2}
    return Unit("bf_packed", {k: v for k, v in values.items() if k != "KIND"}, dsp=True)


def operand_values(*row: int) -> dict[str, int]:
    """KIND, WB, AB, W_FMT and A_FMT by name."""
    return dict(zip(NAMES, row, strict=True))


def drawn_operands(random: Random) -> dict[str, int]:
    """Operands at random: every kind is as likely, and every width."""
    kind = random.randrange(5)
    w_bits, a_bits = random.randint(1, 8), random.randint(1, 8)
    w_form, a_form = random.randrange(3), random.randrange(3)
    if kind == 0:
        return operand_values(0, 1, a_bits, 2, a_form)
    if kind == 1:
        return operand_values(1, 2, a_bits, 1, a_form)
    if kind == 3:
        return operand_values(3, 1, 1, 0, 0)
    if kind == 4:
        w_bits, a_bits = min(w_bits, 4), min(a_bits, 4)
    return operand_values(kind, w_bits, a_bits, w_form, a_form)


def drawn_pe(random: Random) -> Unit:
    """A PE at random: up to 40 lanes, an accumulator of up to 12 bits more than a term has."""
    values = drawn_operands(random)
    operands = Operands(*(values[name] for name in NAMES))
    lanes = random.choice((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40))
    if operands.kind == 4:
        lanes += lanes % 2
    values |= {"LANES": lanes, "ACC": operands.dot_bits(lanes) + random.randint(1, 12),
               "SHADOW": random.randrange(2)}  # fmt: skip
    module = random.choice(("bf_pe", "bf_pe", "bf_pe_ws"))
    if module == "bf_pe_ws":
        values["ROLE"] = random.randrange(2)
    return Unit(module, values, dsp=operands.kind == 4)


def drawn_array(random: Random) -> Unit:
    """An array at random, of at most 30 PEs."""
    one = drawn_pe(random)
    size = {"ROWS": random.randint(1, 6), "COLS": random.randint(1, 5)}
    module = one.module.replace("pe", "array_os").replace("os_ws", "ws")
    return Unit(module, dict(one.parameters) | size, one.dsp)


def drawn_top(random: Random) -> Unit:
    """A whole design at random."""
    array = drawn_array(random)
    values = dict(array.parameters)
    values["DATAFLOW"] = 1 + values.pop("ROLE") if "ROLE" in values else 0
    bits, tables = random.randint(1, 4), random.choice((1, 3, 8, 16, 20, 40))
    values |= {"OB": bits, "COUNT": 2**bits - 1, "TABLES": tables, "SEARCH": int(bits > 3),
               "TW": max(1, (tables - 1).bit_length())}  # fmt: skip
    if values["KIND"] == 3:
        values |= {"WB": random.randint(1, 4), "AB": random.randint(1, 4),
                   "W_FMT": 1, "A_FMT": 0}  # fmt: skip
    return Unit("bf_top", values, array.dsp)


def plan() -> dict[str, list[Unit]]:
    """Group → runs. In the table: ``product``, ``packed``, ``control``; the rest tests it."""
    grid = [pe(kind, lanes, acc) for kind, acc in GRID.items() for lanes in (9,)]
    grid += [pe(*row) for row in PES]
    grid += [pe(*row, ROLE=0) for row in STATIONARY]
    grid += [pe("o2x2", 4, 17, SHADOW=1), pe("1x1", 8, 14, SHADOW=1)]
    grid += [pe(*row, **edge) for row in (("s4x4", 4, 21), ("serial", 8, 16))
             for edge in ({"TOP": 1}, {"RIGHT": 1}, {"BOTTOM": 1})]  # fmt: skip
    draw = Random(SEED)
    return {
        "node": list(nodes()),
        "part": list(small_parts()),
        "product": list(products()),
        "packed": list(packed()),
        "dsp": [
            *(pair(*row) for row in PAIRS),
            *(Unit("bf_product", operand_values(4, *row, 0), dsp=True) for row in ALONE),
        ],
        "pe": list({unit.key: unit for unit in grid}.values()),
        "array": [array(*row) for row in (*ARRAYS, *MORE_ARRAYS)],
        "held-out pe": [drawn_pe(draw) for _ in range(80)],
        "held-out array": [drawn_array(draw) for _ in range(16)],
        "control": list(controllers()),
        "held-out top": [drawn_top(draw) for _ in range(8)],
        "threshold": [threshold(*row) for row in THRESHOLDS],
        "held-out threshold": [threshold(*row) for row in HELD_THRESHOLDS],
        "memory": [memory(*row) for row in MEMORIES],
        "ultra memory": [memory(*row, ultra=True) for row in ULTRA_MEMORIES],
        "top": [top(*row) for row in TOPS],
    }
