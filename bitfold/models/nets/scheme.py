"""Which quantizer a method puts where; networks ask for layers and never name a quantizer.

    norm → input_act → first → … act → conv … shortcut_act → shortcut … → last_act → last

Edges (METHODS of each paper): PACT, STTN, BASQ and 1-bit UniQ leave first and last layers in
float. Trained here they have 8-bit weights and an 8-bit quantizer in front of the last layer
(ADR 0009); of a published network (``PublishedPreprocessing``) the inputs stay unquantized and the
weights have ``spec.edge_bits``. UniQ from 2 bits on quantizes its edges itself, to 8 bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from bitfold.errors import UnsupportedError, UsageError
from bitfold.models.layers import PixelConv2d, PixelNorm, QuantConv2d, QuantLinear
from bitfold.models.protocol import WeightQuantizer
from bitfold.models.quantizers.basq import LsqActivation, LsqWeight
from bitfold.models.quantizers.dorefa import DorefaWeight
from bitfold.models.quantizers.identity import FullPrecisionActivation, FullPrecisionWeight
from bitfold.models.quantizers.minmax import MinMaxWeight, SumPreservingWeight
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.quantizers.sawb import SawbWeight
from bitfold.models.quantizers.sttn import StqnActivation, StqnWeight, SttnActivation, SttnWeight
from bitfold.models.quantizers.uniq import UniqActivation, UniqInput, UniqWeight
from bitfold.models.spec import NetSpec, PublishedPreprocessing

EDGE_ACTIVATION_BITS = 8


class Scheme(ABC):
    """The layers of a network, quantized as ``spec`` says; edges as float ones are deployed."""

    def __init__(self, spec: NetSpec) -> None:
        """Raise UsageError where published means and stds do not fit the image's channels."""
        self.spec = spec
        match spec.preprocessing:
            case PublishedPreprocessing(means=means) if len(means) != spec.input_shape[2]:
                raise UsageError(
                    f"{len(means)} means for images of {spec.input_shape[2]} channels",
                    where="preprocessing",
                    todo="Give one mean and one std a channel.",
                )
            case _:
                pass

    @staticmethod
    def of(spec: NetSpec) -> "Scheme":
        """The scheme of ``spec.method`` at ``spec.bits``; raises UsageError for an unknown one."""
        if spec.method not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise UsageError(
                f"unknown method {spec.method!r}", where="method", todo=f"Known: {known}."
            )
        if spec.method == "uniq" and min(spec.bits) == 1:
            return BinaryUniqScheme(spec)
        return SCHEMES[spec.method](spec)

    @property
    def is_published(self) -> bool:
        """Whether the network came with real-valued means and stds, and so with float edges."""
        return isinstance(self.spec.preprocessing, PublishedPreprocessing)

    @abstractmethod
    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """What stands in front of a body convolution of ``channels`` inputs.

        Every quantizer but the signed ones clips below zero. In float it is a ReLU, or nothing
        where ``rectify`` is off: behind a ReLU6, and where a float network reads signed values.
        """

    @abstractmethod
    def weight(self, out_channels: int) -> WeightQuantizer:
        """Quantizer of a body layer's weights."""

    def norm(self) -> nn.Module:
        """From raw pixels to what ``first`` reads."""
        return nn.Identity() if self.is_published else PixelNorm(self.spec.preprocessing)

    def input_act(self) -> nn.Module:
        """Quantizer of the normalized pixels; nothing where their codes are the pixels."""
        return nn.Identity()

    def first(self, out_channels: int, kernel: int, *, stride: int = 1) -> QuantConv2d:
        """The convolution that reads the image."""
        match self.spec.preprocessing:
            case PublishedPreprocessing() as published:
                rounded = SumPreservingWeight(self.spec.edge_bits)
                return PixelConv2d(
                    published, out_channels, kernel, weight_quantizer=rounded, stride=stride
                )
            case _:
                channels, weight = self.spec.input_shape[2], self.edge_weight()
                return QuantConv2d(
                    channels, out_channels, kernel, weight_quantizer=weight, stride=stride
                )

    def first_linear(self, in_features: int, out_features: int) -> QuantLinear:
        """The fully connected layer that reads the flattened image.

        Raises UnsupportedError for real-valued means: only ``PixelConv2d`` folds them.
        """
        if self.is_published:
            raise UnsupportedError(
                "a fully connected first layer on pixels with real-valued means",
                where="preprocessing",
                todo="Give a whole mean and std in units of one pixel step.",
            )
        return QuantLinear(in_features, out_features, weight_quantizer=self.edge_weight())

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> QuantConv2d:
        """A body convolution; ``act`` stands in front of it."""
        return QuantConv2d(
            in_channels, out_channels, kernel, weight_quantizer=self.weight(out_channels),
            stride=stride, groups=groups, bias=bias,
        )  # fmt: skip

    def linear(self, in_features: int, out_features: int) -> QuantLinear:
        """A body layer that is fully connected; ``act`` stands in front of it."""
        return QuantLinear(in_features, out_features, weight_quantizer=self.weight(out_features))

    def shortcut_act(self) -> nn.Module | None:
        """What the 1x1 shortcut reads through; None: the codes of the block's first ``act``."""
        return None

    def shortcut(self, in_channels: int, out_channels: int, *, stride: int) -> QuantConv2d:
        """The 1x1 convolution of a skip path whose size changes."""
        return QuantConv2d(
            in_channels, out_channels, 1, weight_quantizer=self.edge_weight(), stride=stride
        )

    def last_act(self, *, signed: bool) -> nn.Module:
        """What stands in front of the last layer; ``signed``: its input may be negative."""
        return nn.Identity() if self.is_published else self.edge_act(signed=signed)

    def last(self, in_features: int, out_features: int) -> QuantLinear:
        """The layer that gives the logits."""
        return QuantLinear(in_features, out_features, weight_quantizer=self.edge_weight())

    def edge_weight(self) -> WeightQuantizer:
        """Quantizer of weights that the method leaves in float."""
        return MinMaxWeight(self.spec.edge_bits)

    def edge_act(self, *, signed: bool) -> nn.Module:
        """An 8-bit activation quantizer for an edge; ``signed`` codes are symmetric."""
        return LsqActivation(EDGE_ACTIVATION_BITS, signed=signed)


class PactScheme(Scheme):
    """PACT activations on SAWB weights; the shortcut keeps a high precision (Choi et al. 2018)."""

    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """PACT, one clip a layer."""
        return PactActivation(self.spec.bits[1])

    def weight(self, out_channels: int) -> WeightQuantizer:
        """SAWB on ``spec.weight_grid``, one clip a layer."""
        return SawbWeight(self.spec.bits[0], grid_kind=self.spec.weight_grid)

    def edge_act(self, *, signed: bool) -> nn.Module:
        """PACT, or LSQ where the input is signed."""
        return super().edge_act(signed=True) if signed else PactActivation(EDGE_ACTIVATION_BITS)


class DorefaScheme(PactScheme):
    """PACT activations on DoReFa weights, as in PACT's own tables."""

    def weight(self, out_channels: int) -> WeightQuantizer:
        """DoReFa."""
        return DorefaWeight(self.spec.bits[0])


class BinaryUniqScheme(Scheme):
    """UniQ with 1-bit weights or activations: first, last and shortcut layers are float."""

    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """One step a layer."""
        return UniqActivation(self.spec.bits[1])

    def weight(self, out_channels: int) -> WeightQuantizer:
        """One step a layer, or a kernel where the spec asks for it."""
        kernels = out_channels if self.spec.per_kernel else None
        return UniqWeight(self.spec.bits[0], out_channels=kernels)

    def shortcut_act(self) -> nn.Module | None:
        """A quantizer of its own; the ReLU alone, as published."""
        return nn.ReLU() if self.is_published else self.edge_act(signed=False)

    def edge_act(self, *, signed: bool) -> nn.Module:
        """UniQ, or LSQ where the input is signed."""
        return super().edge_act(signed=True) if signed else UniqActivation(EDGE_ACTIVATION_BITS)


class UniqScheme(BinaryUniqScheme):
    """UniQ from 2 bits on: 8-bit first and last layers, shortcuts as the body."""

    def norm(self) -> nn.Module:
        """Pixels normalized as the spec says; ``input_act`` follows."""
        return PixelNorm(self.spec.preprocessing)

    def input_act(self) -> nn.Module:
        """Mid-rise, signed, 8 bits."""
        return UniqInput(EDGE_ACTIVATION_BITS)

    def first(self, out_channels: int, kernel: int, *, stride: int = 1) -> QuantConv2d:
        """8-bit weights, one step for the layer."""
        return QuantConv2d(
            self.spec.input_shape[2], out_channels, kernel,
            weight_quantizer=self.edge_weight(), stride=stride,
        )  # fmt: skip

    def first_linear(self, in_features: int, out_features: int) -> QuantLinear:
        """8-bit weights, one step for the layer."""
        return QuantLinear(in_features, out_features, weight_quantizer=self.edge_weight())

    def shortcut_act(self) -> nn.Module | None:
        """A step of its own."""
        return self.act()

    def shortcut(self, in_channels: int, out_channels: int, *, stride: int) -> QuantConv2d:
        """Quantized as the body."""
        return self.conv(in_channels, out_channels, 1, stride=stride)

    def last_act(self, *, signed: bool) -> nn.Module:
        """8 bits, as published."""
        return self.edge_act(signed=signed)

    def edge_weight(self) -> WeightQuantizer:
        """8 bits, one step a layer."""
        return UniqWeight(EDGE_ACTIVATION_BITS)


class SttnScheme(Scheme):
    """Ternary weights from two branches, ternary activations (STTN)."""

    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """−1, 0, +1 by fixed thresholds."""
        return SttnActivation()

    def weight(self, out_channels: int) -> WeightQuantizer:
        """Two latent kernels."""
        return SttnWeight()


class StqnScheme(Scheme):
    """The n-bit form of STTN; "STQN-like": the paper's own construction is not public."""

    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """Symmetric codes by fixed thresholds."""
        return StqnActivation(self.spec.bits[1])

    def weight(self, out_channels: int) -> WeightQuantizer:
        """2^b − 2 latent kernels."""
        return StqnWeight(self.spec.bits[0])


class BasqScheme(Scheme):
    """LSQ weights and pointwise activations; the branch clips are the networks' own (BASQ)."""

    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """One step a layer, or one an input channel (``channels``) where the spec asks for it."""
        per_channel = channels if self.spec.per_channel else None
        return LsqActivation(self.spec.bits[1], channels=per_channel)

    def weight(self, out_channels: int) -> WeightQuantizer:
        """One step a kernel."""
        return LsqWeight(self.spec.bits[0], out_channels=out_channels)


class FloatScheme(Scheme):
    """No quantizer at all: the baseline of a table, the teacher, the start of UniQ's training."""

    def act(self, *, channels: int | None = None, rectify: bool = True) -> nn.Module:
        """A ReLU or nothing."""
        return FullPrecisionActivation(relu=rectify)

    def weight(self, out_channels: int) -> WeightQuantizer:
        """As they are."""
        return FullPrecisionWeight()

    def norm(self) -> nn.Module:
        """Pixels normalized as the spec says."""
        return PixelNorm(self.spec.preprocessing)

    def first(self, out_channels: int, kernel: int, *, stride: int = 1) -> QuantConv2d:
        """A plain convolution."""
        return self.conv(self.spec.input_shape[2], out_channels, kernel, stride=stride)

    def first_linear(self, in_features: int, out_features: int) -> QuantLinear:
        """A plain layer."""
        return self.linear(in_features, out_features)

    def last_act(self, *, signed: bool) -> nn.Module:
        """Nothing."""
        return nn.Identity()

    def edge_weight(self) -> WeightQuantizer:
        """As they are."""
        return FullPrecisionWeight()


SCHEMES: Mapping[str, type[Scheme]] = MappingProxyType(
    {
        "pact-sawb": PactScheme,
        "pact-dorefa": DorefaScheme,
        "uniq": UniqScheme,
        "sttn": SttnScheme,
        "stqn": StqnScheme,
        "basq": BasqScheme,
        "float": FloatScheme,
    }
)
