"""Running an integer graph on this machine: plan, arena, session, profile."""

from bitfold.runtime.plan import Plan, PlannedTensor, plan_graph
from bitfold.runtime.profile import StepTime
from bitfold.runtime.session import Session, TensorInfo

__all__ = ["Plan", "PlannedTensor", "Session", "StepTime", "TensorInfo", "plan_graph"]
