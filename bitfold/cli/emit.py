"""``bitfold emit rtl``: the array in Verilog with its test bench and one real layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.inputs import ModelArgument, open_array, open_graph, require_file
from bitfold.cli.shell import Shell, Verb, one_of, parse_pair
from bitfold.cli.simulate import ConfigOption, DataflowOption, DrainOption, LanesOption, SetOption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitfold.fpga_sim import ArrayConfig
    from bitfold.fpga_sim.rtl import Emitted, LayerRun
    from bitfold.ir import IntGraph

FORMS = ("rtl",)
SIMULATORS = ("verilator", "iverilog")
ARRAY = (8, 8)

FormArgument = Annotated[str, typer.Argument(metavar="rtl", help="What to emit: rtl.")]
FolderOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="New folder to write.")
]
LayerOption = Annotated[
    str | None,
    typer.Option("--layer", metavar="NAME", help="Layer to check with; default: the largest one."),
]
ArrayOption = Annotated[
    str | None, typer.Option("--array", metavar="RxC", help="Rows and columns of PEs; 8x8.")
]
PeOption = Annotated[
    str | None, typer.Option("--pe", help="PE kind: binary, ternary, parallel, serial or dsp.")
]
ImageOption = Annotated[
    Path | None,
    typer.Option("--input", metavar="X.npy", help="uint8 (N, H, W, C), the first one is used."),
]
CheckOption = Annotated[
    str | None, typer.Option("--check", metavar="SIM", help="Run it: verilator or iverilog.")
]


def emit(
    shell: Shell,
    form: FormArgument,
    model: ModelArgument,
    *,
    output: FolderOption,
    layer: LayerOption = None,
    array: ArrayOption = None,
    dataflow: DataflowOption = None,
    drain: DrainOption = None,
    lanes: LanesOption = None,
    pe: PeOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    image: ImageOption = None,
    check: CheckOption = None,
) -> None:
    """Write Verilog of an array, tested on one real layer.

    The layer's operands come from the integer graph on one image (random by --seed, or --input);
    `make check` in the folder compares every result with them.
    """
    one_of(form, FORMS, option="emit")
    size = None if array is None else parse_pair(array, option="--array", separator="x")
    if config is not None:
        require_file(config, kind="array description")
    from bitfold.fpga_sim.rtl import (
        check_run,
        outside,
        require_new_folder,
        require_simulator,
        write_folder,
    )

    if check is not None:
        require_simulator(one_of(check, SIMULATORS, option="--check"))
    require_new_folder(output)
    graph = open_graph(model)
    changes: dict[str, object] = {"dataflow": dataflow, "drain": drain, "lanes": lanes, "pe": pe}
    described = _array(size, config, settings or [], changes)
    run = _layer(graph, layer, described, _image(graph, image, seed=shell.seed))
    if check is not None:
        shell.log.info("simulating %s with %s", run.name, check)
        check_run(run, simulator=check)
    written = write_folder(run, output)
    absent = outside(described)
    if absent:
        shell.log.warning("not part of the Verilog: %s", ", ".join(absent))
    fields = _fields(form, model, run, written, check, absent)
    shell.emit(fields, lambda: [_sentence(run, written, check)])


def _array(
    size: tuple[int, int] | None,
    config: Path | None,
    settings: list[str],
    changes: dict[str, object],
) -> "ArrayConfig":
    """The file's array, then ``--set``, then the options that were given."""
    from dataclasses import replace

    from bitfold.fpga_sim import ArrayConfig

    base = ArrayConfig(*ARRAY) if config is None else ArrayConfig.from_toml(config)
    given = {key: value for key, value in changes.items() if value is not None}
    if size is not None:
        given |= {"rows": size[0], "cols": size[1]}
    return replace(base.with_settings(settings), **given)  # type: ignore[arg-type]  # checked by ArrayConfig itself


def _image(graph: "IntGraph", path: Path | None, *, seed: int) -> "NDArray[np.uint8]":
    import numpy as np

    if path is not None:
        return open_array(path)[:1]
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, *graph.input.shape), dtype=np.uint8)


def _layer(
    graph: "IntGraph", name: str | None, array: "ArrayConfig", image: "NDArray[np.uint8]"
) -> "LayerRun":
    from bitfold.fpga_sim.rtl import find_layer, input_codes, layer_run, require_emittable

    node = find_layer(graph, name)
    require_emittable(graph, node, array)
    return layer_run(graph, node, input_codes(graph, node, image), array)


def _fields(
    form: str,
    model: Path,
    run: "LayerRun",
    written: "Emitted",
    check: str | None,
    absent: tuple[str, ...],
) -> dict[str, object]:
    design, array = run.design, run.design.array
    return {
        "form": form,
        "model": str(model),
        "layer": run.name,
        "output": str(written.folder),
        "files": list(written.files),
        "array": {
            "rows": array.rows,
            "cols": array.cols,
            "dataflow": array.dataflow,
            "drain": array.drain,
            "lanes": array.lanes,
            "pe": array.pe,
            "w_bits": design.weight.bits,
            "a_bits": design.activation.bits,
            "acc_bits": design.acc_bits,
        },
        "product": {
            "groups": run.gemm.groups,
            "pixels": run.gemm.pixels,
            "depth": run.gemm.depth,
            "filters": run.gemm.filters,
        },
        "cycles": written.cycles,
        "thresholds": design.thresholds is not None,
        "checked_with": check,
        "outside": list(absent),
    }


def _sentence(run: "LayerRun", written: "Emitted", check: str | None) -> str:
    array = run.design.array
    checked = "" if check is None else f", equal under {check}"
    return (
        f"{written.folder}: {array.rows}x{array.cols} {array.dataflow} array of {array.pe} PEs, "
        f"layer {run.name} in {written.cycles} cycles{checked}; "
        f"next: make -C {written.folder} check"
    )


VERB = Verb(
    "emit",
    emit,
    (
        "bitfold emit rtl resnet20.onnx -o array",
        "bitfold emit rtl resnet20.onnx --layer layer2.0.conv1 --array 8x8 --dataflow ws -o array",
    ),
)
