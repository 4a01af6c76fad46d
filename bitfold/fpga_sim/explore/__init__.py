"""Design-space sweeps: many arrays, the results of a kill kept, a Pareto front."""

from bitfold.fpga_sim.explore.pareto import pareto_front
from bitfold.fpga_sim.explore.results import ResultFile, Row, open_results
from bitfold.fpga_sim.explore.run import Exploration, ExploreRequest, Variant, explore
from bitfold.fpga_sim.explore.sweep import Sweep, read_sweep

__all__ = [
    "Exploration",
    "ExploreRequest",
    "ResultFile",
    "Row",
    "Sweep",
    "Variant",
    "explore",
    "open_results",
    "pareto_front",
    "read_sweep",
]
