"""The state of one reading: tensors by name, QGraph nodes made so far, the model's own input."""

from dataclasses import dataclass, field
from fractions import Fraction

from bitfold.export.foreign.rounding import Rule
from bitfold.export.foreign.source import MAX_ELEMENTS, Op, Source
from bitfold.export.foreign.values import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    VECTOR,
    Codes,
    Value,
)
from bitfold.export.onnx.file import Array
from bitfold.export.qgraph import Pixels, QNode
from bitfold.ir.own_input import InputStep, OwnInput

Operand = Array | Codes | Value


@dataclass(frozen=True, slots=True)
class StoredCodes:
    """Which ONNX tensor holds the codes of a graph node, laid out as ``view`` says.

    Its integers are code + zero_point; or, with a ``scale``, its real values scale · code.
    """

    node: str
    tensor: str
    zero_point: int
    view: tuple[tuple[str, ...], ...]
    scale: float | None = None


@dataclass(slots=True)
class Reading:
    """What has been read so far; lives for one call of ``read_model``.

    By tensor name, ``settled`` has values whose pending parts were emitted, ``emitted`` those of
    quantizers and joins, and ``poisoned`` the node that could not be read.
    """

    source: Source
    channels_last: bool
    operands: dict[str, Operand] = field(default_factory=dict)
    poisoned: dict[str, str] = field(default_factory=dict)
    nodes: list[QNode] = field(default_factory=list)
    rules: dict[str, Rule] = field(default_factory=dict)
    stored: list[StoredCodes] = field(default_factory=list)
    input: OwnInput | None = None
    settled: dict[str, Value] = field(default_factory=dict)
    emitted: dict[str, Value] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Constants and the raw input are known from the start."""
        self.operands.update(self.source.constants)
        self.operands[self.source.input] = self._raw_input()

    def _raw_input(self) -> Value:
        dims, is_integer = self.source.dims, self.source.dtype != "float32"
        chain: tuple[InputStep, ...] = ()
        if len(dims) == 1:
            return Value("", (1, 1, dims[0]), VECTOR, integers=is_integer, chain=chain)
        if self.channels_last:
            height, width, channels = dims
        else:
            channels, height, width = dims
        view = CHANNELS_LAST if self.channels_last else CHANNELS_FIRST
        return Value("", (height, width, channels), view, integers=is_integer, chain=chain)

    def name(self, tensor: str) -> str:
        """A free, printable name for the tensor called ``tensor``."""
        base = "".join(c if c.isprintable() and c != " " else "_" for c in tensor) or "tensor"
        found, number = base, 1
        while found in self.taken:
            found, number = f"{base}.{number}", number + 1
        self.taken.add(found)
        return found

    def emit(self, node: QNode) -> str:
        """Append a node of the QGraph; its name."""
        self.nodes.append(node)
        return node.name

    def open_input(self, op: Op, coding: OwnInput, *, scale: Fraction) -> str:
        """The graph's first node, codes as ``coding`` has them; one coding a model.

        Raises UnsupportedError where the input is read in two ways.
        """
        if self.input is not None and self.input != coding:
            raise op.refused(
                "the input is quantized in two different ways",
                "Quantize it once, and let all readers share that.",
            )
        if self.input is None:
            self.input = coding
            height, width, channels = self._raw_input().shape
            name = self.name(self.source.input)
            shape = (height, width, channels)
            self.nodes.insert(0, Pixels(name, shape, (Fraction(-coding.lo),), (1 / scale,)))
        return self.nodes[0].name

    def operand(self, op: Op, i: int) -> Operand:
        """Input ``i`` of ``op``; UnsupportedError where it is missing or could not be read."""
        if not op.has(i):
            raise op.refused(f"input {i} is missing", "Export the model again.")
        name = op.inputs[i]
        if name in self.poisoned:
            raise op.refused(
                f"it reads {name!r}, which node {self.poisoned[name]!r} does not give",
                "Change that node first.",
            )
        return self.operands[name]

    def constant(self, op: Op, i: int) -> Array:
        """A constant input's values; UnsupportedError where it depends on the image."""
        found = self.operand(op, i)
        if isinstance(found, Value):
            raise op.refused(
                f"input {i} ({op.inputs[i]!r}) is computed from the image, a constant is needed",
                "Fold constants first (onnxsim, or export with constant folding).",
            )
        return found.real() if isinstance(found, Codes) else found

    def optional(self, op: Op, i: int) -> Array | None:
        """A constant input's values, None where it is left out."""
        return self.constant(op, i) if op.has(i) else None

    def value(self, op: Op, i: int) -> Value:
        """An input that depends on the image."""
        found = self.operand(op, i)
        if not isinstance(found, Value):
            raise op.refused(
                f"input {i} ({op.inputs[i]!r}) is a constant", "Fold constants first (onnxsim)."
            )
        if found.left_out:
            raise op.refused("it follows the final Softmax", "Cut the model behind its logits.")
        return found

    def check_size(self, op: Op, *sizes: int) -> None:
        """UnsupportedError where a tensor would have more elements than are read."""
        total = 1
        for size in sizes:
            total *= size
        if total > MAX_ELEMENTS or min(sizes) < 1:
            raise op.refused(
                f"its result has dimensions {list(sizes)}",
                f"Between 1 and {MAX_ELEMENTS} elements an image are read.",
            )
