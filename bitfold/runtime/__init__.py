"""Running an integer graph on this machine: plan, arena, session, profile.

Names are resolved when first used: a session whose plan is kept needs no code that makes plans.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitfold.runtime.plan import Plan, PlannedTensor, plan_graph
    from bitfold.runtime.profile import StepTime
    from bitfold.runtime.session import Session, TensorInfo

_HOMES = {
    "Plan": "plan",
    "PlannedTensor": "plan",
    "plan_graph": "plan",
    "StepTime": "profile",
    "Session": "session",
    "TensorInfo": "session",
}

__all__ = ["Plan", "PlannedTensor", "Session", "StepTime", "TensorInfo", "plan_graph"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
