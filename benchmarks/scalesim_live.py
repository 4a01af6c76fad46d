"""SCALE-Sim itself against ``--mode scalesim``: equal cycles, and how much longer it takes.

    python3 -m venv ss; ss/bin/pip install scalesim==3.0.0 'numpy<2' 'pandas<3'
    python benchmarks/scalesim_live.py --python ss/bin/python -o benchmarks/results/scalesim.json

Every layer runs in a process of its own on a 32x32 array with 64 kB memories. CPU times are the
child's, and that of importing the package is taken off; a layer that takes less than the import has
no speed-up of its own. ``--layers`` picks by name; rows that the file holds are not run again.
"""

import argparse
import json
import platform
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from bitfold.fpga_sim import ArrayConfig
from bitfold.fpga_sim.scalesim import TopologyLayer, simulate_topology, write_topology

# ResNet-18 and MobileNet-V1 at 224 x 224: padding included, unreached rows trimmed; a "DP" row is
# one of its equal channels. (name, size, kernel, channels, filters, stride, how often).
LAYERS = (
    ("resnet18.conv1", 229, 7, 3, 64, 2, 1),
    ("resnet18.l1.conv", 58, 3, 64, 64, 1, 4),
    ("resnet18.l2.0.conv1", 57, 3, 64, 128, 2, 1),
    ("resnet18.l2.conv", 30, 3, 128, 128, 1, 3),
    ("resnet18.l2.ds", 55, 1, 64, 128, 2, 1),
    ("resnet18.l3.0.conv1", 29, 3, 128, 256, 2, 1),
    ("resnet18.l3.conv", 16, 3, 256, 256, 1, 3),
    ("resnet18.l3.ds", 27, 1, 128, 256, 2, 1),
    ("resnet18.l4.0.conv1", 15, 3, 256, 512, 2, 1),
    ("resnet18.l4.conv", 9, 3, 512, 512, 1, 3),
    ("resnet18.l4.ds", 13, 1, 256, 512, 2, 1),
    ("resnet18.fc", 1, 1, 512, 1000, 1, 1),
    ("mobilenetv1.conv1", 225, 3, 3, 32, 2, 1),
    ("mobilenetv1.dw1", 114, 3, 1, 1, 1, 32),
    ("mobilenetv1.pw1", 112, 1, 32, 64, 1, 1),
    ("mobilenetv1.dw2", 113, 3, 1, 1, 2, 64),
    ("mobilenetv1.pw2", 56, 1, 64, 128, 1, 1),
    ("mobilenetv1.dw3", 58, 3, 1, 1, 1, 128),
    ("mobilenetv1.pw3", 56, 1, 128, 128, 1, 1),
    ("mobilenetv1.dw4", 57, 3, 1, 1, 2, 128),
    ("mobilenetv1.pw4", 28, 1, 128, 256, 1, 1),
    ("mobilenetv1.dw5", 30, 3, 1, 1, 1, 256),
    ("mobilenetv1.pw5", 28, 1, 256, 256, 1, 1),
    ("mobilenetv1.dw6", 29, 3, 1, 1, 2, 256),
    ("mobilenetv1.pw6", 14, 1, 256, 512, 1, 1),
    ("mobilenetv1.dw7", 16, 3, 1, 1, 1, 2560),
    ("mobilenetv1.pw7", 14, 1, 512, 512, 1, 5),
    ("mobilenetv1.dw8", 15, 3, 1, 1, 2, 512),
    ("mobilenetv1.pw8", 7, 1, 512, 1024, 1, 1),
    ("mobilenetv1.dw9", 9, 3, 1, 1, 1, 1024),
    ("mobilenetv1.pw9", 7, 1, 1024, 1024, 1, 1),
    ("mobilenetv1.fc", 1, 1, 1024, 1000, 1, 1),
)
CONFIG = """[general]
run_name = live
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 32
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: {dataflow}
ReadRequestBuffer: 64
WriteRequestBuffer: 64
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
RUN = """import sys
from scalesim.scale_sim import scalesim
config, topology, layout, out = sys.argv[1:]
sim = scalesim(save_disk_space=True, verbose=False, config=config, topology=topology, layout=layout)
sim.run_scale(top_path=out)
"""
REPEATS = 200


def cpu_model() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def child_seconds(command: list[str], folder: Path) -> float:
    """CPU seconds of one process; raises CalledProcessError where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def live(layer: TopologyLayer, dataflow: str, python: Path) -> tuple[int, float]:
    """SCALE-Sim's total cycles of one layer, and the CPU seconds of its process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "c.cfg").write_text(CONFIG.format(dataflow=dataflow), "utf-8")
        (folder / "t.csv").write_text(write_topology([layer]), "utf-8")
        (folder / "l.csv").write_text("Layer name,\n", "utf-8")
        (folder / "out").mkdir()
        command = [str(python), "-c", RUN, "c.cfg", "t.csv", "l.csv", "out"]
        seconds = child_seconds(command, folder)
        report = next((folder / "out").rglob("COMPUTE_REPORT.csv")).read_text("utf-8")
    return int(float(report.splitlines()[1].split(",")[2])), seconds


def ours(layer: TopologyLayer, array: ArrayConfig) -> tuple[int, float]:
    """The same count in closed form, and the CPU seconds of one."""
    start = time.process_time()
    for _ in range(REPEATS):
        found = simulate_topology([layer], array)
    return found.cycles, (time.process_time() - start) / REPEATS


def measured(row: tuple[str, int, int, int, int, int, int], dataflow: str, python: Path,
             start: float) -> dict[str, object]:  # fmt: skip
    """One layer both ways."""
    name, size, kernel, channels, filters, stride, times = row
    layer = TopologyLayer(name, size, size, kernel, kernel, channels, filters, stride)
    array = ArrayConfig(rows=32, cols=32, dataflow=dataflow, mode="scalesim")
    cycles, seconds = ours(layer, array)
    theirs, cpu = live(layer, dataflow, python)
    return {
        "layer": name,
        "dataflow": dataflow,
        "times": times,
        "cycles": cycles,
        "scalesim_cycles": theirs,
        "scalesim_cpu_s": round(max(0.0, cpu - start), 3),
        "import_cpu_s": round(start, 3),
        "bitfold_cpu_s": seconds,
        "speed_up": round((cpu - start) / seconds) if cpu > 2 * start else None,
    }


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """Sums over layers and how often they occur."""
    theirs = sum(float(str(row["scalesim_cpu_s"])) * int(str(row["times"])) for row in rows)
    mine = sum(float(str(row["bitfold_cpu_s"])) * int(str(row["times"])) for row in rows)
    equal = sum(row["cycles"] == row["scalesim_cycles"] for row in rows)
    return {"rows": len(rows), "equal": equal, "scalesim_cpu_s": theirs, "bitfold_cpu_s": mine,
            "speed_up": round(theirs / mine)}  # fmt: skip


def main() -> None:
    """Run what is asked for, write after every layer, print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--dataflows", default="os,ws,is")
    parser.add_argument("--layers", default="", help="names or prefixes, comma between")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    python = options.python.absolute()
    wanted = tuple(filter(None, options.layers.split(",")))
    command = [str(python), "-c", "import scalesim.scale_sim"]
    start = min(child_seconds(command, Path.cwd()) for _ in range(3))
    rows: list[dict[str, object]] = []
    if options.output.exists():
        rows = json.loads(options.output.read_text("utf-8"))["rows"]
    done = {(row["layer"], row["dataflow"]) for row in rows}
    for dataflow in options.dataflows.split(","):
        for row in LAYERS:
            if (wanted and not row[0].startswith(wanted)) or (row[0], dataflow) in done:
                continue
            rows.append(measured(row, dataflow, python, start))
            content = {
                "cpu": cpu_model(),
                "python": platform.python_version(),
                "scalesim": "3.0.0",
                "summary": summary(rows),
                "rows": rows,
            }
            options.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
