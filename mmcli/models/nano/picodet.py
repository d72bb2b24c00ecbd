"""PicoDet-S (Yu et al., arXiv:2111.00902): ESNet backbone, CSP-PAN neck and the shared-convolution head.

Written from the graph of the published model with batch norms folded into the convolutions. The parts are the paper's:
enhanced ShuffleNet blocks, a light path-aggregation neck of 96 channels on strides 8, 16, 32 and 64, and a head
whose box sides are distributions over 8 bins (generalised focal loss, arXiv:2006.04388).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.convolution import ActivatedConv
from mmcli.models.nano.config import CLASSES

STRIDES = (8, 16, 32, 64)
BINS = 8
NECK = 96
STEM = 24
# (blocks, output channels, inner channels of each block) of the three stages.
STAGES = (
    (96, (44, 48, 48)),
    (192, (48, 120, 96, 120, 96, 96, 96)),
    (384, (96, 192, 192)),
)


class Conv(ActivatedConv):
    """Convolution with bias and, unless told otherwise, a hard swish."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, act=True):
        super().__init__(inputs, outputs, kernel, stride, inputs if depthwise else 1, "hardswish" if act else None)


class SqueezeExcite(nn.Module):
    """Channel gates from the global mean."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = ActivatedConv(channels, channels // 4, activation="relu")
        self.expand = ActivatedConv(channels // 4, channels, activation="hardsigmoid")

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)))


class DownBlock(nn.Module):
    """Halves the grid: two branches side by side, then a depthwise-separable convolution over both."""

    def __init__(self, inputs: int, outputs: int, inner: int):
        super().__init__()
        self.plain_dw = Conv(inputs, inputs, 3, 2, depthwise=True, act=False)
        self.plain_pw = Conv(inputs, outputs // 2)
        self.deep_pw = Conv(inputs, inner)
        self.deep_dw = Conv(inner, inner, 3, 2, depthwise=True, act=False)
        self.deep_se = SqueezeExcite(inner)
        self.deep_out = Conv(inner, outputs // 2)
        self.merge_dw = Conv(outputs, outputs, 3, depthwise=True)
        self.merge_pw = Conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        plain = self.plain_pw(self.plain_dw(x))
        deep = self.deep_out(self.deep_se(self.deep_dw(self.deep_pw(x))))
        return self.merge_pw(self.merge_dw(torch.cat((plain, deep), 1)))


class ShuffleBlock(nn.Module):
    """Half of the channels pass by, the other half are worked on, then both are shuffled together."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.pw = Conv(channels // 2, inner // 2)
        self.dw = Conv(inner // 2, inner // 2, 3, depthwise=True, act=False)
        self.se = SqueezeExcite(inner)
        self.out = Conv(inner, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        past, x = x.chunk(2, 1)
        x = self.pw(x)
        x = self.out(self.se(torch.cat((x, self.dw(x)), 1)))
        return F.channel_shuffle(torch.cat((past, x), 1), 2)


class CSPLayer(nn.Module):
    """Cross-stage-partial merge of two maps: [B, 192, h, w] → [B, 96, h, w]."""

    def __init__(self):
        super().__init__()
        half = NECK // 2
        self.short = Conv(2 * NECK, half)
        self.main = Conv(2 * NECK, half)
        self.block = nn.Sequential(Conv(half, half), Conv(half, half, 5, depthwise=True), Conv(half, half))
        self.out = Conv(NECK, NECK)

    def forward(self, upper: Tensor, lower: Tensor) -> Tensor:
        x = torch.cat((upper, lower), 1)
        short = self.short(x)
        return self.out(torch.cat((self.block(self.main(x)), short), 1))


def separable(stride: int) -> nn.Sequential:
    """Depthwise 5×5 and pointwise convolution of neck width."""
    return nn.Sequential(Conv(NECK, NECK, 5, stride, depthwise=True), Conv(NECK, NECK))


class PicoDet(nn.Module):
    """Images [B, 3, side, side], ImageNet-normalised, side a multiple of 64 or 416 → the maps of four strides.

    Modules stand in the order in which the published graph runs them; the converter relies on it.
    """

    def __init__(self):
        super().__init__()
        self.stem = Conv(3, STEM, 3, 2)
        stages, inputs = [], STEM
        for outputs, inner in STAGES:
            blocks = [DownBlock(inputs, outputs, inner[0])]
            stages.append(nn.Sequential(*blocks, *(ShuffleBlock(outputs, i) for i in inner[1:])))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList(Conv(outputs, NECK) for outputs, _ in STAGES)
        self.top_down = nn.ModuleList((CSPLayer(), CSPLayer()))
        self.down = nn.ModuleList((separable(2), separable(2)))
        self.bottom_up = nn.ModuleList((CSPLayer(), CSPLayer()))
        self.top_first, self.top_second = separable(2), separable(2)
        self.towers = nn.ModuleList(nn.Sequential(separable(1), separable(1)) for _ in STRIDES)
        self.heads = nn.ModuleList(ActivatedConv(NECK, CLASSES + 4 * BINS) for _ in STRIDES)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """→ (features of each stride [B, 96, h, w], raw head outputs of each stride [B, 80 + 32, h, w])."""
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        fine, middle, coarse = (conv(m) for conv, m in zip(self.lateral, maps, strict=True))
        middle_in = self.top_down[0](_enlarge(coarse, middle), middle)
        fine = self.top_down[1](_enlarge(middle_in, fine), fine)
        middle = self.bottom_up[0](self.down[0](fine), middle_in)
        low = self.bottom_up[1](self.down[1](middle), coarse)
        top = self.top_first(coarse) + self.top_second(low)
        features = [tower(m) for tower, m in zip(self.towers, (fine, middle, low, top), strict=True)]
        return features, [head(f) for head, f in zip(self.heads, features, strict=True)]


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def detections(raw: list[Tensor], side: int, images: Tensor, classes: Tensor, count: int) -> tuple[Tensor, ...]:
    """The detector's own answer to R questions: where in image `images[i]` is something of class `classes[i]`?

    raw as `PicoDet.forward` gives it for images of `side` pixels → boxes [R, count, 4] as (x0, y0, x1, y1) in 0..1,
    logits of the class [R, count], and the largest of any other class at the same place [R, count]. Best first;
    overlapping boxes are among them.
    """
    scores = torch.cat([out[:, :CLASSES].float().flatten(2) for out in raw], 2)  # [P, 80, A]
    boxes = torch.cat([_decode_boxes(out[:, CLASSES:].float(), s) for out, s in zip(raw, STRIDES, strict=True)], 1)
    best, order = scores[images, classes].topk(min(count, scores.shape[2]), dim=1)
    there = torch.stack([scores[i].index_select(1, places) for i, places in zip(images.tolist(), order, strict=True)])
    others = there.scatter_(1, classes[:, None, None].expand(-1, 1, there.shape[2]), -torch.inf).amax(1)
    return (_take(boxes[images], order) / side).clamp(0, 1), best, others


def proposals(raw: list[Tensor], features: list[Tensor], side: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` most likely boxes, the weaker of two overlapping boxes of one class behind all others.

    raw and features as `PicoDet.forward` gives them for images of `side` pixels → boxes [B, count, 4] as
    (x0, y0, x1, y1) in 0..1, class logits [B, count, 80] and features [B, count, 96], best first; the weaker ones that
    fill the rest follow, best first too. All steps have a fixed size, so a batch equals its singles.
    """
    scores, places, maps = [], [], []
    for out, feature, stride in zip(raw, features, STRIDES, strict=True):
        out = out.float()
        scores.append(out[:, :CLASSES].flatten(2).transpose(1, 2))
        places.append(_decode_boxes(out[:, CLASSES:], stride))
        maps.append(feature.flatten(2).transpose(1, 2))
    logits, boxes, flat = torch.cat(scores, 1), torch.cat(places, 1), torch.cat(maps, 1)
    best, order = logits.amax(-1).topk(4 * count, dim=1)
    boxes, label = _take(boxes, order), _take(logits, order).argmax(-1)
    doubles = (overlaps(boxes, boxes) > 0.6) & (label[:, :, None] == label[:, None, :])
    # Parallel suppression (YOLACT's fast NMS, arXiv:1904.02689): a box falls to any better one, kept or not.
    beaten = doubles.tril(-1).any(-1)
    # Most images have fewer than `count` left. The beaten are equals here, so the sort is to keep them in their order:
    # the decoder reads proposals by their places.
    keep = best.masked_fill(beaten, -torch.inf).sort(dim=1, descending=True, stable=True).indices[:, :count]
    order = order.gather(1, keep)
    return (_take(boxes, keep) / side).clamp(0, 1), _take(logits, order), _take(flat, order)


def _decode_boxes(distributions: Tensor, stride: int) -> Tensor:
    """Distances to the four sides as expectations over 8 bins, in strides from the cell's centre → [B, h·w, 4] px."""
    batch, _, height, width = distributions.shape
    bins = torch.arange(BINS, device=distributions.device, dtype=torch.float32)
    sides = distributions.view(batch, 4, BINS, height * width).softmax(2)
    # Written as a product and a sum: a matrix product would lose digits under autocast.
    left, top, right, bottom = ((sides * bins.view(1, 1, -1, 1)).sum(2) * stride).unbind(1)
    y = (torch.arange(height, device=bins.device) + 0.5).repeat_interleave(width) * stride
    x = (torch.arange(width, device=bins.device) + 0.5).repeat(height) * stride
    return torch.stack((x - left, y - top, x + right, y + bottom), -1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x [B, A, C] at index [B, K] → [B, K, C]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of all pairs: [B, K, 4] and [B, L, 4] → [B, K, L]."""

    def shared(first: int, last: int) -> Tensor:
        low = torch.maximum(boxes[:, :, None, first], others[:, None, :, first])
        return (torch.minimum(boxes[:, :, None, last], others[:, None, :, last]) - low).clamp(min=0)

    inter = shared(0, 2) * shared(1, 3)
    area, other = ((b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (boxes, others))
    return inter / (area[:, :, None] + other[:, None, :] - inter).clamp(min=1e-6)


def uncrowded(boxes: Tensor, there: Tensor, most: float) -> Tensor:
    """Which of R rows of boxes [R, N, 4] are left where each leaves out those behind it that it overlaps by `most` or
    more: [R, N]. Only those that are `there` [R, N] count. On a CPU.
    """
    crowds, some = (overlaps(boxes, boxes) >= most).numpy(), there.numpy()
    left = np.zeros_like(some)
    for place in range(some.shape[1]):
        left[:, place] = some[:, place] & ~(crowds[:, place] & left).any(1)
    return torch.from_numpy(left)
