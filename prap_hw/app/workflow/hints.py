"""Hints about images that are taken otherwise than the network was trained with them.

Nothing here changes a figure. A hint is one sentence, which the verbs print on stderr.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess

TRIED = 64
"""Images on which other means and deviations are tried, at most."""

FEWEST = 16
"""Images without which a share of right answers says too little."""

MOST_PRODUCTS = 10**11
"""Products of the float network on the images that are tried, above which none are: a ResNet-50 at
224 x 224 has 0.65 * 10^11 on 16 images, VGG16 2.5 * 10^11, half a minute for each way to try."""

SUSPICIOUS, BETTER = 0.7, 0.2
"""Accuracy of the float network below which others are tried, and by how much one must be better
to be named."""

PUBLISHED: Mapping[int, tuple[tuple[str, str], ...]] = {
    1: ((".5", ".5"), (".1307", ".3081")),
    3: (
        (".5", ".5"),
        (".485,.456,.406", ".229,.224,.225"),
        (".4914,.4822,.4465", ".2470,.2435,.2616"),
    ),
}
"""Means and deviations that published training scripts have, by channels: those of -1 to 1, of
MNIST, ImageNet and CIFAR-10."""

APART = 8.0
"""Times the largest pixels that calibrated by which those of other images may differ."""


def input_words(values: Mapping[str, Any]) -> str:
    """Say how pixels become inputs, from what a program or a summary has of it."""
    return words(Preprocess.from_dict(values))


def words(preprocess: Preprocess) -> str:
    """Say how pixels become inputs: ``(pixel * 0.003922 - 0.1307) / 0.3081``."""
    mean, std = (
        ",".join(f"{each:g}" for each in values) for values in (preprocess.mean, preprocess.std)
    )
    scale = 1.0 if preprocess.scale is None else preprocess.scale
    return f"(pixel * {scale:.4g} - {mean}) / {std}, layout {preprocess.layout}"


def described(images: NDArray) -> dict[str, Any]:
    """The type and range of pixels, for a summary."""
    return {"type": str(images.dtype), "least": float(images.min()), "most": float(images.max())}


def pixel_hint(calibrating: object, images: NDArray) -> str | None:
    """Say that images have another range than those that calibrated; None where they have not.

    Parameters
    ----------
    calibrating
        What :func:`described` gave for the images that calibrated; anything else says nothing.
    images
        The other images.
    """
    if not isinstance(calibrating, Mapping) or {"type", "least", "most"} - set(calibrating):
        return None
    found = described(images)
    largest = [max(abs(each["least"]), abs(each["most"])) for each in (calibrating, found)]
    if not all(largest) or 1 / APART <= largest[0] / largest[1] <= APART:
        return None
    one, other = (
        f"{each['type']} from {each['least']:g} to {each['most']:g}"
        for each in (calibrating, found)
    )
    return f"the images are {other}, and those that calibrated the network were {one}"


def training_hint(
    network: FloatNetwork, images: NDArray, labels: NDArray | None, preprocess: Preprocess
) -> str | None:
    """Say that other means and deviations fit a network much better; None where none does.

    Only images of integers without a mean and a deviation are looked at: that is how they are taken
    where the user says nothing, and seldom how a network was trained.
    """
    untouched = set(preprocess.mean) == {0.0} and set(preprocess.std) == {1.0}
    if labels is None or images.dtype.kind not in "ui" or not untouched:
        return None
    x, y = images[:TRIED], labels[:TRIED]
    if len(x) < FEWEST or len(x) * _products(network) > MOST_PRODUCTS:
        return None
    accuracy = _share(network, x, y, preprocess)
    if accuracy >= SUSPICIOUS:
        return None
    found = [
        (_share(network, x, y, each), options) for options, each in _others(network, x, preprocess)
    ]
    best, options = max(found, default=(0.0, ""), key=lambda pair: pair[0])
    if best < accuracy + BETTER:
        return None
    return (
        f"the float network has {100 * accuracy:.0f} % of {len(x)} images right with "
        f"{words(preprocess)}; it has {100 * best:.0f} % with {options} of prap compress"
    )


def _products(network: FloatNetwork) -> int:
    """Products of weights and values for an image."""
    return sum(
        node.weight.size * (prod(node.shape) // len(node.weight))
        for node in network.nodes
        if isinstance(node, Matrix)
    )


def _others(
    network: FloatNetwork, images: NDArray, preprocess: Preprocess
) -> Iterator[tuple[str, Preprocess]]:
    """Other ways to take the images, each with the options that ask for it."""
    yield "--scale 1", replace(preprocess, scale=1.0)
    if images.max() not in (0, 255):
        scale = f"{1 / images.max():.6g}"
        yield f"--scale {scale}", replace(preprocess, scale=float(scale))
    settled = preprocess.for_input(images, network.input_shape)
    if settled.layout in ("nhw", "nf"):
        channels, axes = 1, None
    else:
        channels = images.shape[1 if settled.layout == "nchw" else 3]
        axes = (0, 2, 3) if settled.layout == "nchw" else (0, 1, 2)
    scaled = images.astype(np.float64) * (settled.scale or 1.0)
    own = tuple(
        ",".join(f"{each:.4g}" for each in np.atleast_1d(values))
        for values in (scaled.mean(axes), np.maximum(scaled.std(axes), 1e-3))
    )
    for mean, std in (*PUBLISHED.get(channels, ((".5", ".5"),)), own):
        numbers = (tuple(map(float, text.split(","))) for text in (mean, std))
        yield (
            f"--mean {mean} --std {std}",
            replace(preprocess, **dict(zip(("mean", "std"), numbers, strict=True))),
        )


def _share(
    network: FloatNetwork, images: NDArray, labels: NDArray, preprocess: Preprocess
) -> float:
    """Accuracy of the float network, a few images at a time."""
    right = 0
    for start in range(0, len(images), 8):
        inputs = preprocess.apply(images[start : start + 8], network.input_shape)
        values = network.forward(inputs)
        found = values.reshape(len(values), -1).argmax(1)
        right += int(np.count_nonzero(found == labels[start : start + 8]))
    return right / len(images)
