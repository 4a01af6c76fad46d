"""BASQ's building blocks: units of batch norm, quantizer, convolution, skip, batch norm.

After Kim, Park & Yoo (ECCV 2022) and the code they published; METHODS names:

    pointwise  o = BN_last( relu(BN_b( conv1x1( LSQ( BN_a(x) ) ) )) + flex(x) )
    branch     o = BN_last[j]( relu(BN_d[j]( conv3x3( PACT_j( BN_c[j](x) ) ) )) + flex(pool(x)) )

Seven branches share the convolution's weights; a genome names one branch a unit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.layers import QuantConv2d
from bitfold.models.nets.base import QuantNet
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.stages import Size, halving_kernel, strided
from bitfold.models.offered import METHODS
from bitfold.models.quantizers.basq import BranchActivation
from bitfold.models.spec import NetSpec

NUM_BRANCHES = 7
WEIGHT_RANGE = 0.01
DROPOUT = 0.2


@dataclass(frozen=True, slots=True)
class BranchPlan:
    """A branch unit's place: channels, stride, size of its input, quantizers, branches built."""

    in_channels: int
    out_channels: int
    stride: int
    size: Size
    scheme: Scheme
    branches: tuple[int, ...]


class FlexSkip(nn.Module):
    """Changes the channels of a skip path without weights.

    ``in < out``: out[m·in + c] = x[c]; ``in > out``: the sum of consecutive groups of ``out``
    channels, the last one zero-padded at its end; equal: x itself.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels < out_channels and out_channels % in_channels:
            raise UsageError(
                f"{in_channels} channels cannot be repeated to {out_channels}",
                where="skip path of a BASQ unit",
                todo="Choose widths where a unit that widens does so by a whole factor.",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        if self.in_channels == self.out_channels:
            return x
        if self.in_channels < self.out_channels:
            return x.repeat(1, self.out_channels // self.in_channels, 1, 1)
        groups = torch.split(x, self.out_channels, dim=1)
        missing = self.out_channels - groups[-1].shape[1]
        last = nn.functional.pad(groups[-1], (0, 0, 0, 0, 0, missing))
        return torch.stack([*groups[:-1], last]).sum(0)


class PointwiseUnit(nn.Module):
    """Batch norm, LSQ quantizer, 1x1 convolution, batch norm, ReLU; skip; batch norm."""

    def __init__(self, in_channels: int, out_channels: int, *, scheme: Scheme) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm2d(in_channels)
        self.act = scheme.act(channels=in_channels)
        self.conv = scheme.conv(in_channels, out_channels, 1)
        self.bn_out = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.skip = FlexSkip(in_channels, out_channels)
        self.bn_last = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        branch = self.relu(self.bn_out(self.conv(self.act(self.bn_in(x)))))
        out: Tensor = self.bn_last(branch + self.skip(x))
        return out


class Branch(nn.Module):
    """What a branch has of its own: a clip and three batch norms."""

    def __init__(self, plan: BranchPlan) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm2d(plan.in_channels)
        self.act = BranchActivation(plan.scheme.spec.bits[1])
        self.bn_out = nn.BatchNorm2d(plan.out_channels)
        self.bn_last = nn.BatchNorm2d(plan.out_channels)


class BranchUnit(nn.Module):
    """A 3x3 convolution, depthwise or dense, behind one of its branches: ``selected``.

    The branch is read when the module runs: it may change between two steps of a training.
    """

    def __init__(self, plan: BranchPlan, *, depthwise: bool) -> None:
        super().__init__()
        self.selected = plan.branches[0]
        self.branches = nn.ModuleDict({str(j): Branch(plan) for j in plan.branches})
        groups = plan.in_channels if depthwise else 1
        self.conv = plan.scheme.conv(
            plan.in_channels, plan.out_channels, 3, stride=plan.stride, groups=groups
        )
        self.relu = nn.ReLU()
        self.pool: nn.AvgPool2d | None = None
        if plan.stride == 2:
            self.pool = nn.AvgPool2d(halving_kernel(plan.size), stride=2)
        self.skip = FlexSkip(plan.in_channels, plan.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, OH, OW)."""
        branch = self.branches[str(self.selected)]
        assert isinstance(branch, Branch)
        sums = self.conv(branch.act(branch.bn_in(x)))
        skip = self.skip(x if self.pool is None else self.pool(x))
        out: Tensor = branch.bn_last(self.relu(branch.bn_out(sums)) + skip)
        return out


@dataclass(frozen=True, slots=True)
class Body:
    """What one BASQ network puts between the edges that all have in common."""

    stem_channels: int
    stem_kernel: int
    stem_stride: int
    max_pool: bool
    blocks: tuple[nn.Module, ...]
    out_channels: int


class BranchedNet(QuantNet, ABC):
    """A BASQ network on raw pixels (N, C, H, W), values 0…255: stem, ``blocks``, mean, classifier.

    A spec without a genome builds all branches of each unit (a supernet, whose branches ``select``
    switches); one with a genome only the chosen ones, under the same names.

    Raises:
        UsageError: genome, block bits or channels do not fit.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        body = self.body(spec)
        scheme = Scheme.of(spec)
        self.norm = scheme.norm()
        self.conv1 = scheme.first(body.stem_channels, body.stem_kernel, stride=body.stem_stride)
        self.bn1 = nn.BatchNorm2d(body.stem_channels)
        self.relu = nn.ReLU()
        self.max_pool = nn.MaxPool2d(3, stride=2, padding=1) if body.max_pool else nn.Identity()
        self.blocks = nn.Sequential(*body.blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT)
        self.act = scheme.last_act(signed=True)
        self.fc = scheme.last(body.out_channels, len(spec.class_names))
        self._initialize()

    @staticmethod
    @abstractmethod
    def body(spec: NetSpec) -> Body:
        """The stem's numbers, and new blocks with random weights."""

    def _initialize(self) -> None:
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        for module in self.blocks.modules():
            if isinstance(module, QuantConv2d):
                nn.init.uniform_(module.weight, -WEIGHT_RANGE, WEIGHT_RANGE)
                with torch.no_grad():
                    module.weight_quantizer.calibrate(module.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(self.norm(pixels))))
        x = self.blocks(self.max_pool(x))
        x = torch.flatten(self.pool(x), 1)
        logits: Tensor = self.fc(self.act(self.dropout(x)))
        return logits

    def branch_units(self) -> list[BranchUnit]:
        """The units with branches, in the order of the genome."""
        return [module for module in self.blocks.modules() if isinstance(module, BranchUnit)]

    @property
    def num_blocks(self) -> int:
        """How many genes a genome has: one a branch unit."""
        return len(self.branch_units())

    @property
    def genome(self) -> tuple[int, ...]:
        """The branch that each unit takes now."""
        return tuple(unit.selected for unit in self.branch_units())

    def select(self, genome: Sequence[int]) -> None:
        """Take branch ``genome[i]`` in unit i from the next forward on.

        Raises:
            UsageError: another number of genes, or a branch that this network was built without.
        """
        self.check(genome)
        for unit, gene in zip(self.branch_units(), genome, strict=True):
            unit.selected = int(gene)

    def check(self, genome: Sequence[int]) -> None:
        """Raise UsageError unless ``genome`` names a branch of each unit that was built."""
        units = self.branch_units()
        _check_count(len(genome), len(units), "genes")
        for i, (unit, gene) in enumerate(zip(units, genome, strict=True)):
            _check_gene(i, gene, tuple(map(int, unit.branches)))


Net = TypeVar("Net", bound=BranchedNet)


def extract(supernet: Net, genome: Sequence[int]) -> Net:
    """The network of one genome, with copies of the supernet's numbers; state names are kept.

    Device and mode are the supernet's; all weight quantizers are enabled.

    Raises:
        UsageError: as ``BranchedNet.select``.
    """
    supernet.check(genome)
    chosen = type(supernet)(replace(supernet.spec, genome=tuple(map(int, genome))))
    state = supernet.state_dict()
    chosen.load_state_dict({name: state[name] for name in chosen.state_dict()})
    return chosen.to(supernet.fc.weight.device).train(supernet.training)


def plan_branches(
    spec: NetSpec, shapes: Sequence[tuple[int, int, int]], size: Size
) -> list[BranchPlan]:
    """Plans of the units of (in, out, stride) in ``shapes``, the first reading a map of ``size``.

    Raises:
        UsageError: genome or block bits do not fit so many units, or name what is not offered.
    """
    for numbers, what in ((spec.genome, "genes"), (spec.block_bits, "block bits")):
        _check_count(len(numbers) or len(shapes), len(shapes), what)
    _check_bits(spec)
    plans = []
    for i, (in_channels, out_channels, stride) in enumerate(shapes):
        bits = (spec.block_bits[i], spec.block_bits[i]) if spec.block_bits else spec.bits
        scheme = Scheme.of(replace(spec, bits=bits))
        branches = tuple(range(NUM_BRANCHES))
        if spec.genome:
            _check_gene(i, spec.genome[i], branches)
            branches = (spec.genome[i],)
        plans.append(BranchPlan(in_channels, out_channels, stride, size, scheme, branches))
        size = strided(size, stride)
    return plans


def _check_count(got: int, wanted: int, what: str) -> None:
    if got != wanted:
        raise UsageError(
            f"{got} {what}", where="BASQ network", todo=f"Give {wanted} {what}, one a branch unit."
        )


def _check_bits(spec: NetSpec) -> None:
    offered = METHODS[spec.method].weights
    for i, bits in enumerate(spec.block_bits):
        if bits not in offered:
            raise UsageError(
                f"block {i} has {bits} bits",
                where="BASQ network, block bits",
                todo=f"Offered: {', '.join(map(str, offered))} bits.",
            )


def _check_gene(i: int, gene: int, branches: tuple[int, ...]) -> None:
    if gene not in branches:
        listed = ", ".join(map(str, branches))
        raise UsageError(
            f"gene {i} is {gene!r}, of branches {listed}",
            where="BASQ genome",
            todo="Name a branch that exists in each unit.",
        )
