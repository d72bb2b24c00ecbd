"""EfficientNet-Lite2 (Tan & Le, arXiv:1905.11946; the Lite variants have no squeeze-and-excitation and use ReLU6).

Batch norms are folded into the convolutions, and padding follows TensorFlow's "same", as in the published weights.
"""

from torch import Tensor, nn

from mmcli.layers.convolution import ActivatedConv

STEM = 32
# (kernel, stride, expansion, output channels, blocks) of each stage, with the width 1.1 and depth 1.2 of Lite2.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 48, 3),
    (3, 2, 6, 88, 4),
    (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5),
    (3, 1, 6, 352, 1),
)
# Stages whose output leaves the tower: strides 4, 8, 16 and 32.
OUTPUTS = (1, 2, 4, 6)
CHANNELS = tuple(STAGES[i][3] for i in OUTPUTS)


class SameConv(ActivatedConv):
    """Convolution whose padding is split the way TensorFlow does: the odd pixel goes right and below."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
    ):
        # Sides are even where they are halved, so "same" pads kernel − 2 pixels in all.
        first, last = (kernel - 2) // 2, (kernel - 1) // 2
        margin = (first, last, first, last) if stride == 2 else None
        super().__init__(inputs, outputs, kernel, stride, groups, activation, margin)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; the input is added where the shape allows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = SameConv(inputs, inner, activation="relu6") if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, inner, "relu6")
        self.project = SameConv(inner, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Images [B, 3, side, side] as (value − 127) / 128, side a multiple of 32 → maps of strides 4, 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.stem = SameConv(3, STEM, 3, 2, activation="relu6")
        stages, inputs = [], STEM
        for kernel, stride, expansion, outputs, blocks in STAGES:
            stage = []
            for i in range(blocks):
                stage.append(InvertedResidual(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in OUTPUTS:
                maps.append(x)
        return maps
