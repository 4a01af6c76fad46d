"""The Verilog files of a design: the library as it is, top and test bench with its parameters."""

import re
from importlib.resources import files
from pathlib import Path

from bitfold.fpga_sim.rtl.design import Design

TOP_MODULE = "bf_top"
TOP_BENCH = "bf_tb"
COMMON = ("bf_resize", "bf_decode", "bf_dot", "bf_product", "bf_packed", "bf_delay", "bf_skew",
          "bf_settle", "bf_planes", "bf_select", "bf_threshold", "bf_requantize", "bf_memory",
          "bf_pe", "bf_array_os", "bf_control_os", "bf_core_os",
          "bf_pe_ws", "bf_array_ws", "bf_control_ws", "bf_core_ws")  # fmt: skip


def verilog(name: str) -> str:
    """The text of one module of the library, or of the test bench."""
    folder = "testbench" if name == TOP_BENCH else "verilog"
    return (files("bitfold.fpga_sim.rtl") / folder / f"{name}.v").read_text("utf-8")


def with_parameters(text: str, parameters: dict[str, int]) -> str:
    """``text`` with the defaults of its module parameters replaced."""
    for name, value in parameters.items():
        text = re.sub(rf"(parameter {name}\s*= )[^,\n]+?(,|\s*$|\s*//)", rf"\g<1>{value}\g<2>",
                      text, count=1, flags=re.M)  # fmt: skip
    return text


def design_sources(design: Design, *, words: int) -> dict[str, str]:
    """File name → text: library, top and test bench, whose memories hold ``words`` words."""
    parameters = design.parameters()
    texts = {f"{name}.v": verilog(name) for name in COMMON}
    texts[f"{TOP_MODULE}.v"] = with_parameters(verilog(TOP_MODULE), parameters)
    texts[f"{TOP_BENCH}.v"] = with_parameters(verilog(TOP_BENCH), parameters | {"WORDS": words})
    return texts


def write_sources(design: Design, folder: Path, *, words: int) -> list[str]:
    """Write the files of ``design`` into an existing folder and name them."""
    texts = design_sources(design, words=words)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return list(texts)
