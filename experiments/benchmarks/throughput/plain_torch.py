"""PyTorch as its users write it: modules in channels_last, eager, all cores on one child.

`torch_per_core` runs the same on one core each. Where PyTorch sees a GPU, a child is trained there,
in bfloat16 as ours are (`torch.autocast`), with the images in its memory.
"""

from __future__ import annotations

import functools
import time

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from experiments.benchmarks.throughput import common
from fnas_jax.layers.spec import (
    CONV,
    HARD_SWISH,
    MBCONV,
    NO_SKIP,
    NONE,
    POOL,
    RELU,
    RELU6,
    LayerSpec,
)
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces.base import Space

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.backends.cudnn.benchmark = True  # the fastest of its algorithms


class Excite(nn.Module):
    """Squeeze-excitation; `hard`: it weighs by hard sigmoids."""

    def __init__(self, channels: int, hidden: int, hard: bool):
        super().__init__()
        self.weigh = F.hardsigmoid if hard else torch.sigmoid
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x):
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3)))))
        return x * self.weigh(gate)[:, :, None, None]


ACTS = {NONE: nn.Identity, RELU: nn.ReLU, RELU6: nn.ReLU6, HARD_SWISH: nn.Hardswish}


def conv(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)


class Mobile(nn.Module):
    """One layer of `layers.spec`, Python ints."""

    def __init__(self, v: LayerSpec, stride: int):
        super().__init__()
        self.v, self.stride = v, stride
        gate = [Excite(v.gated, v.se_hidden, bool(v.hard_gate))] if v.se_hidden else []
        act = ACTS[v.activation]
        if v.op == CONV:
            parts = [conv(v.cin, v.cout, v.kernel, stride), nn.BatchNorm2d(v.cout), act()]
            parts += gate
        else:
            parts = []
            if v.op == MBCONV:
                parts += [conv(v.cin, v.middle, 1), nn.BatchNorm2d(v.middle), act()]
            parts += [conv(v.middle, v.middle, v.kernel, stride, v.middle)]
            parts += [nn.BatchNorm2d(v.middle), act(), *gate]
            parts += [conv(v.middle, v.cout, 1), nn.BatchNorm2d(v.cout)]
        self.body = nn.Sequential(*parts)

    def forward(self, x):
        y, v = self.body(x), self.v
        if v.skip == NO_SKIP:
            return y
        if v.skip == POOL:
            padding = 1 if self.stride == 1 else 0  # at stride 2, 'SAME' pads below and right
            x = F.avg_pool2d(
                x, 3, self.stride, padding, ceil_mode=self.stride == 2, count_include_pad=False
            )
            x = x[:, : v.cout] if v.cin > v.cout else F.pad(x, (0, 0, 0, 0, 0, v.cout - v.cin))
        return y + x


def network(arch: np.ndarray, space: Space) -> nn.Module:
    """The network of `arch` [T] of a space of stacked mobile layers with a head.

    At stride 2, its convolutions pad both sides alike, as PyTorch's users write them, and ours
    ('SAME') the right one more where sizes are even.
    """
    p = space.spec
    body, act, mix = (
        mobile_spaces.layers_of(p, arch),
        ACTS[mobile_spaces.act(p)],
        mobile_spaces.mix(p),
    )
    layers = [conv(common.CHANNELS, p.stem, 3, p.stem_stride), nn.BatchNorm2d(p.stem), act()]
    layers += [Mobile(v, stride) for _, _, stride, v in body]
    layers += [conv(body[-1][-1].cout, p.head, 1), nn.BatchNorm2d(p.head), act()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(p.head, mix), act()] if mix else []
    layers += [nn.Linear(mix or p.head, common.CLASSES)]
    module = nn.Sequential(*layers)
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
    return module.to(DEVICE, memory_format=torch.channels_last)


@functools.cache
def _images() -> tuple[torch.Tensor, ...]:
    data = common.images()

    def channels_last(x: np.ndarray) -> torch.Tensor:
        first = torch.from_numpy(x).to(DEVICE).permute(0, 3, 1, 2)
        return first.contiguous(memory_format=torch.channels_last)

    both = (data.train_labels, data.eval_labels)
    train_labels, eval_labels = (torch.from_numpy(y).long().to(DEVICE) for y in both)
    images = channels_last(data.train_images), channels_last(data.eval_images)
    return images[0], train_labels, images[1], eval_labels


def answer(
    space: str, archs: np.ndarray, steps: int, seed: int, short: bool = False
) -> common.Answer:
    """Trains the children one after another; `short`: convolutions in bfloat16 on CPUs, too."""
    start = time.perf_counter()
    accuracy, step_ms = [], []
    for i, arch in enumerate(archs):
        found, seconds = _child(space, arch, steps, seed + i, short)
        accuracy.append(found)
        step_ms.append(1000 * seconds / steps)
    return common.Answer(time.perf_counter() - start, 0.0, accuracy, step_ms)


def _arithmetic(short: bool) -> torch.autocast:
    """Of convolutions: bfloat16 on a GPU; elsewhere where it is asked for."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=short or DEVICE.type == "cuda")


def _child(space: str, arch: np.ndarray, steps: int, seed: int, short: bool) -> tuple[float, float]:
    """(accuracy, seconds of all steps)."""
    torch.manual_seed(seed)
    images, labels, eval_images, eval_labels = _images()
    module = network(arch, common.space(space))
    weights = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": common.DECAY}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=common.LR, momentum=common.MOMENTUM, nesterov=True)
    start = time.perf_counter()
    for i, rows in enumerate(common.batches(len(labels), steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = common.rate(i, steps)
        rows = torch.from_numpy(rows).to(DEVICE)
        optimizer.zero_grad()
        with _arithmetic(short):
            F.cross_entropy(module(images[rows]), labels[rows]).backward()
        nn.utils.clip_grad_norm_(module.parameters(), common.CLIP)
        optimizer.step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    module.eval()
    hits = 0
    with torch.inference_mode(), _arithmetic(short):
        for i in range(0, len(eval_labels), common.EVAL_BATCH):
            part = slice(i, i + common.EVAL_BATCH)
            hits += int((module(eval_images[part]).argmax(-1) == eval_labels[part]).sum())
    return hits / len(eval_labels), seconds
