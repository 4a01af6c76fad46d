"""What a simulation says: cycles, time, utilisation, traffic and resources, as a table or JSON."""

from collections.abc import Callable
from collections.abc import Mapping as ReadOnlyDict
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from bitfold.errors import UsageError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.calibration import calibration
from bitfold.fpga_sim.cycles import compute_cycles
from bitfold.fpga_sim.device import RESOURCES, Device, find_device
from bitfold.fpga_sim.layers import (
    Scheduled,
    capacity_of,
    operand_steps,
    schedule_layers,
)
from bitfold.fpga_sim.live import LiveSynthesis, synthesise_estimate
from bitfold.fpga_sim.mapping import MappedLayer, Mapping, map_graph
from bitfold.fpga_sim.memory import buffers, layer_traffic
from bitfold.fpga_sim.parts import PartCost
from bitfold.fpga_sim.per_graph import per_graph
from bitfold.fpga_sim.resources import Estimate, estimate
from bitfold.fpga_sim.scalesim import WRONG
from bitfold.fpga_sim.tiling import RATE_DENOMINATOR, Plan, Port
from bitfold.ir.graph import IntGraph

SCHEMA = "bitfold/simulate/1"
Count = int | None
# Of 188 whole layers in Verilog (benchmarks/results/rtl_dram.json); on chip no cycle differs.
WORST_DRAM_ERROR = 0.039
ESTIMATES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer for one image.

    utilisation = multiplications carried out (digits included) / (R·C·S·cycles).
    ``bound`` says what most cycles go to: compute, bandwidth, fill/drain or depthwise (a grouped
    layer's idle columns). ``scheduled`` is None in scalesim mode.
    """

    name: str
    macs: int
    passes: int
    cycles: int
    compute_cycles: int
    stall_cycles: int
    utilisation: float
    dram_bytes: int
    bound: str
    scheduled: Scheduled | None

    @property
    def plan(self) -> Plan | None:
        """Its tiling; None in scalesim mode."""
        return None if self.scheduled is None else self.scheduled.plan

    def to_dict(self) -> dict[str, object]:
        """The fields of the JSON, in order."""
        return {
            "name": self.name,
            "cycles": self.cycles,
            "compute_cycles": self.compute_cycles,
            "stall_cycles": self.stall_cycles,
            "utilisation": self.utilisation,
            "dram_bytes": self.dram_bytes,
            "macs": self.macs,
            "passes": self.passes,
            "bound": self.bound,
            "tiling": self._tiling(),
        }

    def _tiling(self) -> dict[str, object] | None:
        found = self.scheduled
        if found is None:
            return None
        return {
            "unit": "vector" if found.vector else "array",
            "rows_used": found.rows,
            "cols_used": found.cols,
            "row_folds": found.plan.rows,
            "column_folds": found.plan.columns,
            "outer": "rows" if found.plan.rows_outside else "columns",
            "blocks": found.plan.blocks,
        }


@dataclass(frozen=True, slots=True)
class ModelError:
    """Measured error of the two models as fractions, and what it was measured against."""

    cycles: float
    lut: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Report:
    """One image of one graph on one array of one device; ``resources`` is None in scalesim mode."""

    device: Device
    mapping: Mapping
    clock_mhz: float
    layers: tuple[LayerReport, ...]
    resources: Estimate | None
    model_error: ModelError
    notes: tuple[str, ...]
    port: Port
    synthesis: LiveSynthesis | None = None

    @property
    def cycles(self) -> int:
        """Sum over the layers: one after the other."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def latency_ms(self) -> float:
        """Cycles at the clock given: a parameter, not a prediction."""
        return self.cycles / (self.clock_mhz * 1000)

    @property
    def images_per_s(self) -> float:
        """One image after the other."""
        return 1000 / self.latency_ms

    @property
    def utilisation(self) -> float:
        """Multiplications carried out / (R·C·S·cycles), in (0, 1]."""
        done = sum(layer.gemm.products for layer in self.mapping.layers)
        return done / (self.mapping.array.pes * self.mapping.array.lanes * self.cycles)

    @property
    def dram_bytes(self) -> int:
        """Sum over the layers."""
        return sum(layer.dram_bytes for layer in self.layers)

    @property
    def verdicts(self) -> dict[str, bool] | None:
        """Whether each resource stays within its ceiling; None where nothing is estimated."""
        if self.resources is None:
            return None
        counts, limits = self.resources.counts(), self.device.limits
        return {key: counts[key] <= limits[key] for key in RESOURCES}

    @property
    def fits(self) -> bool | None:
        """Whether every resource stays within its ceiling; None where nothing is estimated."""
        verdicts = self.verdicts
        return None if verdicts is None else all(verdicts.values())

    def to_dict(self) -> dict[str, object]:
        """The JSON object ``bitfold/simulate/1``."""
        error, used, live = self.model_error, self.resources, self.synthesis
        beside = {} if live is None else {"synthesis": live.to_dict()}
        return {
            "schema": SCHEMA,
            "device": self.device.name,
            "array": self._array_dict(),
            "clock_mhz": self.clock_mhz,
            "cycles": self.cycles,
            "latency_ms": self.latency_ms,
            "images_per_s": self.images_per_s,
            "utilisation": self.utilisation,
            "dram_bytes": self.dram_bytes,
            "resources": _resource_counts(used),
            "resource_errors": None if used is None else used.errors(),
            "parts": None if used is None else [_part_dict(part) for part in used.parts],
            "available": self.device.available,
            "limits": self.device.limits,
            "verdicts": self.verdicts,
            "fits": self.fits,
            "layers": [layer.to_dict() for layer in self.layers],
            "model_error": {"cycles": error.cycles, "lut": error.lut, "source": error.source},
            "notes": list(self.notes),
            **beside,
        }

    def _array_dict(self) -> dict[str, object]:
        array = self.mapping.array
        return {
            "rows": array.rows,
            "cols": array.cols,
            "dataflow": array.dataflow,
            "w_bits": array.w_bits,
            "a_bits": array.a_bits,
            "lanes": array.lanes,
            "drain": array.drain,
            "edge": array.edge,
            "mode": array.mode,
            "pe": f"({self.mapping.w_kind},{self.mapping.a_kind})",
        }

    def to_text(self) -> str:
        """The same as a table for people."""
        live = () if self.synthesis is None else ("", *self.synthesis.to_lines())
        tables = (*_layer_table(self), "", *_resource_table(self), *live)
        return "\n".join((*_heading(self), "", *tables))


def _resource_counts(used: Estimate | None) -> dict[str, Count]:
    if used is None:
        return dict.fromkeys(RESOURCES)
    return {**used.counts(), "lc": used.lc, "carry4": used.carry4}


def _part_dict(part: PartCost) -> dict[str, object]:
    return {
        "name": part.name,
        "lut": part.lut,
        "lc": part.lc,
        "ff": part.ff,
        "dsp": part.dsp,
        "bram18": part.ramb18 + 2 * part.ramb36,
        "lut_error": round(part.lut_error, 1),
        "ff_error": round(part.ff_error, 1),
        "standing": part.standing,
    }


def _heading(report: Report) -> list[str]:
    array = report.mapping.array
    kind = f"({report.mapping.w_kind},{report.mapping.a_kind})"
    return [
        f"{report.device.name} ({report.device.part}): {array.rows}x{array.cols} {array.dataflow}, "
        f"PE {kind} x {array.lanes}, {array.drain} drain, {report.clock_mhz:g} MHz (a parameter)",
        f"{report.cycles} cycles, {report.latency_ms:.3f} ms, {report.images_per_s:.1f} images/s, "
        f"utilisation {report.utilisation:.1%}, {report.dram_bytes} DRAM bytes",
    ]


def _layer_table(report: Report) -> list[str]:
    width = max(5, *(len(layer.name) for layer in report.layers))
    lines = [
        f"{'layer':<{width}} {'cycles':>10} {'compute':>10} {'stall':>9} {'passes':>6} {'util':>6} "
        f"{'DRAM B':>9} bound"
    ]
    lines += [
        f"{x.name:<{width}} {x.cycles:>10} {x.compute_cycles:>10} {x.stall_cycles:>9} "
        f"{x.passes:>6} {x.utilisation:>6.1%} {x.dram_bytes:>9} {x.bound}"
        for x in report.layers
    ]
    return lines


def _resource_table(report: Report) -> list[str]:
    error = report.model_error
    lut = "not estimated" if error.lut is None else f"{error.lut:.1%}"
    notes = [f"model error: cycles {error.cycles:.1%}, LUT {lut} ({error.source})"]
    notes += [f"note: {note}" for note in report.notes]
    verdicts = report.verdicts
    if report.resources is None or verdicts is None:
        return notes
    available, limits = report.device.available, report.device.limits
    bars = report.resources.errors()
    lines = [f"{'':<7} {'used':>9} {'±':>9} {'limit':>9} {'total':>9}"]
    lines += [
        f"{key:<7} {used:>9} {round(used * bars[key]):>9} {limits[key]:>9} {available[key]:>9}  "
        f"{'fits' if verdicts[key] else 'DOES NOT FIT'}"
        for key, used in report.resources.counts().items()
    ]
    return lines + notes


def _scalesim_layer(layer: MappedLayer, array: ArrayConfig, num_bytes: int) -> LayerReport:
    cycles = compute_cycles(layer.gemm, array)
    return LayerReport(
        name=layer.name,
        macs=layer.gemm.macs,
        passes=1,
        cycles=cycles,
        compute_cycles=cycles,
        stall_cycles=0,
        utilisation=layer.gemm.macs / (array.pes * cycles),
        dram_bytes=num_bytes,
        bound="compute",
        scheduled=None,
    )


def _native_layer(layer: MappedLayer, array: ArrayConfig, found: Scheduled) -> LayerReport:
    plan = found.plan
    return LayerReport(
        name=layer.name,
        macs=layer.gemm.macs,
        passes=layer.gemm.passes,
        cycles=plan.cycles,
        compute_cycles=plan.compute_cycles,
        stall_cycles=plan.stall_cycles,
        utilisation=layer.gemm.products / (array.multipliers(vector=found.vector) * plan.cycles),
        dram_bytes=plan.dram_bytes,
        bound=bound_of(layer, array, found),
        scheduled=found,
    )


def bound_of(layer: MappedLayer, array: ArrayConfig, found: Scheduled) -> str:
    """Where most cycles go: waiting for the port, filling and draining, or multiplying.

    A grouped layer that leaves more columns idle than busy is called depthwise, unless it waits.
    """
    part = array
    if (found.rows, found.cols) != (array.rows, array.cols):
        part = replace(array, rows=found.rows, cols=found.cols)
    stall, compute = found.plan.stall_cycles, found.plan.compute_cycles
    if found.vector:
        return "bandwidth" if stall > compute else "depthwise"
    steps = operand_steps(layer.gemm, part)
    idle = compute - steps
    if stall >= max(steps, idle):
        return "bandwidth"
    if layer.gemm.groups > 1 and 2 * layer.gemm.filters < part.cols:
        return "depthwise"
    return "fill/drain" if idle > steps else "compute"


def _model_error(array: ArrayConfig, found: Estimate | None) -> ModelError:
    if found is None:
        return ModelError(
            0.0, None, "36 layer runs of SCALE-Sim 3.0.0; it models no FPGA resources"
        )
    return ModelError(
        WORST_DRAM_ERROR,
        found.lut_error,
        "cycles: 4320 runs of the emitted Verilog, all equal; with DRAM 188 runs of layers, "
        f"median 0.0 %, worst {WORST_DRAM_ERROR:.1%}; LUT: {calibration().tool} "
        "on its parts, whole arrays and designs drawn at random, the worst error of each part "
        "added up; parts without Verilog count as wholly uncertain; LUT under Vivado is unknown",
    )


def _notes(mapping: Mapping) -> tuple[str, ...]:
    notes: list[str] = []
    array = mapping.array
    passes = [layer for layer in mapping.layers if layer.gemm.passes > 1]
    notes += [
        f"{layer.name}: {layer.weight_grid.bits}-bit weights, {layer.activation_grid.bits}-bit "
        f"activations in {layer.gemm.passes} passes of {array.w_bits} x {array.a_bits} bits"
        for layer in passes
    ]
    if array.mode == "scalesim":
        notes += [f"SCALE-Sim: {text}" for text in WRONG]
    return tuple(notes)


def configure(
    config: ArrayConfig | str | Path | None, changes: ReadOnlyDict[str, object]
) -> ArrayConfig:
    """``config``, or the default array, with every given (not None) change on top."""
    base = config if isinstance(config, ArrayConfig) else ArrayConfig()
    if isinstance(config, str | Path):
        base = ArrayConfig.from_toml(config)
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return base
    return replace(base, **given)  # type: ignore[arg-type]  # checked by ArrayConfig itself


def simulate(
    graph: IntGraph,
    *,
    device: str = "zu3eg",
    array: tuple[int, int] | None = None,
    dataflow: str | None = None,
    lanes: int | None = None,
    drain: str | None = None,
    edge: str | None = None,
    mode: str | None = None,
    clock_mhz: float | None = None,
    dram_bytes_per_cycle: float | None = None,
    config: ArrayConfig | str | Path | None = None,
) -> Report:
    """One image of ``graph`` on an array of ``device``; a pure function of its arguments.

    ``array`` is (rows, cols), 16 × 16 by default; ``dataflow`` is ``os``. ``config`` is a TOML file
    or an ``ArrayConfig`` that supplies what is not given here. The clock defaults to the device's
    documented value and is a parameter, never a prediction. Raises UsageError on an unknown device
    or an impossible value, UnsupportedError on what is not modelled.
    """
    found = find_device(device)
    rows, cols = array if array is not None else (None, None)
    changes: dict[str, object] = {
        "rows": rows,
        "cols": cols,
        "dataflow": dataflow,
        "lanes": lanes,
        "drain": drain,
        "edge": edge,
        "mode": mode,
        "clock_mhz": clock_mhz,
        "dram_bytes_per_cycle": dram_bytes_per_cycle,
    }
    mapping = map_graph(graph, configure(config, changes))
    settled = mapping.array
    clock = settled.clock_mhz or found.clock_mhz
    rate = Fraction(settled.dram_bytes_per_cycle or Fraction(found.dram_mb_per_s) / Fraction(clock))
    port = _port(settled, rate)
    used = _estimates(graph)(_on_chip(settled)) if settled.mode == "native" else None
    return Report(
        device=found,
        mapping=mapping,
        clock_mhz=clock,
        layers=_layers(graph, mapping, port),
        resources=used,
        model_error=_model_error(settled, used),
        notes=_notes(mapping),
        port=port,
    )


@per_graph
def _estimates(graph: IntGraph) -> Callable[[ArrayConfig], Estimate]:
    """Resources of an array for ``graph``; those of the last few arrays are kept."""
    return lru_cache(maxsize=ESTIMATES_KEPT)(lambda array: estimate(graph, map_graph(graph, array)))


def _on_chip(array: ArrayConfig) -> ArrayConfig:
    """``array`` with a default clock and DRAM, which cost no resources."""
    rest = ArrayConfig()
    return replace(
        array,
        clock_mhz=rest.clock_mhz,
        dram_bytes_per_cycle=rest.dram_bytes_per_cycle,
        dram_bits=rest.dram_bits,
        dram_latency=rest.dram_latency,
        dram_burst=rest.dram_burst,
    )


def with_synthesis(report: Report, *, step: Callable[[str], None]) -> Report:
    """``report`` with the counts of Yosys beside it; ``step`` hears what is running.

    Raises UsageError in a mode without resources, MissingDependencyError without Yosys.
    """
    if report.resources is None:
        raise UsageError(
            "there is no array to synthesise in mode scalesim",
            where="option --synth",
            todo="Leave --synth out, or use mode native.",
        )
    live = synthesise_estimate(report.mapping, report.resources, step=step)
    return replace(report, synthesis=live)


def _port(array: ArrayConfig, rate: Fraction) -> Port:
    """The DRAM port: the device's rate, or less where the port is narrower."""
    if array.dram_bits is not None:
        rate = min(rate, Fraction(array.dram_bits, 8))
    return Port(rate.limit_denominator(RATE_DENOMINATOR), array.dram_latency, array.dram_burst)


def _layers(graph: IntGraph, mapping: Mapping, port: Port) -> tuple[LayerReport, ...]:
    array, traffic = mapping.array, layer_traffic(graph)
    if array.mode == "scalesim":
        return tuple(_scalesim_layer(x, array, traffic[x.name].total) for x in mapping.layers)
    capacity = capacity_of(buffers(graph, mapping))
    scheduled = schedule_layers(mapping.layers, array, capacity, port, traffic)
    return tuple(
        _native_layer(layer, array, found)
        for layer, found in zip(mapping.layers, scheduled, strict=True)
    )
