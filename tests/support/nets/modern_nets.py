"""Networks in PyTorch with the activations and blocks of the last years, written as published.

This module needs PyTorch; tests that import it skip without.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.support.nets.torch_nets import Compute, conv, head, linear_conv

IMAGE = (3, 24, 24)


def squeeze(channels: int, inner: int, act: nn.Module, gate: nn.Module) -> Compute:
    """Squeeze-and-excitation: channels weighed by what their averages say."""
    return Compute(
        lambda x, a, b, act, gate: x * gate(b(act(a(x.mean((2, 3), keepdim=True))))),
        a=nn.Conv2d(channels, inner, 1),
        b=nn.Conv2d(inner, channels, 1),
        act=act,
        gate=gate,
    )


def mobile(inputs, wide, outputs, size=3, stride=1, *, act, excite=None) -> nn.Module:
    """An inverted residual of MobileNetV3 and EfficientNet."""
    body = nn.Sequential(
        conv(inputs, wide, 1, act=act()),
        conv(wide, wide, size, stride, groups=wide, act=act()),
        excite or nn.Identity(),
        linear_conv(wide, outputs, 1),
    )
    if stride == 1 and inputs == outputs:
        return Compute(lambda x, body: x + body(x), body=body)
    return body


def mobilenet_v3_small() -> nn.Module:
    """The start of MobileNetV3-small, and its head."""

    def excite(channels: int) -> nn.Module:
        return squeeze(channels, max(8, channels // 4), nn.ReLU(), nn.Hardsigmoid())

    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.Hardswish()),
        mobile(16, 16, 16, 3, 2, act=nn.ReLU, excite=excite(16)),
        mobile(16, 72, 24, 3, 2, act=nn.ReLU),
        mobile(24, 88, 24, act=nn.ReLU),
        mobile(24, 96, 40, 5, act=nn.Hardswish, excite=excite(96)),
        conv(40, 96, 1, act=nn.Hardswish()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 64),
        nn.Hardswish(),
        nn.Linear(64, 5),
    )


def efficientnet() -> nn.Module:
    """Three blocks of EfficientNet-B0."""

    def excite(channels: int, inner: int) -> nn.Module:
        return squeeze(channels, inner, nn.SiLU(), nn.Sigmoid())

    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.SiLU()),
        mobile(16, 32, 12, act=nn.SiLU, excite=excite(32, 4)),
        mobile(12, 72, 20, 5, 2, act=nn.SiLU, excite=excite(72, 6)),
        mobile(20, 120, 20, act=nn.SiLU, excite=excite(120, 10)),
        conv(20, 64, 1, act=nn.SiLU()),
        head(64),
    )


def alexnet() -> nn.Module:
    """AlexNet's start with its normalisation across channels."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, 2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=0.1, k=2.0),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=0.1),
        nn.Flatten(),
        nn.Linear(24 * 16, 32),
        nn.ReLU(),
        nn.Linear(32, 5),
    )


def yolo(x: Tensor, a, b, pool, c, d, e) -> Tensor:
    """Two scales: a small map enlarged beside a large one; maxima of windows within windows."""
    large = b(a(x))
    small = c(large)
    small = torch.cat([small, pool(small), pool(pool(small))], 1)
    small = d(small)
    return e(torch.cat([F.interpolate(small, scale_factor=2, mode="nearest"), large], 1))


def leaky() -> nn.Module:
    """LeakyReLU as YOLO has it."""
    return nn.LeakyReLU(0.1)


def autoencoder() -> nn.Module:
    """Down by strides and up by transposed convolutions."""
    return nn.Sequential(
        conv(1, 8, 3, 2, act=nn.ELU()),
        conv(8, 12, 3, 2, act=nn.ELU()),
        nn.ConvTranspose2d(12, 8, 4, 2, 1),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 3, padding=1),
        nn.Tanh(),
    )


def unet(x: Tensor, a, b, up, c) -> Tensor:
    """A UNet of one level."""
    first = a(x)
    return c(torch.cat([up(b(F.max_pool2d(first, 2))), first], 1))


def block_of_convnext(x: Tensor, deep, norm, wide, narrow) -> Tensor:
    """A block of ConvNeXt: depthwise, normalised and widened with its channels last, scaled."""
    scale = torch.linspace(0.5, 1.5, 16).view(16, 1, 1)
    y = narrow(F.gelu(wide(norm(deep(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
    return x + scale * y


def convnext() -> nn.Module:
    """The start of ConvNeXt, a block and its head."""
    block = Compute(
        block_of_convnext,
        deep=nn.Conv2d(16, 16, 7, padding=3, groups=16),
        norm=nn.LayerNorm(16),
        wide=nn.Linear(16, 32),
        narrow=nn.Linear(32, 16),
    )
    last = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 5))
    return nn.Sequential(nn.Conv2d(3, 16, 4, 4), block, *last)


def block_of_mixer(x: Tensor, first, a, b, second, c, d) -> Tensor:
    """A block of MLP-Mixer: layers over places, then over channels."""
    x = x + b(F.gelu(a(first(x).transpose(1, 2)))).transpose(1, 2)
    return x + d(F.gelu(c(second(x))))


def mixer() -> nn.Module:
    """MLP-Mixer with patches of 4 x 4."""
    block = Compute(
        block_of_mixer, first=nn.LayerNorm(12), a=nn.Linear(9, 14), b=nn.Linear(14, 9),
        second=nn.LayerNorm(12), c=nn.Linear(12, 24), d=nn.Linear(24, 12),
    )  # fmt: skip
    patches = Compute(lambda x, a: a(x).flatten(2).transpose(1, 2), a=nn.Conv2d(3, 12, 4, 4))
    return nn.Sequential(patches, block, Compute(lambda x, a: a(x.mean(1)), a=nn.Linear(12, 5)))


def segment(x: Tensor, a, b, c) -> Tensor:
    """A fully convolutional network: its map is interpolated to the size of the image."""
    return F.interpolate(c(b(a(x))), size=x.shape[2:], mode="bilinear", align_corners=False)


def ghost(x: Tensor, first, cheap) -> Tensor:
    """A module of GhostNet: half of its channels are made of the other half."""
    x = first(x)
    return torch.cat([x, cheap(x)], 1)


def selected(x: Tensor, a, b, squeeze, to_a, to_b) -> Tensor:
    """A selective kernel: two branches, weighed channel by channel by a Softmax over the two."""
    first, second = a(x), b(x)
    code = squeeze((first + second).mean((2, 3), keepdim=True))
    shares = torch.softmax(torch.stack([to_a(code), to_b(code)], 1).flatten(2), 1)
    shares = shares.unflatten(2, (8, 1)).unsqueeze(4)
    return first * shares[:, 0] + second * shares[:, 1]


def split_attention(x: Tensor, a, squeeze, wide) -> Tensor:
    """A block of ResNeSt: halves of the channels, weighed by a Softmax over the two."""
    n, c, h, w = x.shape
    halves = F.relu(a(x)).view(n, 2, c // 2, h, w)
    code = wide(squeeze(halves.sum(1).mean((2, 3), keepdim=True)))
    shares = torch.softmax(code.view(n, 2, c // 2), 1).view(n, 2, c // 2, 1, 1)
    return (halves * shares).sum(1)


NETWORKS = {
    "split attention": (
        lambda: nn.Sequential(conv(3, 8), Compute(split_attention, a=nn.Conv2d(8, 8, 3, padding=1),
            squeeze=conv(4, 4, 1), wide=nn.Conv2d(4, 8, 1)), head(4)), (3, 12, 12)),
    "ConvNeXt": (convnext, IMAGE),
    "MLP-Mixer": (mixer, (3, 12, 12)),
    "normalised by groups": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(),
            nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.SiLU(), head(8)),
        (3, 12, 12)),
    "interpolated segmentation": (
        lambda: Compute(segment, a=conv(3, 8, 3, 2), b=conv(8, 8), c=nn.Conv2d(8, 3, 1)),
        (3, 12, 12)),
    "GhostNet": (
        lambda: nn.Sequential(conv(3, 8), Compute(ghost, first=conv(8, 6, 1),
            cheap=conv(6, 6, groups=6)), head(12)), (3, 12, 12)),
    "selective kernels": (
        lambda: nn.Sequential(conv(3, 8), Compute(selected, a=conv(8, 8), b=conv(8, 8, 5),
            squeeze=conv(8, 4, 1), to_a=nn.Conv2d(4, 8, 1), to_b=nn.Conv2d(4, 8, 1)), head(8)),
        (3, 12, 12)),
    "shrunk": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Conv2d(8, 8, 3),
            nn.Hardshrink(0.05), nn.Conv2d(8, 8, 3), nn.Softshrink(0.05), head(8)), (3, 12, 12)),
    "MobileNetV3-small": (mobilenet_v3_small, (3, 32, 32)),
    "EfficientNet-B0": (efficientnet, IMAGE),
    "AlexNet": (alexnet, IMAGE),
    "YOLO": (
        lambda: Compute(yolo, a=conv(3, 8, 3, 2, act=leaky()), b=conv(8, 12, act=leaky()),
            pool=nn.MaxPool2d(5, 1, 2), c=conv(12, 8, 3, 2, act=leaky()),
            d=conv(24, 12, 1, act=leaky()), e=nn.Conv2d(24, 18, 1)), IMAGE),
    "super-resolution of FSRCNN": (
        lambda: nn.Sequential(nn.Conv2d(1, 12, 5, padding=2), nn.PReLU(12), nn.Conv2d(12, 6, 1),
            nn.PReLU(6), nn.Conv2d(6, 6, 3, padding=1), nn.PReLU(), nn.Conv2d(6, 12, 1),
            nn.PReLU(12), nn.ConvTranspose2d(12, 1, 9, 2, 4, output_padding=1)), (1, 10, 10)),
    "autoencoder": (autoencoder, (1, 16, 16)),
    "UNet": (
        lambda: Compute(unet, a=conv(1, 8), b=conv(8, 16), up=nn.ConvTranspose2d(16, 8, 2, 2),
            c=nn.Sequential(conv(16, 8), nn.Conv2d(8, 2, 1))), (1, 12, 12)),
    "GELU": (
        lambda: nn.Sequential(conv(3, 8, act=nn.GELU()), conv(8, 8, act=nn.GELU("tanh")),
            conv(8, 8, act=nn.Mish()), head(8)), (3, 12, 12)),
    "keyword spotting": (
        lambda: nn.Sequential(nn.Conv1d(4, 12, 5, 2), nn.BatchNorm1d(12), nn.SiLU(),
            nn.MaxPool1d(2), nn.Conv1d(12, 12, 3, padding=1, groups=12), nn.Hardswish(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 5)), (4, 40)),
    "segmentation": (
        lambda: Compute(
            lambda x, a, b: b(F.interpolate(torch.sigmoid(a(x)), scale_factor=3)).argmax(1),
            a=conv(3, 8, 3, 2, act=nn.SELU()), b=nn.Conv2d(8, 4, 1)), (3, 12, 12)),
}  # fmt: skip
"""Networks by name: what makes each, and the shape of an image."""
