"""SAWB: statistics-aware weight binning (Choi et al. 2018, arXiv 1807.06964; MLSys 2019).

    alpha = c1·sqrt(E[w²]) − c2·E|w|                                    (arithmetic.md, eq. 3)
    q     = rne((clamp(w/alpha, −1, 1)/2 + 1/2)·(n − 1))
    w_q   = alpha·(2q/(n − 1) − 1)                                      n levels

``n = 2^b`` gives the odd grid (no zero level), ``n = 2^b − 1`` the zero-aligned one. The clip
carries no gradient and is stored in the checkpoint: the coefficients that different codebases
print differ, the clip is what the network was trained with.
"""

import torch
from torch import Tensor

from bitfold.errors import UsageError
from bitfold.ir import Grid
from bitfold.models.protocol import Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import along, straight_through
from bitfold.models.quantizers.steps import exact, positive_faults
from bitfold.models.spec import DEFAULT_GRID, GridKind

# (c1, c2) by number of levels, one table a source.
COEFFICIENTS: dict[str, dict[int, tuple[float, float]]] = {
    # foundation-model-stack/fms-model-optimizer: IBM's production values.
    "fms-model-optimizer": {
        3: (2.6, 1.71),
        4: (3.12, 2.064),
        8: (7.509, 6.892),
        15: (12.035, 12.03),
        16: (12.68, 12.80),
        32: (17.74, 18.64),
        127: (28.24, 30.81),
        255: (31.76, 35.04),
    },
    # pulp-platform/quantlib, symmetric grid.
    "quantlib": {
        3: (2.58072, 1.68371),
        4: (3.22824, 2.19780),
        7: (6.99146, 6.34798),
        8: (7.57111, 6.96333),
        15: (12.04287, 12.07040),
        16: (12.16637, 12.19222),
        32: (15.18684, 15.72128),
        127: (27.15792, 30.50641),
        255: (35.48044, 40.89530),
    },
    # Quoted elsewhere as the paper's own; not checked against the paper.
    "quoted": {2: (0, -1), 3: (2.587, 1.693), 4: (3.212, 2.178)},
    # A least-squares fit of our own over the same families of distributions.
    "least-squares": {
        2: (0, -1),
        3: (2.53, 1.61),
        4: (3.11, 2.05),
        7: (6.94, 6.31),
        8: (7.37, 6.74),
        15: (11.82, 11.86),
        16: (12.10, 12.17),
        32: (17.1, 18.0),
        255: (36.3, 40.9),
    },
    # pulp-platform/quantlib for two's-complement levels −alpha … alpha·(n − 2)/n: clips of another
    # grid, to read such checkpoints; no quantizer here uses them.
    "quantlib-twos-complement": {
        4: (4.74932, 3.32860),
        8: (8.26900, 7.36509),
        16: (12.06485, 11.86833),
        256: (36.15292, 41.73554),
    },
}

# The order in which a quantizer that names no source looks for its number of levels.
PREFERENCE = ("fms-model-optimizer", "quantlib", "quoted")


def coefficients(levels: int, source: str | None = None) -> tuple[float, float]:
    """(c1, c2) for ``levels`` levels: of ``source``, or of the first that has them.

    Raises UsageError where no table does.
    """
    for name in PREFERENCE if source is None else (source,):
        if levels in COEFFICIENTS.get(name, {}):
            return COEFFICIENTS[name][levels]
    raise UsageError(
        f"no SAWB coefficients for {levels} levels",
        where=f"SAWB weights, coefficients of {source or ', '.join(PREFERENCE)}",
        todo=f"Sources: {', '.join(COEFFICIENTS)}; choose one that has this number of levels.",
    )


def sawb_clip(
    weight: Tensor, levels: int, *, source: str | None = None, per_channel: bool = False
) -> Tensor:
    """Clip alpha of ``weight`` for ``levels`` levels, positive float32, () or one a filter (O,).

    Falls back to max|w| where the fit turns negative (near-binary weights, ≥ 15 levels).
    """
    c1, c2 = coefficients(levels, source)
    filters = len(weight) if per_channel else 1
    w = weight.detach().float().reshape(filters, -1)
    clip = c1 * w.square().mean(1).sqrt() - c2 * w.abs().mean(1)
    clip = torch.where(clip > 0, clip, w.abs().amax(1).clamp(min=1e-12))
    return clip if per_channel else clip[0]


def _default_kind(bits: int) -> GridKind:
    """The grid a width is trained on; widths that are not, on the one that has coefficients."""
    return DEFAULT_GRID.get(bits, "odd" if bits <= 5 else "narrow")


class SawbWeight(WeightQuantizer):
    """SAWB quantizer of one layer's weights; the clip is recomputed in training.

    ``clip`` is () or, with ``out_channels``, one a filter, (O,). ``source`` is a key of
    ``COEFFICIENTS``. Codes are rounded in float32, whatever the dtype of the weight.
    """

    clip: Tensor

    def __init__(
        self,
        bits: int,
        *,
        grid_kind: GridKind | None = None,
        out_channels: int | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        self.bits = bits
        self.grid_kind: GridKind = grid_kind or _default_kind(bits)
        self.levels: int = 2**bits if self.grid_kind == "odd" else 2**bits - 1
        self.source = source
        coefficients(self.levels, source)
        self.register_buffer("clip", torch.zeros(() if out_channels is None else (out_channels,)))

    @property
    def grid(self) -> Grid:
        """``odd(b)`` or ``narrow(b)``."""
        return Grid.odd(self.bits) if self.grid_kind == "odd" else Grid.narrow(self.bits)

    @property
    def unit(self) -> int:
        """Codes from 0 to the clip."""
        return self.levels - 1 if self.grid_kind == "odd" else (self.levels - 1) // 2

    def exact_scales(self, weight: Tensor) -> Rationals:
        """Real value of code 1: alpha / unit, one number or one a filter."""
        return tuple(clip / self.unit for clip in exact(self.clip))

    def indices(self, weight: Tensor) -> Tensor:
        """Level q ∈ 0…n−1 of each weight, float32."""
        clip = along(self.clip, weight, axis=0).float()
        unit = torch.clamp(weight.float() / clip, -1, 1) / 2 + 0.5
        return torch.round(unit * (self.levels - 1))

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Tensor:
        """Codes of ``weight`` on ``grid`` (same shape, int64)."""
        grid = self.grid
        return self.indices(weight).to(torch.int64) * grid.step + grid.lo

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        """Recompute the stored clip from ``weight``."""
        per_channel = self.clip.dim() > 0
        clip = sawb_clip(weight, self.levels, source=self.source, per_channel=per_channel)
        self.clip.copy_(clip)

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight``; gradient 1 inside [−alpha, alpha], 0 outside."""
        if self.training:
            self.calibrate(weight)
        clip = along(self.clip, weight, axis=0)
        value = clip * (2 * self.indices(weight).to(weight.dtype) / (self.levels - 1) - 1)
        return straight_through(value, torch.clamp(weight, -clip, clip))

    def faults(self, weight: Tensor) -> list[str]:
        """A clip that is not positive and finite."""
        return positive_faults("weight_quantizer.clip", self.clip)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}, grid={self.grid_kind}, clips={self.clip.numel()}"
