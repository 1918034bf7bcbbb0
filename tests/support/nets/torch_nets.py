"""Thirty small networks in PyTorch, one to each idea that published networks are built of.

This module needs PyTorch; tests that import it skip without. Weights are drawn; statistics of
BatchNormalization are drawn, too, so that nothing is an identity by chance.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 5


class Compute(nn.Module):
    """Parts of a network and a function that computes it from them."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output."""
        return self.function(x, **dict(self.parts.items()))


def conv(
    inputs: int,
    outputs: int,
    size: int = 3,
    stride: int = 1,
    *,
    act: nn.Module | None = None,
    **more,
) -> nn.Sequential:
    """A convolution with BatchNormalization and ReLU, or another activation."""
    more.setdefault("padding", size // 2)
    layer = nn.Conv2d(inputs, outputs, size, stride, bias=False, **more)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act or nn.ReLU())


def linear_conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, **more) -> nn.Sequential:
    """A convolution with BatchNormalization alone."""
    return conv(inputs, outputs, size, stride, act=nn.Identity(), **more)


def head(channels: int) -> nn.Sequential:
    """An average over pixels and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def residual(inputs: int, outputs: int, stride: int = 1) -> Compute:
    """A basic block of a ResNet."""
    same = stride == 1 and inputs == outputs
    return Compute(
        lambda x, a, b, short: F.relu(b(a(x)) + short(x)),
        a=conv(inputs, outputs, 3, stride),
        b=linear_conv(outputs, outputs),
        short=nn.Identity() if same else linear_conv(inputs, outputs, 1, stride),
    )


def bottleneck(channels: int) -> Compute:
    """A bottleneck block, its middle in groups as in ResNeXt."""
    return Compute(
        lambda x, a, b, c: F.relu(x + c(b(a(x)))),
        a=conv(channels, channels // 2, 1),
        b=conv(channels // 2, channels // 2, groups=4),
        c=linear_conv(channels // 2, channels, 1),
    )


def inverted(channels: int) -> Compute:
    """An inverted residual of MobileNetV2."""
    return Compute(
        lambda x, a, b, c: x + c(b(a(x))),
        a=conv(channels, 3 * channels, 1, act=nn.ReLU6()),
        b=conv(3 * channels, 3 * channels, groups=3 * channels, act=nn.ReLU6()),
        c=linear_conv(3 * channels, channels, 1),
    )


def shuffle(x: Tensor) -> Tensor:
    """Shuffle channels in two groups."""
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def preactivated(x: Tensor, norm: nn.Module, a: nn.Module, b: nn.Module) -> Tensor:
    """A block that normalises before it convolves."""
    return x + b(a(F.relu(norm(x))))


def option_a(x: Tensor, a: nn.Module, end: nn.Module) -> Tensor:
    """A shortcut without weights: every second pixel, and channels of zeros."""
    return end(F.relu(a(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))))


def dense_block(x: Tensor, a: nn.Module, b: nn.Module, end: nn.Module) -> Tensor:
    """Two layers of a DenseNet."""
    x = torch.cat([x, a(x)], 1)
    return end(torch.cat([x, b(x)], 1))


def split(x: Tensor, stem: nn.Module, a: nn.Module, end: nn.Module) -> Tensor:
    """Half of the channels go through a layer, the other half past it."""
    first, second = stem(x).chunk(2, 1)
    return end(torch.cat([a(first), second], 1))


def normalised(x: Tensor, net: nn.Module) -> Tensor:
    """A network with its preprocessing in it."""
    mean = torch.tensor([0.2, -0.1, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 0.8, 1.1]).view(1, 3, 1, 1)
    return net((x - mean) / std)


IMAGE = (3, 12, 12)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5),
            nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 24), nn.ReLU(),
            nn.Linear(24, CLASSES), nn.LogSoftmax(1),
        ), (1, 12, 12)),
    "perceptron": (
        lambda: nn.Sequential(
            nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, CLASSES)
        ), (20,)),
    "autoencoder": (
        lambda: nn.Sequential(
            nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 24)
        ), (24,)),
    "vgg": (
        lambda: nn.Sequential(
            conv(3, 8), conv(8, 8), nn.MaxPool2d(2), conv(8, 16), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(144, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, CLASSES),
        ), IMAGE),
    "all convolutions": (
        lambda: nn.Sequential(conv(3, 8, 3, 2), conv(8, 8, 3, 2), nn.Conv2d(8, CLASSES, 3)), IMAGE),
    "network in network": (
        lambda: nn.Sequential(
            conv(3, 8, 5), conv(8, 8, 1), nn.MaxPool2d(3, 2, ceil_mode=True), conv(8, CLASSES, 1),
            nn.AvgPool2d(6), nn.Flatten(),
        ), IMAGE),
    "resnet": (
        lambda: nn.Sequential(conv(3, 8), residual(8, 8), residual(8, 16, 2), head(16)), IMAGE),
    "stem of 7x7": (
        lambda: nn.Sequential(
            conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), residual(8, 8), head(8)
        ), (3, 24, 24)),
    "preactivated": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            Compute(preactivated, norm=nn.BatchNorm2d(8), a=conv(8, 8), b=linear_conv(8, 8)),
            nn.BatchNorm2d(8), nn.ReLU(), head(8),
        ), IMAGE),
    "resnext": (lambda: nn.Sequential(conv(3, 16), bottleneck(16), head(16)), IMAGE),
    "shortcut without weights": (
        lambda: Compute(option_a, a=linear_conv(3, 8, 3, 2), end=head(8)), IMAGE),
    "mobilenet": (
        lambda: nn.Sequential(
            conv(3, 8, 3, 2), conv(8, 8, groups=8), conv(8, 16, 1), conv(16, 16, 3, 2, groups=16),
            conv(16, 16, 1), head(16),
        ), IMAGE),
    "mobilenet v2": (
        lambda: nn.Sequential(conv(3, 8, act=nn.ReLU6()), inverted(8), inverted(8), head(8)),
        IMAGE),
    "shufflenet": (
        lambda: nn.Sequential(
            conv(3, 8), Compute(lambda x, a: shuffle(a(x)), a=conv(8, 8, 1, groups=2)),
            conv(8, 8, groups=8), conv(8, 8, 1, groups=2), head(8),
        ), IMAGE),
    "densenet": (
        lambda: Compute(dense_block, a=conv(3, 5), b=conv(8, 4), end=head(12)), IMAGE),
    "squeezenet": (
        lambda: nn.Sequential(
            conv(3, 8),
            Compute(
                lambda x, s, a, b: torch.cat([a(s(x)), b(s(x))], 1),
                s=conv(8, 4, 1), a=conv(4, 6, 1), b=conv(4, 6),
            ),
            nn.Conv2d(12, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ), IMAGE),
    "inception": (
        lambda: nn.Sequential(
            conv(3, 8),
            Compute(
                lambda x, a, b, c, d: torch.cat([a(x), b(x), c(x), d(x)], 1),
                a=conv(8, 4, 1), b=nn.Sequential(conv(8, 3, 1), conv(3, 4)),
                c=nn.Sequential(conv(8, 3, 1), conv(3, 4, 5)),
                d=nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(8, 4, 1)),
            ),
            head(16),
        ), IMAGE),
    "rectangular kernels": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, (1, 5), padding=(0, 2)), nn.ReLU(),
            nn.Conv2d(6, 8, (5, 1), (2, 1), padding=(2, 0)), nn.ReLU(), head(8),
        ), IMAGE),
    "dilated": (
        lambda: nn.Sequential(
            conv(3, 8), conv(8, 8, dilation=2, padding=2), conv(8, 8, dilation=3, padding=3),
            head(8),
        ), IMAGE),
    "repvgg": (
        lambda: nn.Sequential(
            conv(3, 8),
            Compute(
                lambda x, a, b, c: F.relu(a(x) + b(x) + c(x)),
                a=linear_conv(8, 8), b=linear_conv(8, 8, 1), c=nn.BatchNorm2d(8),
            ),
            head(8),
        ), IMAGE),
    "cross stage": (
        lambda: Compute(split, stem=conv(3, 8), a=residual(4, 4), end=head(8)), IMAGE),
    "maxout": (
        lambda: nn.Sequential(
            Compute(lambda x, a, b: torch.maximum(a(x), b(x)), a=nn.Conv2d(3, 8, 3),
                    b=nn.Conv2d(3, 8, 3)), head(8),
        ), IMAGE),
    "super-resolution": (
        lambda: nn.Sequential(conv(1, 8, 5), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2)),
        (1, 8, 8)),
    "own preprocessing": (
        lambda: Compute(normalised, net=nn.Sequential(conv(3, 8), head(8))), IMAGE),
    "padding of one side": (
        lambda: nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.ReflectionPad2d(1),
            nn.Conv2d(8, 8, 3), nn.ReLU(), head(8),
        ), IMAGE),
    "averages without padding": (
        lambda: nn.Sequential(
            conv(3, 8), nn.AvgPool2d(3, 2, 1, count_include_pad=False), conv(8, 8), head(8)
        ), IMAGE),
    "largest over pixels": (
        lambda: nn.Sequential(
            conv(3, 8), Compute(lambda x, a: a(x.amax((2, 3))), a=nn.Linear(8, CLASSES))
        ), IMAGE),
    "channels last": (
        lambda: Compute(
            lambda x, a, b: b(a(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).mean((1, 2))),
            a=conv(3, 8), b=nn.Linear(8, CLASSES),
        ), (12, 12, 3)),
    "rows": (
        lambda: nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Flatten(), nn.Linear(48, CLASSES)),
        (6, 9)),
    "limits": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Hardtanh(-1.0, 2.0), nn.Conv2d(8, 8, 3), nn.Hardsigmoid(),
            head(8),
        ), IMAGE),
}  # fmt: skip
"""Networks by name: what makes each, and the shape of an image."""


def make(name: str) -> nn.Module:
    """Make a network for inference, its weights and statistics drawn."""
    torch.manual_seed(1)
    net = NETWORKS[name][0]().eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.6, 1.4)
            part.bias.data.normal_(0, 0.3)
    return net


def export(net: nn.Module, shape: tuple[int, ...], path: Path, *, dynamo: bool, **options) -> None:
    """Write a network by one of PyTorch's two exporters."""
    x = torch.randn(1, *shape)
    torch.onnx.export(net, (x,), path, dynamo=dynamo, verbose=False, **options)
