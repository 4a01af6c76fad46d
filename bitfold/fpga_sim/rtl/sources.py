"""The Verilog files of a design: the library as it is, top and test bench with its parameters."""

import re
from importlib.resources import files
from pathlib import Path

from bitfold.fpga_sim.rtl.design import Design

TOP_MODULE = "bf_top"
TOP_BENCH = "bf_tb"
SYSTEM_BENCH = "bf_system_tb"
# Test benches, and what they need besides the library.
BENCHES = {TOP_BENCH: (), SYSTEM_BENCH: ("bf_dram", "bf_loader")}
BENCH_FILES = frozenset((*BENCHES, *BENCHES[SYSTEM_BENCH]))
COMMON = ("bf_resize", "bf_decode", "bf_dot", "bf_product", "bf_packed", "bf_count", "bf_add",
          "bf_counter", "bf_cursor",
          "bf_delay", "bf_skew", "bf_settle", "bf_planes", "bf_select", "bf_threshold",
          "bf_requantize", "bf_memory", "bf_pe", "bf_array_os", "bf_control_os", "bf_core_os",
          "bf_pe_ws", "bf_array_ws", "bf_control_ws", "bf_core_ws")  # fmt: skip


def verilog(name: str) -> str:
    """The text of one module of the library, or of a test bench."""
    folder = "testbench" if name in BENCH_FILES else "verilog"
    return (files("bitfold.fpga_sim.rtl") / folder / f"{name}.v").read_text("utf-8")


def with_parameters(text: str, parameters: dict[str, int]) -> str:
    """``text`` with the defaults of its module parameters replaced."""
    for name, value in parameters.items():
        text = re.sub(rf"(parameter {name}\s*= )[^,\n]+?(,|\s*$|\s*//)", rf"\g<1>{value}\g<2>",
                      text, count=1, flags=re.M)  # fmt: skip
    return text


def design_sources(design: Design, *, words: int, bench: str = TOP_BENCH) -> dict[str, str]:
    """File name → text: library, top and test bench, whose memories hold ``words`` words."""
    parameters = design.parameters()
    texts = {f"{name}.v": verilog(name) for name in (*COMMON, *BENCHES[bench])}
    texts[f"{TOP_MODULE}.v"] = with_parameters(verilog(TOP_MODULE), parameters)
    texts[f"{bench}.v"] = with_parameters(verilog(bench), parameters | {"WORDS": words})
    return texts


def write_sources(design: Design, folder: Path, *, words: int, bench: str = TOP_BENCH) -> list[str]:
    """Write the files of ``design`` into an existing folder and name them."""
    texts = design_sources(design, words=words, bench=bench)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return list(texts)
