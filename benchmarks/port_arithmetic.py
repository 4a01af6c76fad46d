"""What ports and latencies allow the inner loops of the compiled AVX-512 and AVX2 rows: a model.

    python benchmarks/port_arithmetic.py [--kernels build/lib.so] [--compiler "gcc 12.2"] \
        [--out benchmarks/results/port_arithmetic.json] [--ghz 4.2]

Nothing is run. objdump disassembles the library; of every row the innermost loops with the most
multiplications, look-ups or population counts are taken. llvm-mca gives their cycles on its models
of some cores; a table of issue rates that were measured on a Zen 5 core, with prototypes of these
loops, gives them for Zen 5, which llvm-mca 19 does not know. All operands are in the first-level
cache, branches are predicted. What lies around the loops (epilogues, transforms, flushes, packing
of the input) is left out: real times are longer.
"""

import argparse
import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.files import write_atomically
from bitfold.kernels.c_library import find_library
from bitfold.kernels.layouts.dictionary import pixel_codes
from bitfold.kernels.layouts.winograd_tiles import TILES

CORES = ("znver3", "znver4", "icelake-server", "sapphirerapids")
ITERATIONS = 300
DISASSEMBLED = re.compile(r"^\s+([0-9a-f]+):\s+(\S+)\s*(.*?)\s*(?:#.*)?$")
FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
SYMBOL = re.compile(r"^([0-9a-f]{16}) (.{7}) (\S+)\s+[0-9a-f]+\s+(\S+)$")
ROW_FILE = re.compile(r"^conv2d_(\w+)_(avx512\w+|avxvnni|avx2)\.c$")

# What a layout's loops do, an instruction: (opcode, work of 512 bits). AVX2's popcounts take two
# look-ups of nibbles.
MACS, LOOKUPS, BITS = "MAC", "look-ups", "bit-MAC"
WORK = {
    "dictionary": (LOOKUPS, {"vpermb": 1.0, "vpshufb": 2.0}),
    "bitserial": (BITS, {"vpopcntd": 512.0, "vpshufb": 256.0}),
    "direct_wide": (MACS, {"vpmaddwd": 32.0}),
}
DEFAULT_WORK = (MACS, {"vpdpbusd": 64.0, "vpmaddubsw": 64.0})
# What Zen 5 can do a cycle by its measured issue rates (look-ups of 64 lanes).
BOUNDS = {
    "direct": 128, "packed": 128, "winograd": 128, "vector": 64,
    "dictionary": 2.0, "bitserial": 683,
}  # fmt: skip
# Zen 5's vector pipes by opcode, 512 bits as 256; what is not named runs on any of the four.
PIPES = (
    (re.compile(r"vpdp|vpmadd|vpsad|vpmul"), {0, 1}),
    (re.compile(r"vperm|vpshuf|vpack|vpunpck|vextract|vinsert|vpmov|vpalign"), {1, 2}),
    (re.compile(r"vps[lr]"), {2, 3}),
    (re.compile(r"vpopcnt|vpaddus|vpadds"), {0, 3}),
)
ALL_PIPES = {0, 1, 2, 3}
SEVERAL_KINDS = ("bitserial", "dictionary")
FEWEST_SUMS = 4  # loops of fewer sums prepare something
MOVES = re.compile(r"vmov|vpbroadcast|vbroadcast")
LOADS, STORES, DISPATCH, DOT_LATENCY = 2, 1, 8, 4


class PortArithmeticError(BitfoldError):
    """A tool or the library is missing, or the library holds no such loop."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of objdump."""

    address: int
    opcode: str
    operands: str


@dataclass(frozen=True, slots=True)
class Loop:
    """One innermost loop of a row; ``work`` of ``unit`` an iteration; ``cycles`` by core."""

    row: str
    kind: str
    unit: str
    work: float
    instructions: int
    vector_copies: int
    cycles: dict[str, float]

    def rate(self, core: str) -> float | None:
        """Work a cycle on ``core``, None where the model lacks the instructions."""
        return self.work / self.cycles[core] if self.cycles.get(core) else None


def tool(*names: str) -> str:
    """The first of ``names`` that is installed; raises PortArithmeticError."""
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise PortArithmeticError(
            f"{names[0]} is not installed", where="PATH", todo="install binutils and llvm-19"
        )
    return found


def owners(library: Path) -> dict[int, str]:
    """The source file of every function's address: local symbols follow that of their file."""
    listing = subprocess.run(
        [tool("objdump"), "-t", str(library)], capture_output=True, text=True, check=True
    )
    file, found = "", {}
    for match in filter(None, map(SYMBOL.match, listing.stdout.splitlines())):
        address, flags, section, name = match.groups()
        file = name if "f" in flags else file
        if section == ".text":
            row = re.match(r"bf_(conv2d_\w+)__(avx\w+)$", name)
            found[int(address, 16)] = f"{row[1]}_{row[2]}.c" if row else file
    return found


def functions(library: Path) -> Iterator[tuple[int, list[Instruction]]]:
    """Address and instructions of every function of the library."""
    process = subprocess.run(
        [tool("objdump"), "-d", "--no-show-raw-insn", str(library)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    start, body = 0, list[Instruction]()
    for line in process.stdout.splitlines():
        head, match = FUNCTION.match(line), DISASSEMBLED.match(line)
        if head:
            if body:
                yield start, body
            start, body = int(head[1], 16), []
        elif match:
            body.append(Instruction(int(match[1], 16), match[2], match[3]))
    if body:
        yield start, body


def innermost_loops(body: list[Instruction]) -> list[list[Instruction]]:
    """Runs of instructions from a backward jump's target to it, without another such run inside."""
    index = {instruction.address: i for i, instruction in enumerate(body)}
    spans = []
    for i, instruction in enumerate(body):
        target = re.match(r"([0-9a-f]+) <", instruction.operands)
        if instruction.opcode.startswith("j") and target:
            begin = index.get(int(target[1], 16), i + 1)
            if begin <= i:
                spans.append((begin, i + 1))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [body[begin:end] for begin, end in inner]


def work_of(layout: str, loop: list[Instruction]) -> tuple[str, float]:
    """Unit, and work an iteration: of 512 bits as the tables say, of 256 bits half of it."""
    unit, values = WORK.get(layout, DEFAULT_WORK)
    widths = {"zmm": 1.0, "ymm": 0.5}
    total = 0.0
    for i in loop:
        register = next((width for name, width in widths.items() if name in i.operands), 0.0)
        total += values.get(i.opcode, 0.0) * register
    return unit, total


def mca_cycles(loop: list[Instruction], core: str) -> float | None:
    """Cycles an iteration by llvm-mca; None where its model of ``core`` lacks an instruction."""
    lines = ["begin:"]
    for i in loop:
        is_jump = i.opcode.startswith("j")
        lines.append(f"{i.opcode} begin" if is_jump else f"{i.opcode} {i.operands}")
    mca = tool("llvm-mca-19", "llvm-mca-20", "llvm-mca")
    process = subprocess.run(
        [mca, "-mtriple=x86_64", f"-mcpu={core}", f"-iterations={ITERATIONS}"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    match = re.search(r"Total Cycles:\s+(\d+)", process.stdout)
    return int(match[1]) / ITERATIONS if match else None


def zen5_cycles(loop: list[Instruction]) -> float:
    """The tightest of: pipes, loads, stores, dispatch, and sums that wait for themselves."""
    uses, loads, stores, sums = list[set[int]](), 0, 0, Counter[str]()
    for i in loop:
        memory, copies = "(" in i.operands, MOVES.match(i.opcode) is not None
        is_store = memory and i.operands.rstrip().endswith(")") and copies
        stores += is_store
        loads += memory and not is_store and i.opcode != "lea"
        if i.opcode.startswith("v") and not (memory and copies):
            uses.append(next((pipes for name, pipes in PIPES if name.match(i.opcode)), ALL_PIPES))
        if i.opcode.startswith("vpdp"):
            sums[i.operands.rsplit(",", 1)[-1]] += 1
    groups = [set(g) for n in (1, 2, 3, 4) for g in itertools.combinations(sorted(ALL_PIPES), n)]
    pipes = max(sum(use <= group for use in uses) / len(group) for group in groups)
    latency = DOT_LATENCY * max(sums.values(), default=0)
    return max(pipes, loads / LOADS, stores / STORES, len(loop) / DISPATCH, latency)


def kind_of(layout: str, loop: list[Instruction]) -> str:
    """What tells a row's loops apart: the operation of bit planes, or the tile's sums."""
    opcodes = Counter(i.opcode for i in loop)
    if layout == "bitserial" and opcodes["vpopcntd"]:
        names = {"vpternlogd": "ternary", "vpxord": "xor", "vpxorq": "xor"}
        return next((kind for name, kind in names.items() if opcodes[name] > 4), "and")
    hot = WORK.get(layout, DEFAULT_WORK)[1]
    return f"{sum(opcodes[name] for name in hot)} sums"


def row_loops(library: Path, cores: tuple[str, ...] = CORES) -> list[Loop]:
    """Of every row the loops of the most work a pass, one of each kind."""
    files, best = owners(library), dict[tuple[str, str], tuple[float, list[Instruction]]]()
    for start, body in functions(library):
        file = ROW_FILE.match(files.get(start, ""))
        for loop in innermost_loops(body) if file else ():
            assert file
            layout = file[1]
            if sum(i.opcode in WORK.get(layout, DEFAULT_WORK)[1] for i in loop) < FEWEST_SUMS:
                continue
            work = work_of(layout, loop)[1]
            kind = kind_of(layout, loop) if layout in SEVERAL_KINDS else ""
            key = (f"{layout}:{file[2]}", kind)
            if work > best.get(key, (0.0, []))[0] and not any(i.opcode == "call" for i in loop):
                best[key] = (work, loop)
    return [_measured(row, loop, cores) for (row, _), (_, loop) in sorted(best.items())]


def _measured(row: str, loop: list[Instruction], cores: tuple[str, ...]) -> Loop:
    layout, isa = row.split(":")
    unit, work = work_of(layout, loop)
    cycles = {core: mca_cycles(loop, core) for core in cores}
    known = {core: round(value, 2) for core, value in cycles.items() if value}
    if isa.startswith("avx512"):
        known["zen5"] = round(zen5_cycles(loop), 2)
        known.pop("znver3", None)
    copies = sum(i.opcode.startswith("vmovdqa") and "(" not in i.operands for i in loop)
    return Loop(row, kind_of(layout, loop), unit, work, len(loop), copies, known)


# --------------------------------------------------------------------------------- ResNet-18


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution of ResNet-18: ``size`` x ``size`` outputs; ``is_low`` bits or 8."""

    name: str
    size: int
    channels: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    is_low: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the direct form."""
        return self.size**2 * self.outputs * self.channels * self.kernel**2


@dataclass(frozen=True, slots=True)
class Estimate:
    """A layer, its fastest row by the loops alone, and what prototypes of it took."""

    layer: str
    macs: int
    row: str
    cycles: int
    prototype_cycles: int


TERNARY_GROUP, LANES, VECTOR_LANES, X_BITS, X_MOST = 3, 16, 64, 2, 3
INT8_RATE = 125.0  # of the prototypes' direct 8-bit convolution, MAC a cycle
# Their whole convolutions at T,2 against it, epilogue and transforms included, by the size of the
# output; strided ones by population counts.
PROTOTYPES = {56: 2.2, 28: 2.5, 14: 2.45, 7: 2.12}
STRIDED_PROTOTYPE = 2.2
NEEDED = {
    "direct:avx512vnni", "winograd:avx512vnni", "vector:avx512vnni",
    "bitserial:avx512vpopcntdq ternary",
    *(f"dictionary:avx512vbmi {sums} sums" for sums in (4, 8, 16)),
}  # fmt: skip


def resnet18() -> list[Layer]:
    """ResNet-18 at 224x224 with 1000 classes; first layer, shortcuts and classifier have 8 bits."""
    layers = [Layer("conv1", 112, 3, 64, 7, 2, is_low=False)]
    layers += [Layer(f"layer1.{i}.conv{j}", 56, 64, 64) for i in (0, 1) for j in (1, 2)]
    for stage, (size, width) in enumerate(((28, 128), (14, 256), (7, 512)), start=2):
        layers.append(
            Layer(f"layer{stage}.0.shortcut", size, width // 2, width, 1, 2, is_low=False)
        )
        layers.append(Layer(f"layer{stage}.0.conv1", size, width // 2, width, 3, 2))
        names = ("0.conv2", "1.conv1", "1.conv2")
        layers += [Layer(f"layer{stage}.{name}", size, width, width) for name in names]
    return [*layers, Layer("fc", 1, 512, 1000, 1, is_low=False)]


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def winograd_products(layer: Layer) -> int:
    """Products of the best tile that is exact for ternary weights and 2-bit activations."""
    exact = []
    for tile in TILES:
        least, greatest = (end * tile.scale for end in tile.weight_range(-1, 1))
        reach = max(abs(least).max(), abs(greatest).max())
        if tile.widths(X_MOST).max() <= 255 and reach <= 127:
            rows, columns = tile.count(layer.size, layer.size)
            exact.append(rows * columns * tile.positions)
    return min(exact) * layer.channels * layer.outputs


def candidates(layer: Layer, rates: dict[str, float]) -> dict[str, float]:
    """Cycles of the loops of every row that fits ``layer``."""
    pixels, lanes = layer.size**2, _up(layer.outputs, LANES)
    row_quads = _up(layer.kernel * layer.channels, 4) * layer.kernel
    if layer.name == "fc":
        return {"vector:avx512vnni": row_quads * lanes / rates["vector:avx512vnni"]}
    found = {"direct:avx512vnni": pixels * lanes * row_quads / rates["direct:avx512vnni"]}
    if layer.is_low:
        bits = pixels * lanes * _up(layer.kernel * layer.channels, 32) * layer.kernel * X_BITS
        found["bitserial:avx512vpopcntdq"] = bits / rates["bitserial:avx512vpopcntdq ternary"]
        vectors = -(-layer.outputs // VECTOR_LANES)
        lookups = pixels * vectors * layer.kernel**2 * pixel_codes(layer.channels, TERNARY_GROUP)
        tile = f"{4 * (4 if vectors > 3 else min(vectors, 2))} sums"
        found["dictionary:avx512vbmi"] = lookups / rates[f"dictionary:avx512vbmi {tile}"]
    if layer.is_low and layer.stride == 1:
        found["winograd:avx512vnni"] = winograd_products(layer) / rates["winograd:avx512vnni"]
    return found


def prototype_rate(layer: Layer) -> float:
    """MAC a cycle that prototypes reached on such a layer."""
    if not layer.is_low:
        return INT8_RATE if layer.name != "fc" else float(BOUNDS["vector"])
    return INT8_RATE * (PROTOTYPES[layer.size] if layer.stride == 1 else STRIDED_PROTOTYPE)


def estimates(loops: list[Loop]) -> list[Estimate]:
    """ResNet-18 at T,2 on Zen 5, layer by layer; raises PortArithmeticError."""
    rates = {}
    for loop in loops:
        name = f"{loop.row} {loop.kind}" if loop.row.split(":")[0] in SEVERAL_KINDS else loop.row
        rates[name] = loop.rate("zen5") or 0.0
    missing = sorted(NEEDED - set(rates))
    if missing:
        raise PortArithmeticError(
            f"no loop of {missing[0]} was found", where="the library", todo="build it for x86-64"
        )
    found = []
    for layer in resnet18():
        cycles = candidates(layer, rates)
        row = min(cycles, key=lambda name: cycles[name])
        prototype = round(layer.macs / prototype_rate(layer))
        found.append(Estimate(layer.name, layer.macs, row, round(cycles[row]), prototype))
    return found


# ------------------------------------------------------------------------------------ output


def bound_of(loop: Loop) -> str:
    """Zen 5's bound in the loop's unit; it has none for some rows."""
    layout, isa = loop.row.split(":")
    return f"{BOUNDS[layout]}" if isa in ("avx512vnni", "avx512vbmi", "avx512vpopcntdq") else ""


def loop_table(loops: list[Loop]) -> str:
    """Markdown: work a cycle of every loop by core."""
    cores = ("zen5", *reversed(CORES))
    head = ["row", "loop", "a cycle", "bound", *cores, "copies"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for loop in loops:
        rates = (loop.rate(core) for core in cores)
        cells = [f"{rate:.{2 if loop.unit == LOOKUPS else 0}f}" if rate else "" for rate in rates]
        cells = [loop.row, loop.kind, loop.unit, bound_of(loop), *cells, str(loop.vector_copies)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def layer_table(found: list[Estimate], ghz: float) -> str:
    """Markdown: microseconds of every layer at ``ghz``, and of all."""
    lines = ["| layer | MMAC | row | loops, µs | prototypes, µs |", "|---|---|---|---|---|"]
    scale = 1 / (1000 * ghz)
    for x in found:
        times = f"{x.cycles * scale:.1f} | {x.prototype_cycles * scale:.1f}"
        lines.append(f"| {x.layer} | {x.macs / 1e6:.1f} | {x.row} | {times} |")
    total, prototype = (sum(getattr(x, n) for x in found) * scale for n in Estimate.__slots__[3:])
    macs = sum(x.macs for x in found) / 1e6
    lines.append(f"| all | {macs:.0f} | | {total:.0f} | {prototype:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Prints both tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", type=Path, default=find_library())
    parser.add_argument("--compiler", default="", help="what the library was built with")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--ghz", type=float, default=4.2)
    words = parser.parse_args()
    try:
        loops = row_loops(words.kernels)
        found = estimates(loops)
        version = subprocess.run(
            [tool("llvm-mca-19", "llvm-mca-20", "llvm-mca"), "--version"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except PortArithmeticError as error:
        parser.exit(error.exit_code, f"error: {error}\n")
    print(loop_table(loops), layer_table(found, words.ghz), sep="\n\n")
    record = {
        "compiler": words.compiler,
        "llvm_mca": version.stdout.splitlines()[1].strip(),
        "ghz": words.ghz,
        "loops": [asdict(loop) for loop in loops],
        "resnet18_t2": [asdict(x) for x in found],
    }
    if words.out:
        write_atomically(words.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
